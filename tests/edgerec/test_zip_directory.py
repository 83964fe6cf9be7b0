"""The plain reader of a zip's directory says what zipfile says, or nothing."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerec.bundle import write_bundle
from edgerec.zip_directory import Entry, plain_directory

MEMBERS = {"a/b.i8": b"12345", "c.json": b"{}", "empty": b""}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("zip") / "x.edgerec"
    write_bundle(path, {"kind": "x"}, MEMBERS)
    return path.read_bytes()


def by_zipfile(content: bytes) -> list[Entry] | None:
    """Return what zipfile lists, None where it refuses."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return [Entry(*(getattr(info, name) for name in Entry._fields)) for info in archive.infolist()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return None


def test_a_bundle_is_plain(whole: bytes) -> None:
    found = plain_directory(memoryview(whole))
    assert found == by_zipfile(whole)
    assert found is not None and [entry.filename for entry in found] == ["manifest.json", *MEMBERS]


@settings(max_examples=1500, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(1, 420), st.integers(0, 255)), min_size=1, max_size=3), cut=st.integers(0, 3)
)
def test_what_is_read_is_what_zipfile_reads(whole: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(whole)
    for back, value in changes:  # the directory is at the end
        content[-back] = value
    content = content[: len(content) - cut] if cut == 3 else content
    found = plain_directory(memoryview(bytes(content)))
    assert found is None or found == by_zipfile(bytes(content))


@pytest.mark.parametrize("other", ["comment", "zip64", "before", "name", "deflated"])
def test_another_form_is_left_to_zipfile(whole: bytes, other: str) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.comment = b"x" if other == "comment" else b""
        info = zipfile.ZipInfo("é" if other == "name" else "a")
        info.extra = b"\x01\0\x08\0" + bytes(8) if other == "zip64" else b""
        archive.writestr(info, b"1" * 99, zipfile.ZIP_DEFLATED if other == "deflated" else zipfile.ZIP_STORED)
    content = (b"#!" if other == "before" else b"") + stream.getvalue()
    found = plain_directory(memoryview(content))
    assert (found == by_zipfile(content)) if other == "deflated" else found is None


def test_opening_a_bundle_does_not_import_zipfile(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.edgerec").write_bytes(whole)
    program = "import sys; from pathlib import Path; from edgerec.bundle import Bundle; Bundle(Path(sys.argv[1]))"
    program += "; assert not {'zipfile', 'shutil', 'bz2', 'lzma'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "x.edgerec")], check=True)
