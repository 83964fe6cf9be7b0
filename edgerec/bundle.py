"""The bundle: one ``.edgerec`` file, a zip whose members are stored uncompressed and 64-byte aligned.

Stored and aligned, a table can be mapped into memory and used without a copy. ``manifest.json`` is the first member; it
names every other one with its size and sha256. The reader trusts nothing: it checks names, sizes, offsets and hashes
before any member is used. There is no pickle, no code and no absolute path inside.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from edgerec.errors import BundleError
from edgerec.files import atomic_path

FORMAT_VERSION = 1
ALIGNMENT = 64  # bytes: a cache line, and what AVX-512 loads want
MANIFEST = "manifest.json"
LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # PKWARE APPNOTE 4.3.7; the last two are the lengths of name and extra field
PADDING_ID = 0xD935  # extra-field id that Android's zipalign uses for alignment
DATE = (1980, 1, 1, 0, 0, 0)  # constant, so that equal content gives equal bytes


def write_bundle(path: Path, manifest: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
    """Write a bundle, whole or not at all.

    Args:
        path: The file to write.
        manifest: JSON values; ``format_version`` and ``members`` are added here.
        members: Name -> content; names are relative POSIX paths.

    Raises:
        BundleError: A name is not a plain relative path, or is the manifest's.
    """
    for name in members:
        if not is_plain(name) or name == MANIFEST:
            raise BundleError(f"{name!r} cannot name a bundle member; expected a relative path such as tables/item.i8")
    listed = {name: {"size": len(data), "sha256": digest(data)} for name, data in members.items()}
    head = json.dumps({**manifest, "format_version": FORMAT_VERSION, "members": listed}, ensure_ascii=False)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {MANIFEST: head.encode(), **members}.items():
            info = zipfile.ZipInfo(name, DATE)
            start = archive.start_dir + LOCAL_HEADER.size + len(name.encode()) + 4
            padding = -start % ALIGNMENT
            info.extra = struct.pack("<HH", PADDING_ID, padding) + bytes(padding)
            archive.writestr(info, data)


def is_plain(name: str) -> bool:
    """Tell whether a member's name stays inside the folder that it would be extracted to."""
    parts = PurePosixPath(name).parts
    return bool(parts) and "\\" not in name and ":" not in name and not name.startswith("/") and ".." not in parts


def digest(data: bytes | memoryview) -> str:
    """Return the sha256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class Bundle:
    """An open, checked bundle: ``bundle[name]`` is a read-only view of a member, without a copy.

    Raises:
        BundleError: The file is missing, truncated, tampered with, of a newer format, or not a bundle.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as stream:
                self._view = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
            with zipfile.ZipFile(self.path) as archive:
                entries = archive.infolist()
            self._members = {entry.filename: self._locate(entry) for entry in entries}
            self.manifest = self._read_manifest(len(entries))
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, struct.error, RecursionError) as error:
            raise self._refusal(f"cannot be read ({error})", "copy or export it again") from error
        self._check()

    def __getitem__(self, name: str) -> memoryview:
        """Return a member's bytes as a read-only view into the mapped file.

        Raises:
            BundleError: There is no such member.
        """
        if name not in self._members:
            raise self._refusal(f"has no member {name!r}", f"it has {', '.join(self._members)}")
        return self._members[name]

    def _refusal(self, got: str, advice: str) -> BundleError:
        return BundleError(f"{self.path} {got}; expected a whole .edgerec bundle: {advice}")

    def _locate(self, entry: zipfile.ZipInfo) -> memoryview:
        """Return the view of one entry, after checking that it is stored and lies inside the file."""
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 0x1 or not is_plain(entry.filename):
            raise ValueError(f"member {entry.filename!r} is compressed, encrypted or not a plain path")
        header = LOCAL_HEADER.unpack_from(self._view, entry.header_offset)
        start = entry.header_offset + LOCAL_HEADER.size + header[9] + header[10]
        if header[0] != b"PK\x03\x04" or start + entry.file_size > len(self._view):
            raise ValueError(f"member {entry.filename!r} does not lie inside the file")
        return self._view[start : start + entry.file_size]

    def _read_manifest(self, entries: int) -> dict[str, Any]:
        if MANIFEST not in self._members or entries != len(self._members):
            raise ValueError("no manifest, or one name twice")
        manifest = json.loads(bytes(self._members[MANIFEST]))
        if not isinstance(manifest, dict):
            raise ValueError("the manifest is no JSON object")
        return manifest

    def _check(self) -> None:
        """Compare every member with the manifest."""
        version, listed = self.manifest.get("format_version"), self.manifest.get("members")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise self._refusal(
                f"has format version {version!r}, this edgerec reads up to {FORMAT_VERSION}", "update it"
            )
        if not isinstance(listed, dict) or set(listed) != set(self._members) - {MANIFEST}:
            raise self._refusal("has members that its manifest does not list, or lacks some", "export it again")
        for name, view in self._members.items():
            if name != MANIFEST and listed[name] != {"size": len(view), "sha256": digest(view)}:
                raise self._refusal(f"was changed: {name!r} differs from its size or sha256", "copy or export it again")
