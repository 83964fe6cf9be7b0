"""Repeat purchases: what a user's events left of each item, decayed only when it is asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgerec.runtime.layout import FloatArray


class RepeatMemory:
    """A user's memories of the items taken, one per repeat recency; without recencies it stays empty.

    Attributes:
        events: How many events were observed.
    """

    def __init__(self, decays: FloatArray) -> None:
        self.events = 0
        self._decays = decays
        self._left: dict[int, tuple[FloatArray, int]] = {}  # row -> float32 [R], and the number of its last event

    def copy(self) -> RepeatMemory:
        """Return the same memories, to go on by themselves."""
        made = RepeatMemory(self._decays)
        made.events, made._left = self.events, dict(self._left)
        return made

    def observe(self, row: int) -> None:
        """Take note of an event, in O(R)."""
        self.events += 1
        if len(self._decays):
            left, event = self._left.get(row, (np.zeros_like(self._decays), self.events))
            self._left[row] = left * self._decays ** (self.events - event) + np.float32(1), self.events

    def recall(self, later: int = 0) -> tuple[NDArray[np.int64], FloatArray]:
        """Return what is left of the items, as of ``later`` further events.

        Returns:
            int64 [M] rows, each once, and float32 [R, M] their memories.
        """
        rows = np.fromiter(self._left, np.int64, len(self._left))
        if not self._left:
            return rows, np.zeros((len(self._decays), 0), np.float32)
        left, events = zip(*self._left.values(), strict=True)
        ages = self.events + later - np.array(events, np.float32)
        return rows, (np.concatenate(left).reshape(len(rows), -1) * self._decays ** ages[:, None]).T


def repeat_scores(weights: FloatArray, memory: FloatArray) -> FloatArray:
    """Return what memories float32 [R, M] add to the scores of their items, float32 [M]."""
    return weights @ np.log1p(memory)
