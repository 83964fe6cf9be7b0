"""The bundle file: aligned, checked, and refused in one line when anything is off."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgerec.bundle import ALIGNMENT, LOCAL_HEADER, MANIFEST, Bundle, write_bundle, write_members
from edgerec.errors import BundleError

MEMBERS = {"tables/item.i8": bytes(range(256)), "영화.txt": "제목 🎉".encode(), "empty": b""}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "a.edgerec", {"name": "test"}, MEMBERS)
    return tmp_path / "a.edgerec"


def test_members_read_back_and_are_aligned_in_the_file(path: Path) -> None:
    bundle = Bundle(path)
    assert {name: bytes(bundle[name]) for name in MEMBERS} == MEMBERS
    assert bundle.manifest["name"] == "test"
    assert np.frombuffer(bundle["tables/item.i8"], np.uint8).ctypes.data % ALIGNMENT == 0
    assert bundle["tables/item.i8"].readonly
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_equal_content_gives_equal_bytes(path: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "b.edgerec", {"name": "test"}, MEMBERS)
    assert (tmp_path / "b.edgerec").read_bytes() == path.read_bytes()


def test_missing_truncated_empty_and_foreign_files_are_refused(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    for content in (b"", b"no zip at all", whole[: len(whole) // 2], whole[:-1]):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(BundleError, match="expected a whole .edgerec bundle"):
            Bundle(tmp_path / "bad")
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle(tmp_path / "absent")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(data=st.data())
def test_a_flipped_byte_never_changes_what_is_read(path: Path, data: st.DataObject) -> None:
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    changed = path.with_name("changed")
    changed.write_bytes(content)
    try:
        bundle = Bundle(changed)
    except BundleError:
        return
    assert {name: bytes(bundle[name]) for name in MEMBERS} == MEMBERS


def test_a_newer_format_says_update(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edgerec.bundle.FORMAT_VERSION", 2)
    write_bundle(tmp_path / "new.edgerec", {}, {})
    monkeypatch.undo()
    with pytest.raises(BundleError, match="has format version 2, this edgerec reads up to 1"):
        Bundle(tmp_path / "new.edgerec")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../up", "a/../../up", "c:\\x", "manifest.json", "", "a//b", "./a", "a/", "a\nb", "."]
)
def test_a_path_that_escapes_is_refused_by_writer_and_reader(name: str, path: Path) -> None:
    with pytest.raises(BundleError):
        write_bundle(path, {}, {name: b"x"})
    if name and name != "manifest.json":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(zipfile.ZipInfo(name), b"x")
        with pytest.raises(BundleError):
            Bundle(path)


def test_a_compressed_or_unlisted_member_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        path.write_bytes(whole)
        with zipfile.ZipFile(path, "a", kind) as archive:
            archive.writestr("more", bytes(1000))
        with pytest.raises(BundleError):
            Bundle(path)


def test_an_unknown_member_lists_the_known(path: Path) -> None:
    with pytest.raises(BundleError, match="tables/item.i8"):
        Bundle(path)["nothing"]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (b"[" * 30 + b"]" * 30, "no JSON object"),
        (b"[" * 40 + b"]" * 40, "nested deeper than 32"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper than 32"),
        (b'{"name": "a", "name": "b"}', "a name twice"),
        (b'{"scale": NaN}', "JSON with NaN"),
        (b'{"n": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b'"' + b"x" * (4 << 20) + b'"', "expected at most 4194304"),
        (b'{"format_version": true, "members": {}}', "format version True"),
        (b'{"format_version": 1, "members": {"item": 3}}', "does not list"),
        (b'{"format_version": {"a": "' + b"x" * 9999 + b'"}}', "has format version"),
    ],
    ids=range(10),
)
def test_a_manifest_that_is_not_strict_json_is_refused_in_a_short_line(
    tmp_path: Path, manifest: bytes, message: str
) -> None:
    write_members(tmp_path / "bad", {MANIFEST: manifest})
    with pytest.raises(BundleError, match=message) as caught:
        Bundle(tmp_path / "bad")
    assert len(str(caught.value)) < 500


def test_members_that_overlap_are_not_hashed_one_by_one(tmp_path: Path) -> None:
    """A thousand names of the same megabytes would keep a device busy with a small file."""
    path = tmp_path / "bomb"
    write_bundle(path, {}, {"a": bytes(1 << 16)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.filelist += [archive.getinfo("a")] * 3
        archive.writestr("b", b"")
    with pytest.raises(BundleError, match="members are larger than the file"):
        Bundle(path)


def test_two_headers_must_agree(path: Path) -> None:
    """Another reader may go by the local header: it must not see another file."""
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("empty").header_offset
    content = path.read_bytes()
    for place in (start + 6, start + 8, start + 14, start + 18, start + 22, start + LOCAL_HEADER.size):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(BundleError, match="two headers that disagree"):
            Bundle(path)


def test_a_size_is_checked_before_any_hash(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = json.loads(bytes(Bundle(path)[MANIFEST]))
    manifest["members"]["empty"]["size"] = 10**15
    write_members(path, {MANIFEST: json.dumps(manifest).encode(), **MEMBERS})
    monkeypatch.setattr("edgerec.bundle.digest", lambda data: pytest.fail("hashed"))
    with pytest.raises(BundleError, match="'empty' differs from its size"):
        Bundle(path)
