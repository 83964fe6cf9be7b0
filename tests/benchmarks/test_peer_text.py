"""The peers' own part around an encoder: what they recommend and search, and the catalogue's vectors that are kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import pytest

from edgerec.benchmarks.peer_text import TextPeer, Vectors

N = 24


class Compass(TextPeer):
    """Encodes the number in a text as a direction; equal steps apart, so that neighbours are nearest."""

    home = "compass"
    asked = 0

    def load(self) -> None:
        self.vectors = self._directions

    def _directions(self, texts: Sequence[str]) -> Vectors:
        self.asked += len(texts)
        angles = np.array([2 * np.pi * int(text.split()[1]) / N for text in texts], np.float32)
        return np.stack([np.cos(angles), np.sin(angles)], 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "compass").mkdir()
    names = {"ids": [f"i{n}" for n in range(N)], "texts": [f"at {n}" for n in range(N)]}
    (tmp_path / "catalogue.json").write_text(json.dumps(names))
    return tmp_path


def prepared(kind: str, folder: Path) -> Compass:
    peer = Compass(kind, str(folder))
    peer.prepare()
    return peer


def test_a_cold_start_has_its_parts(folder: Path) -> None:
    assert [name for name, _ in Compass("encode", str(folder)).stages()] == ["import", "open"]
    assert [name for name, _ in Compass("search", str(folder)).stages()] == ["import", "open", "catalogue"]


def test_a_profile_is_between_its_items_and_leaves_them_out(folder: Path) -> None:
    found = prepared("recommend", folder).run_one(["i4", "i6"])
    assert found[0] == "i5" and set(found[1:3]) == {"i3", "i7"} and not {"i4", "i6"} & {*found}


def test_a_search_finds_the_nearest_texts(folder: Path) -> None:
    found = prepared("search", folder).run_one("like 9")
    assert found[0] == "i9" and {*found[1:3]} == {"i8", "i10"} and len(found) == 10


def test_a_catalogue_is_encoded_once_and_again_where_it_changed(folder: Path) -> None:
    assert [prepared("search", folder).asked for _ in range(2)] == [N, 0]
    changed = {"ids": ["a"] * N, "texts": ["at 3"] * N}
    (folder / "catalogue.json").write_text(json.dumps(changed))
    assert prepared("search", folder).asked == N and prepared("encode", folder).asked == 0
