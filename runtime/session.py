"""A session: a user's state that follows events in O(d) each, without keeping the history unless asked to.

With ``state_k`` the K running sums, an observed item does ``state_k <- decay_k * state_k + item_in``, and leaves
``decay_k ** age`` of itself ``age`` events later. Where ``seconds_per_event`` is given, a gap in time counts as events
too: an event's age is the number of later events plus the seconds from it to the last of them / ``seconds_per_event``.

A skipped item ages nothing. It moves the user vector before its normalisation, ``sum over k of mix_k * state_k``, by
``-weight * |sum of mix_k| * item_out``: ``weight`` times what a fresh event of the item would add to it, the other way
(negative feedback after Rocchio 1971). It fades as ``sum of mix_k ** 2 * decay_k ** age / sum of mix_k ** 2``, which
is never negative. It counts from the first observed item on; before, nothing is known that could be moved.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgerec.errors import UsageError
from edgerec.runtime.engine import RowArray
from edgerec.runtime.layout import FloatArray
from edgerec.runtime.repeat import RepeatMemory

if TYPE_CHECKING:
    from edgerec.runtime.naming import Recommendation
    from edgerec.runtime.recommender import Recommender

SKIP_WEIGHT = 0.1  # of a fresh event: ten skips of an item are needed to undo having taken it
BLOCK = 256  # events that are taken at once
SAME_AGE = 1e-6  # events: ages that differ by less are the same


class Event(NamedTuple):
    """One entry of a kept history: an item's row, when (seconds, or None), and the weight of a skip (None: taken)."""

    row: int
    at: float | None = None
    skipped: float | None = None


class View(NamedTuple):
    """What an answer needs of a session at one moment: its state with the skips in it, and what was taken.

    ``state`` is float32 [K, d], ``taken`` int64 [M] rows with ``left`` float32 [R, M], their repeat memories.
    """

    state: FloatArray
    seen: set[int]
    taken: RowArray
    left: FloatArray


