"""A session agrees with the same history at once, and the runtime needs neither torch nor a network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import pytest

from edgerec.runtime import Recommender
from edgerec.runtime.layout import Tower
from edgerec.runtime.reference import remember

REPEATS = {"repeat_decays": np.float32([0.6, 0.97]), "repeat_weights": np.float32([3, -0.8])}


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize(
    ("shared", "repeats"), [(True, {}), (False, {}), (True, REPEATS)], ids=["shared", "separate", "repeats"]
)
def test_a_session_is_the_stateless_answer(
    make_tower: Callable[..., Tower],
    load: Callable[[Tower], Recommender],
    shared: bool,
    repeats: dict[str, Any],
    exclude_seen: bool,
) -> None:
    tower = make_tower(shared=shared, **repeats)
    recommender = load(tower)
    rows = np.random.default_rng(2).integers(1, 41, 60)
    session = recommender.session()
    for count, row in enumerate(rows, 1):
        session.observe(f"i{row}")
        history = [f"i{seen}" for seen in rows[:count]]
        stateless = recommender.ranker.rank(rows[None, :count], 1)
        assert session.state == pytest.approx(stateless.state[0], abs=1e-5)
        taken, left = session.memory.recall()
        assert left == pytest.approx(remember(tower, rows[:count])[:, taken - 1], abs=1e-5)
        asked = session.recommend(10, exclude_seen)
        (whole,) = recommender.recommend_many([history], 10, exclude_seen)  # by the graph
        assert [e.item for e in asked] == [e.item for e in whole]
        assert [e.score for e in asked] == pytest.approx([e.score for e in whole], abs=1e-3)  # the user's last limb


def test_a_session_goes_on_with_further_events(
    make_tower: Callable[..., Tower], load: Callable[[Tower], Recommender]
) -> None:
    recommender = load(make_tower(**REPEATS))
    rows = [3, 8, 3, 5, 8, 8, 1, 3]
    session = recommender.session()
    session.observe_rows(rows[:5])
    session.observe_rows(rows[5:])
    asked, (whole,) = session.recommend(10, False), recommender.recommend_many([[f"i{row}" for row in rows]], 10, False)
    assert [entry.item for entry in asked] == [entry.item for entry in whole]
    assert [entry.score for entry in asked] == pytest.approx([entry.score for entry in whole], abs=1e-3)


def test_without_events_repeat_recencies_change_nothing(
    make_tower: Callable[..., Tower], load: Callable[[Tower], Recommender]
) -> None:
    tower = make_tower(**REPEATS)
    found = load(tower).session().recommend(40)
    assert [entry.score for entry in found] == pytest.approx(np.sort(tower.popularity)[::-1])


def test_added_items_are_remembered_like_any_other(ring: Tower, load: Callable[[Tower], Recommender]) -> None:
    items, answers = ["c", "x", "c", "x", "y", "a"], []
    for tower in (ring, replace(ring, **REPEATS)):
        recommender = load(tower)
        recommender.add_items({"x": "red wine", "y": "영화", "z": "blue film"})
        session = recommender.session()
        session.observe(*items)
        assert session.recommend(20, False) == recommender.recommend(items, 20, False)
        session.observe_rows([1])
        found = session.recommend(20, False)
        answers.append({entry.item: entry.score for entry in found})
    decays, gained = np.float64([0.6, 0.97]), {"x": [5, 3], "y": [2], "c": [6, 4], "a": [1, 0]}
    for item, plain in answers[0].items():
        memory = sum(decays**age for age in gained.get(item, [])) + np.zeros(2)
        assert answers[1][item] - plain == pytest.approx([3, -0.8] @ np.log1p(memory), abs=1e-3)


def test_observing_in_one_call_or_several_is_the_same(ring: Tower, load: Callable[[Tower], Recommender]) -> None:
    recommender = load(ring)
    one, several = recommender.session(), recommender.session()
    one.observe("a", "b", "a")
    for item in ("a", "b", "a"):
        several.observe(item)
    assert np.array_equal(one.state, several.state)
    assert one.seen == several.seen == {1, 2}
    assert one.state.shape == (1, 8)
    assert not recommender.session().state.any()  # sessions share nothing


LEAN = """
import socket, sys
for name in ("torch", "transformers", "onnx", "tokenizers", "polars", "scipy"):
    sys.modules[name] = None
def refuse(*args, **kwargs):
    raise OSError("no network here")
socket.socket = refuse
import edgerec.runtime
assert "onnxruntime" not in sys.modules
recommender = edgerec.runtime.Recommender.load(sys.argv[1])
session = recommender.session()
session.observe("c")
assert session.recommend(1)[0].item == recommender.recommend(["c"], 1)[0].item == "d"
from edgerec.runtime.verify import verify
report = verify(sys.argv[1])
assert report["requests"] == 8 and "tokenizers" in report["skipped"], report
from edgerec.errors import MissingExtraError
try:
    recommender.search("red")
except MissingExtraError as error:
    assert "edgerec[text]" in str(error)
else:
    raise AssertionError("searched without tokenizers")
"""


def test_a_device_needs_numpy_and_onnxruntime_only(ring: Tower, write: Callable[[Tower], Path]) -> None:
    result = subprocess.run([sys.executable, "-c", LEAN, str(write(ring))], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_a_fork_goes_on_by_itself(make_tower: Callable[..., Tower], load: Callable[[Tower], Recommender]) -> None:
    recommender = load(make_tower(**REPEATS))
    session = recommender.session()
    session.observe("i1", "i2")
    before, fork = session.recommend(), session.fork()
    assert fork.recommend() == before
    fork.observe("i3")
    assert session.recommend() == before != fork.recommend()
