"""A session is the recurrence in float64, whatever happens to it: events, gaps, skips, erasures, a restart."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgerec.errors import UnknownItemError, UsageError
from edgerec.runtime import Recommender, Session
from edgerec.runtime.layout import Tower
from edgerec.runtime.reference import dequantized, score
from edgerec.runtime.verify import disagreement

REPEATS = {"repeat_decays": np.float32([0.6, 0.97]), "repeat_weights": np.float32([1.5, -0.4])}
rows = st.integers(1, 40)


@dataclass
class Past:
    """One event of the model: its row, the clock when it happened, its time, and the weight of a skip."""

    row: int
    clock: float
    at: float | None = None
    skipped: float | None = None


class Model:
    """What a session is to be, from a list of events and their ages, in float64."""

    def __init__(self, tower: Tower, per_event: float | None) -> None:
        self.tower, self.per_event = tower, per_event
        self.past: list[Past] = []
        self.clock, self.at = 0.0, None

    def happen(self, row: int, at: float | None = None, skipped: float | None = None) -> None:
        if skipped is None:
            if at is not None:
                self.clock += 0 if self.at is None else (at - self.at) / self.per_event
                self.at = at
            self.clock += 1
        self.past.append(Past(row, self.clock, at, skipped))

    def again(self, kept: list[Past]) -> None:
        """Let the kept events happen anew."""
        self.__init__(self.tower, self.per_event)
        for one in kept:
            self.happen(one.row, one.at, one.skipped)

    @property
    def taken(self) -> list[Past]:
        return [one for one in self.past if one.skipped is None]

    def age(self, one: Past) -> float:
        return self.clock - one.clock

    def states(self) -> tuple[Any, Any]:
        """Return the state with and without the skips, float64 [K, d]."""
        tower, vectors = self.tower, self.tower.item_out
        history = vectors if tower.item_in is None else tower.item_in
        decays, mix = tower.decays.astype(np.float64), tower.mix.astype(np.float64)
        state = np.zeros((len(decays), vectors.shape[1]))
        for one in self.taken:
            state += decays[:, None] ** self.age(one) * history[one.row - 1]
        pushed = state.copy()
        for one in self.past:
            if one.skipped is not None:
                gain = one.skipped * abs(mix.sum()) / (mix @ mix) * mix * decays ** self.age(one)
                pushed -= gain[:, None] * vectors[one.row - 1]
        return state, pushed if self.taken else state

    def memory(self) -> Any:
        left = np.zeros((len(self.tower.repeat_decays), self.tower.n_items))
        for one in self.taken:
            left[:, one.row - 1] += self.tower.repeat_decays.astype(np.float64) ** self.age(one)
        return left


class SessionMachine(RuleBasedStateMachine):
    """Anything that can happen to a session."""

    recommender: Recommender
    tower: Tower

    @initialize(keep=st.booleans(), per_event=st.sampled_from([None, 3600.0]))
    def begin(self, keep: bool, per_event: float | None) -> None:
        self.keep = keep
        self.session = self.recommender.session(keep, per_event)
        self.model, self.now = Model(self.tower, per_event), 1e9

    @rule(taken=st.lists(rows, min_size=1, max_size=4), gap=st.none() | st.floats(0, 1e5))
    def observe(self, taken: list[int], gap: float | None) -> None:
        at = None
        if gap is not None and self.model.per_event:
            self.now += gap
            at = self.now
        self.session.observe(*(f"i{row}" for row in taken), at=at)
        for row in taken:
            self.model.happen(row, at)

    @rule(row=rows, weight=st.sampled_from([0.1, 0.5]))
    def skip(self, row: int, weight: float) -> None:
        self.session.skip(f"i{row}", weight=weight)
        self.model.happen(row, skipped=weight)

    @rule(row=rows)
    def unskip(self, row: int) -> None:
        self.session.unskip(f"i{row}")
        self.model.past = [one for one in self.model.past if one.skipped is None or one.row != row]

    @precondition(lambda self: self.model.taken)
    @rule(data=st.data())
    def forget_one(self, data: st.DataObject) -> None:
        model = self.model
        chosen = data.draw(st.sampled_from(model.taken))
        age = model.age(chosen)
        self.session.forget(f"i{chosen.row}", age=age)
        if self.keep:
            same = [one for one in model.taken if one.row == chosen.row and abs(model.age(one) - age) < 1e-6]
            model.again([one for one in model.past if not any(one is other for other in same)])
        else:
            model.past.remove(chosen)
            model.past = [one for one in model.past if one.skipped is None or one.row != chosen.row]

    @precondition(lambda self: self.keep and self.model.past)
    @rule(data=st.data())
    def forget_item(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.model.past)).row
        self.session.forget(f"i{row}")
        self.model.again([one for one in self.model.past if one.row != row])

    @rule()
    def forget_everything(self) -> None:
        self.session.forget()
        self.model.again([])

    @rule()
    def restart(self) -> None:
        saved = self.session.export_state()
        self.session = self.recommender.restore(saved)
        assert self.session.export_state() == saved

    @invariant()
    def the_state_is_the_recurrences(self) -> None:
        state, pushed = self.model.states()
        assert self.session.state == pytest.approx(state, abs=1e-5)
        view = self.session.view()
        assert view.state == pytest.approx(pushed, abs=1e-5)
        assert view.seen == {one.row for one in self.model.taken}
        left = np.zeros((2, 40))
        left[:, view.taken - 1] = view.left
        assert left == pytest.approx(self.model.memory(), abs=1e-5)

    @invariant()
    def the_ranks_are_the_recurrences(self) -> None:
        pushed = self.model.states()[1]
        scores = score(self.tower, pushed, self.model.memory())
        scores[[one.row - 1 for one in self.model.taken]] = -np.inf
        order = [int(row) for row in np.argsort(-scores, kind="stable")[:10] if scores[row] > -np.inf]
        wanted = {"items": [row + 1 for row in order], "scores": [float(scores[row]) for row in order]}
        found = self.session.recommend(10)
        got = [int(one.item[1:]) for one in found], [one.score for one in found]
        # what is left of the norm magnifies the state's own 1e-5
        norm = float(np.linalg.norm(self.tower.mix.astype(np.float64) @ pushed))
        assert disagreement(wanted, *got, 2.5e-3 + 3e-4 / max(norm, 1e-3)) is None


@pytest.mark.parametrize("shared", [True, False])
def test_a_session_is_the_recurrence_whatever_happens(
    make_tower: Callable[..., Tower], load: Callable[[Tower], Recommender], shared: bool
) -> None:
    tower = make_tower(shared=shared, **REPEATS)
    machine = type("Machine", (SessionMachine,), {"recommender": load(tower), "tower": dequantized(tower)})
    machine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
    case = machine.TestCase()
    case.runTest()


def test_forgetting_with_a_history_is_exact(ring: Tower, load: Callable[[Tower], Recommender]) -> None:
    recommender = load(replace(ring, **REPEATS))
    session, other = recommender.session(keep_history=True), recommender.session()
    session.observe("a", "c", "b", "c", "d")
    session.forget("c")
    other.observe("a", "b", "d")
    assert np.array_equal(session.state, other.state)
    assert session.recommend(8, False) == other.recommend(8, False)
    assert session.history is not None and [event.row for event in session.history] == [1, 2, 4]


def test_nothing_of_a_forgotten_item_can_be_read(ring: Tower, load: Callable[[Tower], Recommender]) -> None:
    session = load(replace(ring, **REPEATS)).session()
    session.observe("f", "c")
    session.skip("f")
    session.forget("f", age=1)
    saved = json.loads(session.export_state())
    assert "f" not in json.dumps([saved[part] for part in ("taken", "memory", "skipped", "history")])
    session.forget("c", age=0)
    assert not session.state.any() and not session.seen
    assert [one.item for one in session.recommend(3)] == ["a", "b", "c"]


def test_a_skip_moves_its_item_down_and_can_be_taken_back(ring: Tower, load: Callable[[Tower], Recommender]) -> None:
    session = load(ring).session()
    session.skip("a")
    assert [one.item for one in session.recommend(2)] == ["a", "b"]  # there is nothing yet that could be moved
    session.observe("c", "d")
    before = {one.item: one.score for one in session.recommend(8)}
    session.skip("e", weight=0.5)
    after = {one.item: one.score for one in session.recommend(8)}
    assert after["e"] < before["e"] - 0.1
    session.unskip("e")
    assert {one.item: one.score for one in session.recommend(8)} == before
    session.unskip("a")
    assert not json.loads(session.export_state())["skipped"]


def test_a_gap_counts_as_events(ring: Tower, load: Callable[[Tower], Recommender]) -> None:
    session = load(ring).session(seconds_per_event=60)
    session.observe("a", at=1000)
    session.observe("b", at=1120)  # the decay is a half: one event, and two minutes
    assert session.state[0, :2] == pytest.approx([0.5**3, 1], abs=0.01)
    assert session.events == 4
    with pytest.raises(UsageError, match="none before the latest"):
        session.observe("c", at=1119)
    with pytest.raises(UsageError, match="expected seconds_per_event"):
        load(ring).session().observe("c", at=5)
    with pytest.raises(UsageError, match="seconds above 0"):
        load(ring).session(seconds_per_event=float("nan"))
    assert session.seen == {1, 2}


def test_refusals_change_nothing(ring: Tower, load: Callable[[Tower], Recommender]) -> None:
    session = load(ring).session()
    session.observe("a", "b")
    before = session.export_state()
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: session.forget("a"), "keeps no history"),
        (lambda: session.forget("a", age=2), "0 to 1 events ago"),
        (lambda: session.forget("c", age=0), "one of 0 observed"),
        (lambda: session.forget("a", age=float("nan")), "nan events ago"),
        (lambda: session.forget(age=1), "without an item"),
        (lambda: session.skip("a", weight=0), "above 0"),
        (lambda: session.skip("a", weight=float("inf")), "above 0"),
        (lambda: session.recommend(3, wher={}), "got the argument 'wher'"),
    ]
    for act, message in refused:
        with pytest.raises(UsageError, match=message):
            act()
    with pytest.raises(UnknownItemError):
        session.skip("a", "nobody")
    assert session.export_state() == before
    kept = load(ring).session(keep_history=True)
    kept.observe("a", "b")
    with pytest.raises(UsageError, match="of this session's history"):
        kept.forget("a", age=0)


def test_a_closed_session_refuses(ring: Tower, load: Callable[[Tower], Recommender]) -> None:
    session = load(ring).session()
    session.observe("a")
    session.close()
    session.close()
    acts: list[Callable[[], object]] = [
        lambda: session.observe("a"),
        session.recommend,
        session.export_state,
        session.forget,
        lambda: session.skip("a"),
    ]
    for act in acts:
        with pytest.raises(UsageError, match="the session is closed"):
            act()
    assert not session.state.any()


def test_what_is_no_session_of_this_bundle_is_refused(
    ring: Tower, make_tower: Callable[..., Tower], load: Callable[[Tower], Recommender]
) -> None:
    recommender = load(ring)
    session = recommender.session(keep_history=True, seconds_per_event=5)
    session.observe("a", at=3)
    session.skip("b")
    saved = json.loads(session.export_state())
    broken: list[Any] = [b"", b"[]", b"{}", b"\xff", None, 3, "x" * 10, b"[" * 100_000]
    changes: list[dict[str, Any]] = [
        {"format_version": 2},
        {"format_version": "1"},
        {"bundle": "0" * 64},
        {"state": "AAAA"},
        {"state": "////fw=="},
        {"state": 7},
        {"events": float("nan")},
        {"events": "1"},
        {"seconds_per_event": -1},
        {"at": "now"},
        {"taken": {"a": 0}},
        {"taken": {"a": 1.5}},
        {"taken": ["a"]},
        {"skipped": {"b": [0, []]}},
        {"skipped": {"b": [9, [0.1]]}},
        {"skipped": {"b": [0, [float("inf")]]}},
        {"history": [["a"]]},
        {"history": [["a", "x", None]]},
    ]
    for blob in [*broken, *(json.dumps({**saved, **change}) for change in changes)]:
        with pytest.raises(UsageError):
            recommender.restore(blob)
    for name in saved:
        with pytest.raises(UsageError):
            recommender.restore(json.dumps({key: value for key, value in saved.items() if key != name}))
    assert recommender.restore(json.dumps(saved)).export_state() == session.export_state()
    with pytest.raises(UsageError, match="got a session of the bundle"):
        load(make_tower()).restore(session.export_state())


def test_events_of_many_threads_are_all_there(ring: Tower, load: Callable[[Tower], Recommender]) -> None:
    session: Session = load(ring).session(keep_history=True)

    def work(item: str) -> None:
        for _ in range(50):
            session.observe(item)
            session.recommend(3)
            session.skip(item)

    threads = [threading.Thread(target=work, args=(item,)) for item in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.counts == {row: 50 for row in range(1, 9)}
    assert session.events == 400
    assert session.history is not None
    alone = load(ring).session()
    for event in session.history:
        if event.skipped is None:
            alone.observe_rows([event.row])
    assert np.array_equal(alone.state, session.state)
