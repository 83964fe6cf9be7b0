"""Wheels as data: pinned, cached, offline."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import pytest

from edgerec import sources
from edgerec.errors import DataError, UsageError
from edgerec.files import sha256


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with the members of ml-100k, pinned in place of the real one."""
    path = tmp_path / "small.whl"
    source = sources.SOURCES["ml-100k"]
    with zipfile.ZipFile(path, "w") as archive:
        for member in source.members:
            archive.writestr(member, "x:token\n1\n")
    monkeypatch.setitem(sources.SOURCES, "ml-100k", dataclasses.replace(source, sha256=sha256(path)))
    return path


def test_a_given_wheel_works_offline_and_is_cached(wheel: Path, own_cache: Path) -> None:
    folder = sources.fetch("ml-100k", offline=True, wheel=wheel)
    assert folder == own_cache / "ml-100k"
    wheel.unlink()
    assert sorted(path.name for path in sources.fetch("ml-100k", offline=True).iterdir()) == [
        "interactions.inter",
        "items.item",
    ]


def test_a_changed_wheel_is_refused_and_leaves_nothing(wheel: Path, own_cache: Path) -> None:
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    with pytest.raises(DataError, match="download it anew"):
        sources.fetch("ml-100k", wheel=wheel)
    assert not own_cache.exists()


def test_offline_without_cache_says_what_to_do() -> None:
    with pytest.raises(DataError, match="edgerec data fetch ml-100k"):
        sources.fetch("ml-100k", offline=True)


def test_an_unknown_source_lists_the_known() -> None:
    with pytest.raises(UsageError, match="completejourney"):
        sources.fetch("ml-1b")
