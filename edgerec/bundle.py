"""The bundle: one ``.edgerec`` file, a zip whose members are stored uncompressed and 64-byte aligned.

Stored and aligned, a table can be mapped into memory and used without a copy. ``manifest.json`` is the first member; it
names every other one with its size and sha256. ``signature.ed25519``, where there is one, signs the manifest's exact
bytes, and so all of the file. The reader trusts nothing: it checks the signature (if asked for one), names, sizes,
offsets and hashes before any member is used. There is no pickle, no code and no absolute path inside.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import reprlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from edgerec import signing, strict_json
from edgerec.errors import BundleError
from edgerec.files import atomic_path
from edgerec.zip_directory import PADDING, PADDING_ID, UTF8, Entry, plain_directory

FORMAT_VERSION = 1
ALIGNMENT = 64  # bytes: a cache line, and what AVX-512 loads want
MANIFEST, SIGNATURE = "manifest.json", "signature.ed25519"
LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # PKWARE APPNOTE 4.3.7; the last two are the lengths of name and extra field
DATE = (1980, 1, 1, 0, 0, 0)  # constant, so that equal content gives equal bytes
STORED = 0  # the only method of compression that a member may have


def write_bundle(path: Path, manifest: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
    """Write a bundle, whole or not at all.

    Args:
        path: The file to write.
        manifest: JSON values; ``format_version`` and ``members`` are added here.
        members: Name -> content; names are relative POSIX paths.

    Raises:
        BundleError: A name is not a plain relative path, or is the manifest's or the signature's.
    """
    for name in members:
        if not is_plain(name) or name in (MANIFEST, SIGNATURE):
            raise BundleError(f"{name!r} cannot name a bundle member; expected a relative path such as tables/item.i8")
    listed = {name: {"size": len(data), "sha256": digest(data)} for name, data in members.items()}
    head = json.dumps({**manifest, "format_version": FORMAT_VERSION, "members": listed}, ensure_ascii=False)
    write_members(path, {MANIFEST: head.encode(), **members})


def write_members(path: Path, members: Mapping[str, bytes | memoryview]) -> None:
    """Write the zip: members as they are, in their order, aligned."""
    import zipfile

    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, DATE)
            start = archive.start_dir + LOCAL_HEADER.size + len(name.encode()) + 4
            padding = -start % ALIGNMENT
            info.extra = PADDING.pack(PADDING_ID, padding) + bytes(padding)
            archive.writestr(info, data)


def sign(path: Path, private_key: bytes, out: Path) -> None:
    """Write a bundle or delta with a signature of its manifest; one that is there already is replaced.

    Args:
        path: The file to sign; it stays as it is unless ``out`` names it too.
        private_key: An Ed25519 private key in PEM.
        out: The file to write, whole or not at all.

    Raises:
        BundleError: ``path`` is no whole bundle.
        UsageError: The key cannot be used.
        MissingExtraError: ``cryptography`` is not installed.
    """
    bundle = Bundle(path)
    manifest = bytes(bundle[MANIFEST])
    rest = {name: bundle[name] for name in bundle.manifest["members"]}
    write_members(out, {MANIFEST: manifest, SIGNATURE: signing.sign(manifest, private_key), **rest})


def is_plain(name: str) -> bool:
    """Tell whether a member's name stays inside the folder that it is extracted to, and is written in the only way."""
    parts = name.split("/")
    return name.isprintable() and not {"", ".", ".."} & set(parts) and not {"\\", ":"} & set(name)


