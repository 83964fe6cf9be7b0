"""Filters, boosts, blends, rerankers, batches and answers to texts, each against a plain computation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerec.errors import BundleError, UnknownItemError, UsageError
from edgerec.runtime import MMR, Blend, Calibrated, Fresh, Recommender
from edgerec.runtime.catalogue import COLUMNS, optional_members
from edgerec.runtime.layout import Tower

YEARS = [1990, 1995, None, 2001, 1990, 1970, 2020, 1999.5]
COLORS = [["red", "blue"], [], ["blue"], ["red"], ["green"], [], ["red", "green"], ["blue"]]
BRANDS = ["acme", "zeta", None, "acme", "acme", "zeta", None, "acme"]
LATER = {"x": {"year": 2026, "color": ["red"], "brand": "acme"}, "y": {}}


@pytest.fixture
def shop(ring: Tower, write: Callable[..., Path]) -> Recommender:
    """A ring with columns, and two items that came later."""
    columns = {"year": YEARS, "color": COLORS, "brand": BRANDS}
    recommender = Recommender.load(
        write(ring, lambda members, model: members.update(optional_members(ring.titles, columns)))
    )
    recommender.add_items({"x": "red wine", "y": "영화"}, LATER)
    return recommender


def ids(found: list[Any]) -> list[str]:
    """Return the ids of an answer."""
    return [one.item for one in found]


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ({"year": (1990, None)}, "abdeghx"),
        ({"year": (None, 1990)}, "aef"),
        ({"year": (1991, 2001)}, "bdh"),
        ({"year": 1990}, "ae"),
        ({"year": (None, None)}, "abdefghx"),
        ({"color": "red"}, "adgx"),
        ({"color": ["blue", "green"]}, "acegh"),
        ({"color": {"nothing"}}, ""),
        ({"color": []}, ""),
        ({"brand": "acme", "year": (1990, 2000)}, "aeh"),
        ({}, "abcdefghxy"),
    ],
)
@pytest.mark.parametrize("history", [[], ["c"], ["x", "c"]])
def test_a_filter_keeps_what_meets_it_in_the_order_without_it(
    shop: Recommender, where: dict[str, Any], kept: str, history: list[str]
) -> None:
    whole = shop.recommend(history, 20, exclude_seen=False)
    found = shop.recommend(history, 20, exclude_seen=False, where=where)
    assert found == [one for one in whole if one.item in kept]
    assert shop.recommend(history, 2, exclude_seen=False, where=where) == found[:2]
    session = shop.session()
    session.observe(*history)
    assert session.recommend(20, exclude_seen=False, where=where) == found


def test_conditions_that_do_not_fit_are_refused(shop: Recommender, ring: Tower, write: Callable[..., Path]) -> None:
    refused: list[tuple[Any, str]] = [
        ({"price": 3}, "no column 'price' .* it has year, color, brand"),
        ({"year": "1990"}, "expected a number, or"),
        ({"year": (1, 2, 3)}, "expected a number, or"),
        ({"year": float("nan")}, "expected a number, or"),
        ({"year": (float("nan"), None)}, "expected a number, or"),
        ({"color": 3}, "expected a string or several"),
        ({"color": ["red", 3]}, "expected a string or several"),
        (["year"], "expected a mapping"),
    ]
    for where, message in refused:
        with pytest.raises(UsageError, match=message):
            shop.recommend(["c"], where=where)
    with pytest.raises(UsageError, match="it has none"):
        Recommender.load(write(ring)).recommend(["c"], where={"year": 3})
    for content in (b"[]", b"{", b'{"year": [1]}', b'{"year": 7}'):
        broken = Recommender.load(write(ring, lambda held, model, it=content: held.update({COLUMNS: it})))
        with pytest.raises(BundleError):
            broken.recommend(["c"], where={"year": 3})


def test_a_fresh_item_gains_by_its_age(shop: Recommender) -> None:
    plain = {one.item: one.score for one in shop.recommend(["c"], 20)}
    fresh = {one.item: one.score for one in shop.recommend(["c"], 20, fresh=Fresh("year", 2020, 10, 3))}
    wanted = {"g": 3, "d": 3 * 0.5**1.9, "a": 3 * 0.5**3, "f": 3 * 0.5**5, "x": 3, "y": 0}
    for item, gain in wanted.items():
        assert fresh[item] - plain[item] == pytest.approx(gain, abs=1e-3)
    assert ids(shop.recommend(["c"], 1, fresh=Fresh("year", 2020, 10, 9), where={"color": "green"})) == ["g"]
    for bad in (Fresh("year", 2020, 0), Fresh("year", float("inf"), 1), Fresh("color", 1, 1), "fresh"):
        with pytest.raises(UsageError):
            shop.recommend(["c"], fresh=bad)  # type: ignore[arg-type]


def test_a_blend_is_the_sum_it_says(shop: Recommender) -> None:
    sides = {"d": {"price": 2.0}, "a": {"price": -1.0, "stock": 4.0}, "x": {"stock": 1.0}, "h": {}}
    plain = {one.item: one.score for one in shop.recommend(["c"], 10, candidates=list(sides))}
    blend = Blend({"price": -1.5, "stock": 0.5, "unseen": 9.0}, score=0.25)
    found = shop.recommend(["c"], 10, candidates=sides, blend=blend)
    for one in found:
        side = sides[one.item]
        wanted = 0.25 * plain[one.item] - 1.5 * side.get("price", 0) + 0.5 * side.get("stock", 0)
        assert one.score == pytest.approx(wanted, abs=1e-4)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert ids(found)[:1] == ["a"] and ids(shop.recommend(["c"], 1, candidates=sides, blend=blend)) == ["a"]
    assert shop.recommend(["c"], 10, candidates=sides) == shop.recommend(["c"], 10, candidates=list(sides))
    assert ids(shop.recommend(["c"], 9, candidates={**sides, "?": {}}, blend=blend, skip_unknown=True)) == ids(found)
    for options in (
        {"blend": blend},
        {"blend": blend, "candidates": ["d"]},
        {"blend": Blend({"price": float("nan")}), "candidates": sides},
        {"blend": Blend({"price": 1.0}), "candidates": {"d": {"price": float("inf")}}},
        {"blend": Blend({"price": 1.0}), "candidates": {"d": ["price"]}},
        {"blend": {"price": 1.0}, "candidates": sides},
    ):
        with pytest.raises(UsageError):
            shop.recommend(["c"], **options)  # type: ignore[arg-type]


def test_equal_scores_are_answered_by_the_lower_row(ring: Tower, load: Callable[..., Recommender]) -> None:
    recommender = load(ring)  # after c, all but d score 0
    recommender.add_items({"x": "red"})
    assert ids(recommender.recommend(["c"], 9)) == [*"dabefghx"]
    assert ids(recommender.recommend(["c"], 3, candidates=[*"hgfeba"])) == [*"abe"]
    zeros = {item: {"one": 1.0} for item in "hgfeba"}
    assert ids(recommender.recommend(["c"], 3, candidates=zeros, blend=Blend({"one": 1}))) == [*"abe"]


def greedy(gain: Any, weight: float, penalty: Callable[[list[int], int], float], k: int) -> list[int]:
    """Return the places that a greedy choice takes, computed the long way."""
    chosen: list[int] = []
    while len(chosen) < min(k, len(gain)):
        rest = [place for place in range(len(gain)) if place not in chosen]
        worth = [(1 - weight) * gain[place] - weight * penalty(chosen, place) for place in rest]
        chosen.append(rest[int(np.argmax(np.round(worth, 12)))])
    return chosen


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.7, 1.0])
def test_mmr_is_its_definition(
    make_tower: Callable[..., Tower], load: Callable[..., Recommender], weight: float
) -> None:
    recommender = load(make_tower(shared=False))
    pool = recommender.recommend(["i3", "i9"], 20)
    scores = np.array([one.score for one in pool])
    gain = (scores - scores.min()) / np.ptp(scores)
    vectors = [recommender.vector(recommender.rows([one.item])[0], False).astype(np.float64) for one in pool]
    unit = [vector / np.linalg.norm(vector) for vector in vectors]
    places = greedy(gain, weight, lambda chosen, one: max((unit[one] @ unit[c] for c in chosen), default=0), 8)
    found = recommender.recommend(["i3", "i9"], 8, diversity=MMR(weight, pool=20))
    assert found == [pool[place] for place in places]
    if weight == 0:
        assert found == pool[:8]
    session = recommender.session()
    session.observe("i3", "i9")
    assert ids(session.recommend(8, diversity=MMR(weight, pool=20))) == ids(found)


@pytest.mark.parametrize("weight", [0.0, 0.5, 0.9])
def test_calibration_is_its_definition(shop: Recommender, weight: float) -> None:
    history = ["a", "g"]
    colors = {**dict(zip("abcdefgh", COLORS, strict=True)), "x": ["red"], "y": []}
    pool = shop.recommend(history, 20)
    scores = np.array([one.score for one in pool], np.float64)
    gain = (scores - scores.min()) / np.ptp(scores)
    own = {"red": 0.5, "blue": 0.25, "green": 0.25}

    def total(chosen: list[int]) -> float:
        shares = dict.fromkeys(own, 0.0)
        for place in chosen:
            for color in colors[pool[place].item]:
                shares[color] += 1 / len(colors[pool[place].item])
        count = sum(shares.values())
        q = {color: 0.99 * (share / count if count else 0) + 0.01 * own[color] for color, share in shares.items()}
        return sum(p * np.log(p / q[color]) for color, p in own.items())

    places = greedy(gain, weight, lambda chosen, one: total([*chosen, one]), 6)
    found = shop.recommend(history, 6, diversity=Calibrated("color", weight, pool=20))
    assert found == [pool[place] for place in places]


def test_calibration_of_somebody_unknown_keeps_the_order_and_bad_rerankers_are_refused(shop: Recommender) -> None:
    assert shop.recommend([], 5, diversity=Calibrated("color", 0.9)) == shop.recommend([], 5)
    assert shop.recommend(["b"], 5, diversity=Calibrated("color", 0.9)) == shop.recommend(["b"], 5)  # b has no color
    for bad in (MMR(2), MMR(-0.1), MMR(float("nan")), MMR(0.1, 0), Calibrated("year"), Calibrated("price"), 0.3):
        with pytest.raises(UsageError):
            shop.recommend(["c"], diversity=bad)  # type: ignore[arg-type]


def test_many_answers_are_the_single_ones(make_tower: Callable[..., Tower], load: Callable[..., Recommender]) -> None:
    tower = make_tower(repeat_decays=np.float32([0.6, 0.97]), repeat_weights=np.float32([1.5, -0.4]))
    plain, changed = load(tower), load(tower)
    changed.add_items({"x": "red wine", "y": "영화"})
    changed.remove_items(["i7", "y"])

    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.lists(st.sampled_from([*(f"i{n}" for n in (1, 2, 3, 9, 40)), "x"]), max_size=9), max_size=70))
    def check(histories: list[list[str]]) -> None:
        for recommender, asked in (
            (changed, histories),
            (plain, [[one for one in history if one != "x"] for history in histories]),
        ):
            for exclude in (None, False):
                together = recommender.recommend_many(asked, 7, exclude)
                alone = [recommender.recommend(history, 7, exclude) for history in asked]
                assert [ids(one) for one in together] == [ids(one) for one in alone]
                for one, other in zip(together, alone, strict=True):
                    assert [e.score for e in one] == pytest.approx([e.score for e in other], abs=1e-3)

    check()
    assert plain.recommend_many([]) == []
    assert ids(plain.recommend_many([["i1", "?"]], 3, skip_unknown=True)[0]) == ids(plain.recommend(["i1"], 3))
    for bad, error in (("ab", UsageError), (["ab"], UsageError), ([["?"]], UnknownItemError), (3, UsageError)):
        with pytest.raises(error):
            plain.recommend_many(bad)  # type: ignore[arg-type]


def test_an_answer_to_a_text_lies_between_search_and_recommendation(shop: Recommender) -> None:
    assert ids(shop.answer_text("red wine", k=20)) == ids(shop.search("red wine", 20))
    assert ids(shop.answer_text("red wine", ["c"], 20, weight=1.0)) == ids(shop.search("red wine", 20))
    alone = shop.recommend(["c"], 20, exclude_seen=False)
    assert ids(shop.answer_text("red wine", ["c"], 20, weight=0.0)) == ids(alone)
    texts = {one.item: one.score for one in shop.search("red wine", 20)}
    taken = {one.item: one.score for one in alone}
    wanted = {}
    for item in texts:
        parts = [(side[item] - np.mean([*side.values()])) / np.std([*side.values()]) for side in (texts, taken)]
        wanted[item] = 0.7 * parts[0] + 0.3 * parts[1]
    found = {one.item: one.score for one in shop.answer_text("red wine", ["c"], 20)}
    assert found == pytest.approx(wanted, abs=1e-3)
    for text, weight in ((" ", 0.5), ("red", 1.5), ("red", float("nan"))):
        with pytest.raises(UsageError):
            shop.answer_text(text, ["c"], weight=weight)
