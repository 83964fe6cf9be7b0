"""What a user's events left of each item, decayed only when it is asked for: repeat purchases, and what was skipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerec.runtime.layout import FloatArray

NO_ROWS = np.zeros(0, np.int64)


class RepeatMemory:
    """A user's memories of items, one per recency; without recencies it stays empty.

    Attributes:
        events: The age of the memory in events; a fraction where time passed counts as events.
    """

    def __init__(self, decays: FloatArray) -> None:
        self.events = 0.0
        self._decays = decays
        self._left: dict[int, tuple[FloatArray, float]] = {}  # row -> float32 [R], and `events` at its last change

    def __len__(self) -> int:
        return len(self._left)

    def copy(self) -> RepeatMemory:
        """Return the same memories, to go on by themselves."""
        made = RepeatMemory(self._decays)
        made.events, made._left = self.events, dict(self._left)
        return made

    def observe(self, rows: Sequence[int]) -> None:
        """Take note of events, oldest first, in O(R) each."""
        self.events += len(rows)
        if len(self._decays) and rows:
            ages = np.arange(len(rows) - 1, -1, -1, dtype=np.float32)
            different, places = np.unique(np.array(rows), return_inverse=True)
            fresh = np.stack([np.bincount(places, weights=decay**ages) for decay in self._decays]).astype(np.float32)
            for row, left in zip(different.tolist(), fresh.T, strict=True):
                self._left[row] = (self._now(row) + left if row in self._left else left), self.events

    def wait(self, events: float) -> None:
        """Let everything age by so many events."""
        self.events += events

    def add(self, row: int, amount: float) -> None:
        """Add to what is left of an item now."""
        if len(self._decays):
            self._left[row] = self._now(row) + np.float32(amount), self.events

    def subtract(self, row: int, age: float) -> None:
        """Take away what one event of an item left, ``age`` events ago."""
        if row in self._left:
            self._left[row] = np.maximum(self._now(row) - self._decays**age, np.float32(0)), self.events

    def drop(self, row: int) -> None:
        """Forget an item."""
        self._left.pop(row, None)

    def recall(self) -> tuple[NDArray[np.int64], FloatArray]:
        """Return what is left of the items.

        Returns:
            int64 [M] rows, each once, and float32 [R, M] their memories.
        """
        if not self._left:
            return NO_ROWS, np.zeros((len(self._decays), 0), np.float32)
        rows = np.fromiter(self._left, np.int64, len(self._left))
        left, events = zip(*self._left.values(), strict=True)
        ages = (self.events - np.array(events)).astype(np.float32)
        return rows, (np.concatenate(left).reshape(len(rows), -1) * self._decays ** ages[:, None]).T

    def entries(self) -> dict[int, list[Any]]:
        """Return row -> [``events`` at the last change, what was left then], as JSON can hold them."""
        return {row: [event, left.tolist()] for row, (left, event) in self._left.items()}

    def put(self, row: int, left: FloatArray, event: float) -> None:
        """Take over one of the ``entries``.

        Raises:
            ValueError: It is of another number of recencies.
        """
        if left.shape != self._decays.shape:
            raise ValueError(f"{left.shape} memories for {self._decays.shape} recencies")
        self._left[row] = left, event

    def _now(self, row: int) -> FloatArray:
        left, event = self._left.get(row, (np.zeros_like(self._decays), self.events))
        return left * self._decays ** np.float32(self.events - event)


def repeat_scores(weights: FloatArray, memory: FloatArray) -> FloatArray:
    """Return what memories float32 [R, M] add to the scores of their items, float32 [M]."""
    return weights @ np.log1p(memory)
