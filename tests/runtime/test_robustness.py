"""Whatever is asked, and by however many threads: the right answer, or one of edgerec's own errors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgerec.errors import EdgerecError, UsageError
from edgerec.runtime import MMR, Blend, Calibrated, Fresh, Recommender
from edgerec.runtime.catalogue import optional_members
from edgerec.runtime.explain import explain
from edgerec.runtime.layout import Tower

YEARS = [1990, 1995, None, 2001, 1990, 1970, 2020, 1999.5]

nan, inf = float("nan"), float("inf")
numbers = st.sampled_from([0, 1, 2, 10**9, -1, True, None, 0.5, -0.0, nan, inf, "3", 2**70, np.int8(3)])
names = st.sampled_from([*"abcdefghx", "?", "", "\ud800", "\0", None, 3, nan, b"a", ("a",), ["a"]])
lists = st.lists(names, max_size=6) | st.sampled_from(["abc", None, 3, {"a": 1}, ("a", "a", "b")]) | st.just(["a"] * 99)
conditions = numbers | st.tuples(numbers, numbers)
wishes = st.fixed_dictionaries(
    {},
    optional={
        "candidates": lists | st.dictionaries(st.sampled_from("abx?"), st.dictionaries(st.text(max_size=1), numbers)),
        "exclude_seen": st.sampled_from([True, False, None]),
        "skip_unknown": st.booleans(),
        "where": st.none() | st.dictionaries(st.sampled_from(["year", "color", "?"]), conditions | lists),
        "fresh": st.none() | st.builds(Fresh, st.sampled_from(["year", "color", "?"]), numbers, numbers),
        "blend": st.none() | st.builds(Blend, st.dictionaries(st.text(max_size=1), numbers), numbers),
        "diversity": st.none() | st.builds(MMR, numbers, numbers) | st.builds(Calibrated, st.just("color"), numbers),
    },
)


@pytest.fixture
def shop(ring: Tower, write: Callable[..., Path]) -> Recommender:
    """A ring with columns and an item that came later."""
    columns = {"year": YEARS, "color": [["red"], [], *"abcdef"]}
    path = write(ring, lambda members, model: members.update(optional_members(ring.titles, columns)))
    recommender = Recommender.load(path)
    recommender.add_items({"x": "red wine"}, {"x": {"year": 3}})
    return recommender


def sound(recommender: Recommender, act: Callable[[], Any], ordered: bool = True) -> None:
    """Check an answer's form, or that the error is one of edgerec's."""
    try:
        found = act()
    except EdgerecError as error:
        assert str(error)
        return
    items, scores = [entry.item for entry in found or ()], [entry.score for entry in found or ()]
    assert len(set(items)) == len(items) == len(recommender.rows(items))
    assert np.isfinite(scores).all()
    assert not ordered or scores == sorted(scores, reverse=True)


SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SETTINGS
@given(history=lists, k=numbers, asked=wishes)
def test_any_arguments_of_recommend(shop: Recommender, history: Any, k: Any, asked: dict[str, Any]) -> None:
    sound(shop, lambda: shop.recommend(history, k, **asked), ordered=asked.get("diversity") is None)


@SETTINGS
@given(items=lists, number=numbers, other=numbers, text=names)
def test_any_arguments_of_the_others(shop: Recommender, items: Any, number: Any, other: Any, text: Any) -> None:
    session = shop.session(keep_history=number == 1)
    several = items if isinstance(items, list) else [items]
    acts: list[Callable[[], Any]] = [
        lambda: shop.search(text, number),
        lambda: shop.similar(text, number),
        lambda: shop.answer_text(text, items, number, other),
        lambda: shop.recommend_many(several, number) and None,
        lambda: explain(shop, text, items, number, words=False) and None,
        lambda: shop.session(seconds_per_event=number) and None,
        lambda: session.observe(*several, at=number),
        lambda: session.skip(*several, weight=number),
        lambda: session.unskip(*several),
        lambda: session.forget(text, age=number),
        lambda: session.recommend(number, candidates=items),
        lambda: shop.restore(text) and None,
    ]
    for act in acts:
        sound(shop, act)


@SETTINGS
@given(ids=st.lists(names, max_size=3), text=names, cell=numbers | lists)
def test_any_arguments_of_add_and_remove(
    ring: Tower, write: Callable[..., Path], ids: list[Any], text: Any, cell: Any
) -> None:
    shop = Recommender.load(write(ring, lambda members, model: members.update(optional_members(ring.titles, {}))))
    hashable = [one for one in ids if not isinstance(one, list)]
    sound(shop, lambda: shop.add_items(dict.fromkeys(hashable, text), {one: {"year": cell} for one in hashable[:1]}))
    sound(shop, lambda: shop.remove_items(ids))
    assert len(shop.recommend([], 20)) + len({row for row in shop.overlay.removed if row <= 8}) >= 8


def test_a_bundle_that_is_deleted_while_it_is_open_still_answers(shop: Recommender) -> None:
    before = shop.recommend(["c"], 8), shop.search("red", 3)
    Path(shop.bundle.path).unlink()
    assert (shop.recommend(["c"], 8), shop.search("red", 3)) == before
    shop.add_items({"z": "green"})
    with pytest.raises(UsageError):
        Recommender.load(shop.bundle.path)


def mixed_calls(shop: Recommender, number: int, rounds: int) -> list[Any]:
    """Return what one thread is answered: the same calls in the same order for the same number."""
    rng, session, found = np.random.default_rng(number), shop.session(keep_history=True), []
    for _ in range(rounds):
        item = "abcdefghx"[int(rng.integers(9))]
        act = int(rng.integers(8))
        if act == 0:
            found.append(shop.recommend(["c", item], 3))
        elif act == 1:
            found.append(shop.similar(item, 2))
        elif act == 2:
            found.append(shop.search("red wine", 2))
        elif act == 3:
            session.skip(item)
        elif act == 4 and session.seen:
            session.forget(shop.item_id(min(session.seen)))
        elif act == 5:
            found.append(shop.recommend(["d", item], 3, where={"year": (1980, None)}, diversity=MMR(0.2, 5)))
        elif act == 6:
            found.append(session.recommend(4))
        else:
            session.observe(item)
    return [*found, session.state.tolist()]


def answers_of_threads(shop: Recommender, threads: int, rounds: int) -> list[list[Any]]:
    """Return what each of some threads is answered, at once."""
    answers: list[list[Any]] = [[] for _ in range(threads)]

    def work(number: int) -> None:
        answers[number] = mixed_calls(shop, number, rounds)

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return answers


@pytest.mark.parametrize(("threads", "rounds"), [(8, 60), pytest.param(32, 313, marks=pytest.mark.slow)])
def test_threads_are_answered_as_if_alone(shop: Recommender, threads: int, rounds: int) -> None:
    alone = [mixed_calls(shop, number, rounds) for number in range(threads)]
    assert answers_of_threads(shop, threads, rounds) == alone


def test_answers_stay_sound_while_the_catalogue_changes(shop: Recommender) -> None:
    stop, errors = threading.Event(), []

    def change() -> None:
        for number in range(40):
            shop.add_items({f"n{number}": "red film", "d": "blue film" if number % 2 else "red film"})
            shop.remove_items([f"n{number}"])
        stop.set()

    def ask() -> None:
        session = shop.session()
        session.observe("c", "d")
        while not stop.is_set():
            try:
                found = [one.item for one in session.recommend(20, False)]
                assert set("abcdefghx") <= set(found) and len(found) == len(set(found))
                shop.recommend(["d", "c"], 20, diversity=MMR(0.5, 20))
                shop.search("film", 20)
            except Exception as error:  # whatever a thread meets, the test is to say
                errors.append(error)
                return

    threads = [threading.Thread(target=target) for target in (change, ask, ask, ask)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
