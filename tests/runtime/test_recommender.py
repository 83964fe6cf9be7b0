"""What a user of the runtime sees, on a ring of items whose next one is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import pytest

from edgerec.errors import BundleError, UnknownItemError, UsageError
from edgerec.runtime import Recommendation, Recommender
from edgerec.runtime.layout import ENCODER, Tower
from edgerec.runtime.reference import dequantized, fold, remember, score


@pytest.fixture
def ringer(ring: Tower, load: Callable[[Tower], Recommender]) -> Recommender:
    return load(ring)


def ids(found: list[Recommendation]) -> str:
    """Return the ids of an answer, one letter each."""
    return "".join(entry.item for entry in found)


def test_the_next_item_of_the_ring_comes_first(ringer: Recommender) -> None:
    found = ringer.recommend(["c"], k=3)
    assert found[0].item == "d"
    assert found[0].title == "red film"
    assert found[0].score == pytest.approx(4.0, abs=1e-3)
    assert ids(ringer.recommend(["c", "f"], k=2)) == "gd"  # the later event counts more
    assert ids(ringer.recommend(["f", "c"], k=2)) == "dg"


def test_seen_items_are_masked_unless_asked_for(ringer: Recommender) -> None:
    assert ids(ringer.recommend(["d", "c"], k=8)) == "eabfgh"
    assert ids(ringer.recommend(["d", "c"], k=2, exclude_seen=False)) == "de"


def test_the_bundles_default_decides_on_masking(ring: Tower, load: Callable[..., Recommender]) -> None:
    assert load(replace(ring, mask_seen=False)).recommend(["d", "c"], k=1)[0].item == "d"


def test_an_empty_history_gives_the_stored_popularity(ringer: Recommender) -> None:
    found = ringer.recommend([], k=3)
    assert ids(found) == "abc"
    assert [entry.score for entry in found] == [8, 7, 6]
    assert ids(ringer.recommend([], candidates=["h", "b"])) == "bh"
    assert ids(ringer.session().recommend(2)) == "ab"


def test_candidates_are_the_only_items_ranked(ringer: Recommender) -> None:
    assert ids(ringer.recommend(["c"], candidates=["h", "d", "c"])) == "dh"
    assert ids(ringer.recommend(["c"], exclude_seen=False, candidates=["h", "d", "c"])) == "dch"
    assert ringer.recommend(["c"], candidates=[]) == []


def test_k_beyond_the_catalogue_returns_all_that_is_left(ringer: Recommender) -> None:
    assert len(ringer.recommend(["c"], k=1000)) == 7
    assert len(ringer.recommend([], k=1000)) == 8
    assert ringer.recommend(list("abcdefgh")) == []


@pytest.mark.parametrize("k", [0, -1, 1.5, "3", None])
def test_a_k_below_one_is_refused(ringer: Recommender, k: Any) -> None:
    for ask in (lambda: ringer.recommend(["a"], k), lambda: ringer.similar("a", k), lambda: ringer.search("red", k)):
        with pytest.raises(UsageError, match="got k = "):
            ask()


def test_unknown_items_are_named_and_never_become_padding(ringer: Recommender) -> None:
    with pytest.raises(UnknownItemError, match=r"7 of 8 items .*'0', '1', '2', '3', '4' and 2 more;"):
        ringer.recommend(["a", *"0123456"])
    with pytest.raises(UnknownItemError, match="'z'"):
        ringer.recommend(["a"], candidates=["z"])
    with pytest.raises(UnknownItemError):
        ringer.similar("z")
    assert ringer.recommend(["z", "c", "y"], skip_unknown=True) == ringer.recommend(["c"])
    session = ringer.session()
    with pytest.raises(UnknownItemError):
        session.observe("a", "z")
    assert not session.seen


def test_a_string_is_no_history(ringer: Recommender) -> None:
    with pytest.raises(UsageError, match=r"got the string 'abc'; expected a sequence"):
        ringer.recommend("abc")
    with pytest.raises(UsageError):
        ringer.recommend(["a"], candidates="bc")


def test_any_length_of_history_works(ringer: Recommender) -> None:
    assert ids(ringer.recommend([*("abcdefgh" * 500), "c"], k=1, exclude_seen=False)) == "d"


def test_similar_leaves_out_the_item_itself(make_tower: Callable[..., Tower], load: Callable[..., Recommender]) -> None:
    tower = make_tower(shared=False)
    vectors = dequantized(tower).item_out
    cosines = vectors @ vectors[4] / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vectors[4])
    order = [int(row) for row in np.argsort(-cosines) if row != 4][:5]
    found = load(tower).similar("i5", k=5)
    assert [entry.item for entry in found] == [tower.ids[row] for row in order]
    assert [entry.score for entry in found] == pytest.approx(cosines[order], abs=1e-5)


def test_search_goes_by_text_not_by_candidates(ringer: Recommender) -> None:
    assert ids(ringer.search("영화", k=2)) == "fg"
    assert ids(ringer.search("red wine", k=1)) == "a"
    assert ringer.search("🎉 영화", k=1)[0].score == pytest.approx(1, abs=0.02)
    with pytest.raises(UsageError, match="expected some text"):
        ringer.search("  ")


def test_a_catalogue_of_one_item(make_tower: Callable[..., Tower], load: Callable[..., Recommender]) -> None:
    recommender = load(make_tower(n=1))
    assert [entry.title for entry in recommender.recommend([])] == ["제목 1 🎉"]
    assert recommender.recommend(["i1"]) == []
    assert len(recommender.recommend(["i1"], exclude_seen=False)) == 1
    assert recommender.similar("i1") == []


@pytest.mark.parametrize(
    "options",
    [{}, {"shared": False}, {"repeat_decays": np.float32([0.6, 0.97]), "repeat_weights": np.float32([3, -0.8])}],
    ids=["shared", "separate", "repeats"],
)
def test_score_rows_is_the_reference_for_the_whole_catalogue(
    make_tower: Callable[..., Tower], load: Callable[..., Recommender], options: dict[str, Any]
) -> None:
    tower = make_tower(**options)
    histories = np.random.default_rng(1).integers(0, tower.n_items + 1, (70, 12))  # more than one batch
    histories[3] = 0
    got = load(tower).score_rows(histories)
    exact = dequantized(tower)
    wanted = np.stack([score(exact, fold(exact, history), remember(exact, history)) for history in histories])
    assert got.dtype == np.float32
    assert got == pytest.approx(wanted, abs=2.5e-3)  # the user's last limb
    with pytest.raises(UsageError, match="expected 0 to 40"):
        load(tower).score_rows(np.array([[41]]))


def test_added_items_are_like_any_other(ringer: Recommender) -> None:
    ringer.add_items({"새": ("새 영화", "영화"), "x": "red red wine"})
    assert ringer.recommend(["f"], k=1)[0].item == "새"  # twice as long as the ring's vectors, along the same axis
    assert [entry.title for entry in ringer.recommend(["f"], candidates=["새", "g"])] == ["새 영화", "🎉 영화"]
    assert [entry.item for entry in ringer.recommend([], k=20)] == [*"abcdefgh", "새", "x"]
    assert {entry.item for entry in ringer.search("영화", k=2)} == {"새", "f"}
    assert ringer.search("red red wine", k=1)[0].item == "x"
    assert ringer.similar("새", k=1)[0].item == "g"
    assert "새" in {entry.item for entry in ringer.similar("g", k=1)}
    assert ids(ringer.recommend(["c", "새"], k=2)) == "gd"
    session = ringer.session()
    session.observe("c", "새")
    assert session.recommend() == ringer.recommend(["c", "새"])
    assert "새" not in {entry.item for entry in session.recommend(20)}


def test_the_score_of_an_added_item_has_its_bias_and_stands_after_those_of_the_catalogue(ringer: Recommender) -> None:
    ringer.add_items({"x": "영화"})
    assert ringer.recommend(["f"], candidates=["x"])[0].score == pytest.approx(4 * 2 - 0.5, abs=1e-3)
    scores = ringer.score_rows(np.array([[0, 6]]))
    assert scores.shape == (1, 9)
    assert scores[0, 8] == pytest.approx(4 * 2 - 0.5, abs=1e-3)


def test_added_items_are_refused_whole(ringer: Recommender) -> None:
    items: Any
    for items, message in (
        ({"new": "red", "a": "red"}, "'a' is in the catalogue of .* which holds no texts"),
        ({"new": " "}, "'new' is empty"),
        ({"new": 3}, "'new' cannot be added"),
        ({"new": ("red",)}, "'new' cannot be added"),
        ({"new": "\ud800"}, "'new' cannot be added"),
        ({3: "red"}, "3 cannot be added"),
        (["new"], "expected a mapping"),
    ):
        with pytest.raises(UsageError, match=message):
            ringer.add_items(items)
        assert ringer.overlay.next_row == 9
    with pytest.raises(UsageError, match="got columns"):
        ringer.add_items({"new": "red"}, {"other": {"year": 1}})
    ringer.add_items({})
    assert not len(ringer.overlay)


def test_a_broken_encoder_is_met_at_the_first_text(ring: Tower, write: Callable[..., Any]) -> None:
    recommender = Recommender.load(write(ring, lambda members, model: members.update({ENCODER: b"broken"})))
    assert recommender.recommend(["c"], k=1)[0].item == "d"
    with pytest.raises(BundleError, match="item_encoder.onnx cannot be opened"):
        recommender.search("red")
