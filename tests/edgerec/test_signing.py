"""A signature covers the whole file, is asked for by who gives a key, and is never passed over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgerec.bundle import MANIFEST, SIGNATURE, Bundle, sign, write_bundle, write_members
from edgerec.errors import BundleError, UsageError
from edgerec.signing import generate

pytest.importorskip("cryptography")
MEMBERS = {"item.i8": bytes(range(256)), "영화.txt": "제목 🎉".encode(), "empty": b""}


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    generate(private, public)
    return private, public


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "a.edgerec", {"name": "test"}, MEMBERS)
    return tmp_path / "a.edgerec"


@pytest.fixture
def signed(path: Path, keys: tuple[Path, Path]) -> Path:
    out = path.with_name("signed.edgerec")
    sign(path, keys[0].read_bytes(), out)
    return out


def test_a_signed_file_holds_the_same_and_the_original_stays(path: Path, signed: Path, keys: tuple[Path, Path]) -> None:
    bundle = Bundle(signed, keys[1])
    assert bytes(bundle[MANIFEST]) == bytes(Bundle(path)[MANIFEST])
    assert {name: bytes(bundle[name]) for name in MEMBERS} == MEMBERS
    assert bundle.signed and not Bundle(path).signed
    sign(path, keys[0].read_bytes(), path)
    assert path.read_bytes() == signed.read_bytes()
    sign(path, keys[0].read_bytes(), path)  # a signature is replaced, not signed
    assert path.read_bytes() == signed.read_bytes()


def test_without_the_right_signature_a_key_refuses(
    path: Path, signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="is not signed, and a key was given"):
        Bundle(path, keys[1])
    generate(tmp_path / "other.pem", tmp_path / "other.pub.pem")
    with pytest.raises(BundleError, match="signed with another key"):
        Bundle(signed, (tmp_path / "other.pub.pem").read_bytes())
    bundle = Bundle(signed)
    for wrong in (b"", bytes(63), bytes(64), bytes(bundle[SIGNATURE]) + b"x"):
        write_members(tmp_path / "wrong", {MANIFEST: bundle[MANIFEST], SIGNATURE: wrong, **MEMBERS})
        with pytest.raises(BundleError, match="signed with another key"):
            Bundle(tmp_path / "wrong", keys[1])


def test_a_manifest_that_was_made_anew_needs_a_new_signature(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    write_bundle(tmp_path / "forged", {"name": "forged"}, MEMBERS)
    forged, old = Bundle(tmp_path / "forged"), bytes(Bundle(signed)[SIGNATURE])
    write_members(tmp_path / "forged", {MANIFEST: forged[MANIFEST], SIGNATURE: old, **MEMBERS})
    Bundle(tmp_path / "forged")  # nobody asked
    with pytest.raises(BundleError, match="was changed after it was signed"):
        Bundle(tmp_path / "forged", keys[1])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(data=st.data())
def test_a_flipped_byte_of_a_signed_file_never_changes_what_is_read(
    signed: Path, keys: tuple[Path, Path], data: st.DataObject
) -> None:
    content = bytearray(signed.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    changed = signed.with_name("changed")
    changed.write_bytes(content)
    try:
        bundle = Bundle(changed, keys[1])
    except BundleError:
        return
    assert {name: bytes(bundle[name]) for name in MEMBERS} == MEMBERS
    assert bytes(bundle[MANIFEST]) == bytes(Bundle(signed)[MANIFEST])


def test_keys_are_checked_and_never_overwritten(signed: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    assert private.stat().st_mode & 0o077 == 0
    for key in (private, private.read_bytes(), b"", "", b"-----BEGIN NOTHING-----"):
        with pytest.raises(UsageError, match="expected an Ed25519 public key"):
            Bundle(signed, key)
    with pytest.raises(UsageError, match="expected an Ed25519 private key"):
        sign(signed, public.read_bytes(), signed)
    with pytest.raises(UsageError, match="exist; expected new names"):
        generate(private, public)


def test_a_device_without_the_library_says_which_extra_and_does_not_open(signed: Path, keys: tuple[Path, Path]) -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from pathlib import Path\n"
        "from edgerec.bundle import Bundle\n"
        "from edgerec.errors import MissingExtraError\n"
        f"Bundle(Path({str(signed)!r}))\n"
        f"try: Bundle(Path({str(signed)!r}), {str(keys[1])!r})\n"
        "except MissingExtraError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'edgerec[sign]'" in result.stdout, result.stderr