class Session:
    """One user's running state; made by ``Recommender.session``. Every method may be called from several threads.

    Attributes:
        state: float32 [K, d], what the observed events left.
        memory: What is left of each item, where the model has repeat recencies.
        skipped: What is left of each skipped item, one number per state.
        history: The events so far, or None where none are kept.
        at: Seconds of the latest event that had a time.
    """

    def __init__(
        self, recommender: Recommender, keep_history: bool = False, seconds_per_event: float | None = None
    ) -> None:
        if seconds_per_event is not None and not (is_real(seconds_per_event) and seconds_per_event > 0):
            raise UsageError(f"got seconds_per_event = {seconds_per_event!r}; expected seconds above 0, or None")
        self.recommender = recommender
        self._lock = threading.RLock()
        self._closed = False
        self.seconds_per_event = seconds_per_event
        self.history: list[Event] | None = [] if keep_history else None
        self._empty()

    def _empty(self) -> None:
        contents = self.recommender.contents
        self.state: FloatArray = self.recommender.no_state.copy()
        self.counts: Counter[int] = Counter()  # row -> observed events
        self.memory, self.skipped = RepeatMemory(contents.repeat_decays), RepeatMemory(contents.decays)
        self.at: float | None = None

    @property
    def seen(self) -> set[int]:
        """The rows of the observed items."""
        with self._lock:
            return set(self.counts)

    @property
    def events(self) -> float:
        """The age of the session in events, gaps in time included."""
        return self.memory.events

    def fork(self) -> Session:
        """Return a session that starts where this one stands and goes on by itself."""
        with self._open():
            made = Session(self.recommender, seconds_per_event=self.seconds_per_event)
            made.history = None if self.history is None else list(self.history)
            made.state, made.counts, made.at = self.state.copy(), self.counts.copy(), self.at
            made.memory, made.skipped = self.memory.copy(), self.skipped.copy()
            return made

    def observe(self, *items: str, at: float | None = None) -> None:
        """Take note of events, oldest first; either all of them or, after an error, none.

        Args:
            items: Item ids.
            at: When, in seconds of any clock that only goes forward; it needs ``seconds_per_event``.

        Raises:
            UnknownItemError: An item is not in the catalogue.
            UsageError: ``at`` is no number, or earlier than the latest event, or the session is closed.
        """
        rows = self.recommender.rows(items)
        with self._open():
            self._check_time(at)
            self.observe_rows(rows, at)

    def observe_rows(self, rows: Sequence[int], at: float | None = None) -> None:
        """Take note of events by the rows of their items."""
        with self._open():
            if at is not None:
                for row in rows:
                    self._note(Event(row, float(at)))
                return
            if self.history is not None:
                self.history.extend(map(Event, rows))
            self._take(rows)

    def skip(self, *items: str, weight: float = SKIP_WEIGHT) -> None:
        """Take note of items that were shown and not taken: each moves the user vector away from it, by ``weight``.

        Raises:
            UnknownItemError: An item is not in the catalogue.
            UsageError: The weight is not above 0, or the session is closed.
        """
        if not (is_real(weight) and weight > 0):
            raise UsageError(f"got weight = {weight!r}; expected a number above 0")
        rows = self.recommender.rows(items)
        with self._open():
            for row in rows:
                self._note(Event(row, skipped=float(weight)))

    def unskip(self, *items: str) -> None:
        """Take back every skip of some items, exactly.

        Raises:
            UnknownItemError: An item is not in the catalogue.
        """
        rows = self.recommender.rows(items)
        with self._open():
            for row in rows:
                self.skipped.drop(row)
            if self.history is not None:
                self.history = [one for one in self.history if one.skipped is None or one.row not in rows]

    def forget(self, item: str | None = None, age: float | None = None) -> None:
        """Erase everything, or all of one item, or one of its events.

        With a kept history the session is afterwards what it would be had the events never happened. Without, the age
        must be known: what the event left is subtracted (to float32's precision), its item's skips are dropped, and
        earlier events keep the age they had. Nothing of an item can be read from the session once its last event is
        erased.

        Args:
            item: An item id; None for everything.
            age: How many events ago, 0 for the latest; gaps in time count as the session counts them.

        Raises:
            UnknownItemError: The item is not in the catalogue.
            UsageError: There is no such event, or its age is needed.
        """
        row = None if item is None else self.recommender.rows([item])[0]
        with self._open():
            if row is None:
                if age is not None:
                    raise UsageError(f"got the age {age!r} without an item; expected both, or neither")
                self.history = None if self.history is None else []
                self._empty()
            elif self.history is None:
                self._subtract(item, row, age)
            else:
                self._replay(item, row, age, self.history)

    def recommend(
        self, k: int = 10, exclude_seen: bool | None = None, candidates: Sequence[str] | None = None, **options: Any
    ) -> list[Recommendation]:
        """Return the k best items for the state; the arguments are those of ``Recommender.recommend``."""
        return self.recommender.answer(self, k, exclude_seen, candidates, **options)

    def export_state(self) -> bytes:
        """Return all that the session is, as JSON in UTF-8; ``Recommender.restore`` makes a session of it again."""
        from edgerec.runtime.snapshot import export_state

        with self._open():
            return export_state(self)

    def close(self) -> None:
        """Forget everything and refuse further use."""
        with self._lock:
            if not self._closed:
                self.forget()
                self._closed = True

    def view(self) -> View:
        """Return what an answer needs, at one moment."""
        with self._open():
            state = self.state + self._push() if len(self.skipped) and self.counts else self.state
            return View(state, set(self.counts), *self.memory.recall())

    def _open(self) -> threading.RLock:
        """Return the lock, unless the session is closed."""
        if self._closed:
            raise UsageError("the session is closed; expected an open one: make another by Recommender.session()")
        return self._lock

    def _check_time(self, at: float | None) -> None:
        if at is None:
            return
        if self.seconds_per_event is None:
            raise UsageError(f"got at = {at!r} in a session without a clock; expected seconds_per_event when it began")
        if not is_real(at) or (self.at is not None and at < self.at):
            raise UsageError(f"got at = {at!r}; expected seconds, none before the latest event's ({self.at})")

    def _note(self, event: Event) -> None:
        """Let one event happen."""
        if self.history is not None:
            self.history.append(event)
        if event.skipped is not None:
            self.skipped.add(event.row, event.skipped)
            return
        if event.at is not None and self.seconds_per_event is not None:
            gap = 0.0 if self.at is None else (event.at - self.at) / self.seconds_per_event
            self.memory.wait(gap)
            self.skipped.wait(gap)
            self.state = self.recommender.decays[:, None] ** np.float32(gap) * self.state
            self.at = event.at
        self._take([event.row])

    def _take(self, rows: Sequence[int]) -> None:
        """Let events happen one after the other: the recurrence in closed form, ``BLOCK`` of them at a time."""
        powers = self.recommender.powers
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            fresh: FloatArray = self.recommender.vector(part[0], as_history=True)  # as a rule, one event
            if len(part) > 1:
                fresh = powers[:, BLOCK + 1 - len(part) :] @ self.recommender.vectors(part, as_history=True)
            self.state = powers[:, BLOCK - len(part), None] * self.state + fresh
        self.memory.observe(rows)
        self.skipped.wait(len(rows))
        self.counts.update(rows)

    def _push(self) -> FloatArray:
        """Return what the skips add to the state, float32 [K, d]."""
        rows, left = self.skipped.recall()
        mix = np.array(self.recommender.contents.model["mix"], np.float32)
        size = max(float(mix @ mix), 1e-12)
        pushed = np.zeros_like(self.state)
        for row, one in zip(rows.tolist(), left.T, strict=True):
            pushed -= one[:, None] * self.recommender.vector(row, as_history=False)
        return pushed * (np.float32(abs(float(mix.sum())) / size) * mix)[:, None]

    def _subtract(self, item: str | None, row: int, age: float | None) -> None:
        """Erase one event of which only the age is known."""
        if age is None:
            raise UsageError(f"forgetting {item!r} needs its age: this session keeps no history (keep_history=True)")
        if not self.counts[row] or not is_real(age) or not 0 <= age <= self.events - 1 + SAME_AGE:
            raise UsageError(
                f"got {item!r}, {age!r} events ago; expected one of {self.counts[row]} observed events of the item, "
                f"0 to {self.events - 1:g} events ago"
            )
        self.state = self.state - self.recommender.decays[:, None] ** np.float32(age) * self.recommender.vector(
            row, as_history=True
        )
        self.memory.subtract(row, age)
        self.skipped.drop(row)
        self.counts[row] -= 1
        if not self.counts[row]:
            del self.counts[row]
            self.memory.drop(row)
        if not self.counts:  # what is left of the sum is rounding
            self.state = self.recommender.no_state.copy()

    def _replay(self, item: str | None, row: int, age: float | None, history: list[Event]) -> None:
        """Start anew and let everything happen but the erased events."""
        kept = [event for event in history if event.row != row]
        if age is not None:
            ages = self._ages(history)
            near = [n for n, e in enumerate(history) if e.row == row and abs(ages[n] - age) < SAME_AGE]
            kept = [event for n, event in enumerate(history) if n not in near]
        if len(kept) == len(history):
            raise UsageError(f"got {item!r}, {age!r} events ago; expected an event of this session's history")
        self.history = []
        self._empty()
        for event in kept:
            self._note(event)

    def _ages(self, history: list[Event]) -> list[float]:
        """Return the age of every event of a history; a skip's is infinite, since it is not erased alone."""
        clock, at, readings = 0.0, None, []
        for event in history:
            if event.skipped is not None:
                readings.append(-math.inf)
                continue
            if event.at is not None and self.seconds_per_event:
                clock += 0.0 if at is None else (event.at - at) / self.seconds_per_event
                at = event.at
            clock += 1
            readings.append(clock)
        return [clock - reading for reading in readings]


def is_real(value: object) -> bool:
    """Tell whether a value is a finite number."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)
