"""Items that are added, replaced and removed on the device, and the file that keeps them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import pytest

from edgerec.bundle import Bundle, write_bundle
from edgerec.errors import BundleError, UnknownItemError
from edgerec.runtime import Recommender
from edgerec.runtime.catalogue import optional_members
from edgerec.runtime.layout import Tower
from edgerec.runtime.overlay import as_limbs

REPEATS = {"repeat_decays": np.float32([0.6, 0.97]), "repeat_weights": np.float32([1.5, -0.4])}
COLUMNS = {"year": [1990, 1995, None, 2001, 1990, 1970, 2020, 1999], "color": [["red"], [], *"abcdef"]}


@pytest.fixture
def path(ring: Tower, write: Callable[..., Path]) -> Path:
    """A ring whose bundle holds texts (the titles) and columns."""
    return write(ring, lambda members, model: members.update(optional_members(ring.titles, COLUMNS)))


def everything(recommender: Recommender) -> list[Any]:
    """Return answers of every kind."""
    histories = ([], ["c"], ["c", "f", "c"])
    asked = [recommender.recommend(history, 30, False) for history in histories]
    return [*asked, recommender.search("red wine", 30), recommender.similar("d", 30)]


def test_a_replaced_item_keeps_what_the_log_taught_beyond_its_text(ring: Tower, path: Path) -> None:
    recommender = Recommender.load(path)
    recommender.add_items({"d": ("blue film!", "blue film")})  # it was "red film"; the encoder's vectors have length 2
    red_to_blue = np.zeros(8)
    red_to_blue[0], red_to_blue[1] = -np.sqrt(2), np.sqrt(2)
    for as_history, table in ((True, ring.item_in), (False, ring.item_out)):
        assert table is not None
        assert recommender.vector(4, as_history) == pytest.approx(table[3] + red_to_blue, abs=0.01)
    found = recommender.recommend(["c"], 8)
    assert found[0].item == "d" and found[0].title == "blue film!"  # the log's: d comes after c
    assert [one.item for one in found].count("d") == 1
    assert recommender.search("blue film", 2)[0].item in "de"
    assert "d" not in [one.item for one in recommender.recommend(["d"], 8)]
    recommender.add_items({"d": "red film"})  # and back, from the bundle's vectors: no drift
    assert recommender.vector(4, False) == pytest.approx(ring.item_out[3], abs=0.005)
    assert recommender.rows(["d"]) == [4]


def test_the_same_text_again_changes_no_rank(path: Path, ring: Tower) -> None:
    plain, replaced = Recommender.load(path), Recommender.load(path)
    replaced.add_items(dict(zip(ring.ids, ring.titles, strict=True)))
    for one, other in zip(everything(plain), everything(replaced), strict=True):
        scores = {entry.item: entry.score for entry in other}
        assert {entry.item: entry.score for entry in one} == pytest.approx(scores, abs=0.02)
    assert [e.item for e in plain.recommend([], 8)] == [e.item for e in replaced.recommend([], 8)]


def test_a_replaced_item_is_remembered_under_its_id(
    ring: Tower, write: Callable[..., Path], load: Callable[..., Recommender]
) -> None:
    tower = replace(ring, **REPEATS)
    path = write(tower, lambda members, model: members.update(optional_members(ring.titles, {})))
    recommender = Recommender.load(path)
    session = recommender.session()
    session.observe("c", "d", "d")
    before = {one.item: one.score for one in session.recommend(8, False)}
    recommender.add_items({"d": "red film"})
    after = {one.item: one.score for one in session.recommend(8, False)}
    assert after == pytest.approx(before, abs=0.02)  # the memory of d is 3.0 of it
    assert [one.item for one in recommender.recommend(["c", "d", "d"], 8, False)] == [
        one.item for one in session.recommend(8, False)
    ]


def test_removed_items_are_in_no_answer_and_can_come_back(path: Path) -> None:
    recommender = Recommender.load(path)
    recommender.add_items({"x": "red wine", "y": "영화"})
    before = everything(recommender)
    session = recommender.session()
    session.observe("x", "c")
    session.skip("y")
    recommender.remove_items(["a", "x", "y"])
    for answer in [*everything(recommender), session.recommend(30, False)]:
        assert answer and not {"a", "x", "y"} & {one.item for one in answer}
    assert np.isneginf(recommender.score_rows(np.array([[3]]))[0, [0, 8, 9]]).all()
    for act in (lambda: session.observe("a"), lambda: recommender.recommend(["x"]), lambda: recommender.similar("y")):
        with pytest.raises(UnknownItemError):
            act()
    with pytest.raises(UnknownItemError):
        recommender.remove_items(["b", "x"])
    assert recommender.rows(["b"])
    restored = recommender.restore(session.export_state())
    assert restored.seen == {3} and np.array_equal(restored.state, session.state)
    recommender.add_items({"x": "red wine", "y": "영화", "a": "red wine"})
    for one, other in zip(before, everything(recommender), strict=True):
        scores = {entry.item: entry.score for entry in other}
        assert {entry.item: entry.score for entry in one} == pytest.approx(scores, abs=0.02)


def test_an_overlay_file_gives_the_same_answers_at_the_next_start(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "shop.overlay"
    recommender = Recommender.load(path, overlay=file)
    assert not file.exists()
    recommender.add_items(
        {"x": ("엑스", "red wine"), "y": "영화", "z": "film"}, {"x": {"year": 2026, "color": ["red"]}}
    )
    recommender.add_items({"d": "blue film"})
    recommender.remove_items(["b", "y"])
    again = Recommender.load(path, overlay=str(file))
    assert everything(again) == everything(recommender)
    for where in ({"year": (2000, None)}, {"color": "red"}):
        assert again.recommend(["c"], where=where) == recommender.recommend(["c"], where=where)
    assert {one.item for one in again.recommend(["c"], where={"year": 2026})} == {"x"}
    session = recommender.session()
    session.observe("z", "x")
    assert again.restore(session.export_state()).recommend(20) == session.recommend(20)
    again.add_items({"w": "green"})
    assert len(set(again.rows(["x", "z", "w", "d"]))) == 4
    assert Recommender.load(path).rows(["d"]) == [4]  # without the file, the bundle alone


def test_a_change_that_cannot_be_stored_does_not_happen(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "shop.overlay"
    recommender = Recommender.load(path, overlay=file)
    recommender.add_items({"x": "red wine"})
    stored, before = file.read_bytes(), everything(recommender)

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("edgerec.runtime.overlay.write_bundle", full)
    with pytest.raises(OSError, match="no space"):
        recommender.add_items({"y": "red"})
    assert file.read_bytes() == stored
    assert everything(recommender) == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["shop.overlay", "test.edgerec"]


def test_an_overlay_of_another_bundle_or_a_broken_one_is_refused(
    path: Path, ring: Tower, members: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "shop.overlay"
    Recommender.load(path, overlay=file).add_items({"x": "red wine", "d": "film"})
    opened = Bundle(file)
    held = {name: bytes(opened[name]) for name in opened.manifest["members"]}
    broken: list[tuple[dict[str, Any], dict[str, bytes]]] = [
        ({"base": "0" * 64}, {}),
        ({"kind": "student"}, {}),
        ({"rows": [9, 9]}, {}),
        ({"rows": [9]}, {}),
        ({"rows": [9, 5]}, {}),
        ({"rows": ["x", None]}, {}),
        ({"removed": [99]}, {}),
        ({"next_row": 3}, {}),
        ({}, {"bias.f32": np.float32([np.nan, 0]).tobytes()}),
        ({}, {"item_in.i8": b"1"}),
        ({}, {"columns.json": b"[1, 2]"}),
        ({}, {"ids.utf8": b"\xff\xff"}),
        ({}, {"ids.utf8": b"aa"}),
    ]
    for changes, parts in broken:
        write_bundle(file, {**opened.manifest, **changes}, {**held, **parts})
        with pytest.raises(BundleError):
            Recommender.load(path, overlay=file)
    file.write_bytes(b"PK")
    with pytest.raises(BundleError):
        Recommender.load(path, overlay=file)
    with pytest.raises(BundleError):
        Recommender.load(path, overlay=path)


def test_users_are_as_coarse_as_in_the_graph(
    make_tower: Callable[..., Tower], load: Callable[..., Recommender]
) -> None:
    recommender = load(make_tower())
    answer = recommender.ranker.rank(np.array([[3, 5, 8]]), 40)
    vectors = np.stack([recommender.contents.column(row, False) for row in answer.items[0]])
    bias = recommender.contents.external["bias.f32"][answer.items[0]]
    assert vectors @ as_limbs(answer.user)[0] + bias == pytest.approx(answer.scores[0], abs=2e-5)
