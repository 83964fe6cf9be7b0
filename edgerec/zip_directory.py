"""What a zip's central directory says, read without ``zipfile``, whose compressors take long to import.

Read here is the plain form that ``bundle.write_members`` writes, of which ``zipfile`` would say the same. Whatever is
another, sound or not, is left to ``zipfile``.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

END, DIRECTORY = struct.Struct("<4s4HLLH"), struct.Struct("<4s6H3L5H2L")
ZIP64_LOCATOR, ZIP64_LOCATOR_SIZE = b"PK\x06\x07", 20
PADDING_ID = 0xD935  # of an extra field that aligns what follows, as Android's zipalign does
PADDING = struct.Struct("<HH")
UTF8 = 0x800  # the only flag that a member may have: its name is UTF-8
LATEST = 63  # the newest version of the format that zipfile reads


class Entry(NamedTuple):
    """A member as the directory lists it, under ``zipfile.ZipInfo``'s names."""

    filename: str
    orig_filename: str
    flag_bits: int
    compress_type: int
    CRC: int
    compress_size: int
    file_size: int
    header_offset: int


def plain_directory(whole: memoryview) -> list[Entry] | None:
    """Return the entries of a zip that ends in a plain directory; None where it does not."""
    end = len(whole) - END.size
    if end < ZIP64_LOCATOR_SIZE or whole[end - ZIP64_LOCATOR_SIZE :][:4] == ZIP64_LOCATOR:
        return None
    signature, disk, first, here, count, size, at, comment = END.unpack_from(whole, end)
    if signature != b"PK\x05\x06" or (disk, first, comment) != (0, 0, 0) or here != count or at + size != end:
        return None
    entries = []
    for _ in range(count):
        if (found := plain_entry(whole[at:end])) is None:
            return None
        entry, taken = found
        entries.append(entry)
        at += taken
    return entries if at == end else None


def plain_entry(rest: memoryview) -> tuple[Entry, int] | None:
    """Return the entry that a directory's rest begins with, and its length in bytes; None where it is not plain."""
    if len(rest) < DIRECTORY.size:
        return None
    fields = DIRECTORY.unpack_from(rest)
    signature, _, version, flags, method, _, _, crc, packed, size, named, extra, comment, disk, _, _, at = fields
    after = DIRECTORY.size + named
    name, more = bytes(rest[DIRECTORY.size : after]), rest[after : after + extra]
    if signature != b"PK\x01\x02" or (comment, disk) != (0, 0) or version > LATEST or flags & ~UTF8:
        return None
    if len(more) < extra or (extra and not is_padding(more)) or max(packed, size, at) == 0xFFFFFFFF:
        return None
    if not name.isascii() or not (text := name.decode()).isprintable() or "\\" in text:
        return None
    return Entry(text, text, flags, method, crc, packed, size, at), after + extra


def is_padding(extra: memoryview) -> bool:
    """Tell whether an entry's further fields are one, which aligns."""
    return len(extra) >= PADDING.size and PADDING.unpack_from(extra) == (PADDING_ID, len(extra) - PADDING.size)