def digest(data: bytes | memoryview) -> str:
    """Return the sha256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class Bundle:
    """An open, checked bundle: ``bundle[name]`` is a read-only view of a member, without a copy.

    Args:
        path: The file.
        key: An Ed25519 public key in PEM, or the name of a file that holds one. Whoever gives one gets a file that its
            owner signed, or an error; without one, a signature is not looked at.

    Raises:
        BundleError: The file is missing, truncated, tampered with, of a newer format, not signed with the key that was
            asked for, or not a bundle.
        UsageError: The key cannot be used.
        MissingExtraError: A key was given and ``cryptography`` is not installed.
    """

    def __init__(self, path: Path, key: signing.Key | None = None) -> None:
        self.path = Path(path)
        public_key = (
            None if key is None else signing.public_key(key)
        )  # first: a key that cannot be used is no bundle's fault
        try:
            self._members = self._open()
            if public_key is not None:
                self._check_signature(public_key)
            self.manifest = self._read_manifest()
        except (OSError, ValueError, NotImplementedError, struct.error) as error:
            raise self._refusal(f"cannot be read ({error})", "copy or export it again") from error
        self.signed = SIGNATURE in self._members
        self._check()
        self.release()

    def __getitem__(self, name: str) -> memoryview:
        """Return a member's bytes as a read-only view into the mapped file.

        Raises:
            BundleError: There is no such member.
        """
        if name not in self._members:
            raise self._refusal(f"has no member {name!r}", f"it has {', '.join(self._members)}")
        return self._members[name]

    @property
    def file(self) -> memoryview:
        """The whole file's bytes, as they were checked: another file may have its name by now."""
        return memoryview(self._map)

    def release(self) -> None:
        """Give the memory of what was read so far back to the system; the next use reads it from the file again."""
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            self._map.madvise(mmap.MADV_DONTNEED)

    def _refusal(self, got: str, advice: str) -> BundleError:
        return BundleError(f"{self.path} {got}; expected a whole .edgerec bundle: {advice}")

    def _open(self) -> dict[str, memoryview]:
        """Map the file and return its members, after checking that together they are no larger than it."""
        with self.path.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            whole = memoryview(self._map)
            if (entries := plain_directory(whole)) is None:
                entries = any_directory(stream)
        if sum(entry.file_size for entry in entries) > len(whole):  # before any is hashed: none is read twice
            raise ValueError("its members are larger than the file")
        members = {entry.filename: locate(whole, entry) for entry in entries}
        if MANIFEST not in members or len(entries) != len(members):
            raise ValueError("no manifest, or one name twice")
        return members

    def _check_signature(self, public_key: signing.PublicKey) -> None:
        if SIGNATURE not in self._members:
            raise self._refusal(
                "is not signed, and a key was given", "get it from who holds the key, or edgerec sign it"
            )
        if not signing.holds(self._members[MANIFEST], self._members[SIGNATURE], public_key):
            raise self._refusal("was changed after it was signed, or signed with another key", "get it again")

    def _read_manifest(self) -> dict[str, Any]:
        manifest = strict_json.parse(self._members[MANIFEST])
        if not isinstance(manifest, dict):
            raise ValueError("the manifest is no JSON object")
        return manifest

    def _check(self) -> None:
        """Compare every member with the manifest: all sizes first, then all hashes."""
        version, listed = self.manifest.get("format_version"), self.manifest.get("members")
        if type(version) is not int or not 0 < version <= FORMAT_VERSION:
            got = reprlib.repr(version)
            raise self._refusal(f"has format version {got}, this edgerec reads up to {FORMAT_VERSION}", "update it")
        if not isinstance(listed, dict) or set(listed) != set(self._members) - {MANIFEST, SIGNATURE}:
            raise self._refusal("has members that its manifest does not list, or lacks some", "export it again")
        entries = {name: (entry, self._members[name]) for name, entry in listed.items()}
        for name, (entry, view) in entries.items():
            if not isinstance(entry, dict) or entry.get("size") != len(view):
                raise self._refusal(f"was changed: {name!r} differs from its size", "copy or export it again")
        for name, (entry, view) in entries.items():
            if entry != {"size": len(view), "sha256": digest(view)}:
                raise self._refusal(f"was changed: {name!r} differs from its sha256", "copy or export it again")


def any_directory(stream: BinaryIO) -> list[Entry]:
    """Return the entries of any zip.

    Raises:
        ValueError: It is none.
    """
    import zipfile

    try:
        with zipfile.ZipFile(stream) as archive:
            return [Entry(*(getattr(info, name) for name in Entry._fields)) for info in archive.infolist()]
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error


def locate(whole: memoryview, entry: Entry) -> memoryview:
    """Return the view of one zip entry.

    Raises:
        ValueError: It is compressed, encrypted, not a plain path, not inside the file, or its two headers disagree.
    """
    stored = entry.compress_type == STORED and entry.compress_size == entry.file_size
    if not stored or entry.flag_bits & ~UTF8 or not is_plain(entry.filename) or entry.filename != entry.orig_filename:
        raise ValueError(f"member {entry.filename!r} is compressed, encrypted or not a plain path")
    at = entry.header_offset
    if not 0 <= at <= len(whole) - LOCAL_HEADER.size:
        raise ValueError(f"member {entry.filename!r} does not lie inside the file")
    header = LOCAL_HEADER.unpack_from(whole, at)
    start = at + LOCAL_HEADER.size + header[9] + header[10]
    name = bytes(whole[at + LOCAL_HEADER.size :][: header[9]])
    agreed = (b"PK\x03\x04", entry.flag_bits, entry.compress_type, entry.CRC, entry.file_size, entry.file_size)
    if (*header[:1], *header[2:4], *header[6:9]) != agreed or name != encoded_name(entry):
        raise ValueError(f"member {entry.filename!r} has two headers that disagree")
    if start + entry.file_size > len(whole):
        raise ValueError(f"member {entry.filename!r} does not lie inside the file")
    return whole[start : start + entry.file_size]


def encoded_name(entry: Entry) -> bytes:
    """Return a member's name as its headers hold it."""
    return entry.filename.encode("utf-8" if entry.flag_bits & UTF8 else "cp437")
