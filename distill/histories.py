"""Augmentation of histories: a window of the log is changed at random before it is learned from (Xie et al. 2022).

Their *crop* is the random window itself (``training.Windows``); *mask* and *reorder* are here, off by default.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from edgerec.errors import UsageError
from edgerec.interactions import IntArray


@dataclass(frozen=True)
class Augmentation:
    """How a window is changed each time that it is drawn."""

    mask: float = 0.0  # chance of each event to be left out
    reorder: float = 0.0  # share of the window, in one random span, whose events are shuffled; below 2 events, none

    def __post_init__(self) -> None:
        if not (0 <= self.mask < 1 and 0 <= self.reorder <= 1):
            raise UsageError(
                f"got mask={self.mask}, reorder={self.reorder}; expected shares from 0 to 1, and a mask below 1"
            )

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Read ``mask=0.1,reorder=0.2``.

        Raises:
            UsageError: An unknown name, or no number.
        """
        known = [field.name for field in fields(cls)]
        values = {}
        for part in text.split(","):
            name, _, value = part.strip().partition("=")
            try:
                values[known[known.index(name)]] = float(value)
            except ValueError:
                raise UsageError(f"got --augment {text!r}; expected such as mask=0.1,reorder=0.1") from None
        return cls(**values)

    def __call__(self, events: IntArray, steps: IntArray, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        """Return the events and steps of a window, int32 [L] each, with some left out and some in another order."""
        kept = rng.random(len(events)) >= self.mask
        if kept.sum() > 1:  # fewer would leave nothing to predict
            events, steps = events[kept], steps[kept]
        span = round(self.reorder * len(events))
        if span > 1:
            start = int(rng.integers(len(events) - span + 1))
            end = start + span
            events = np.concatenate([events[:start], rng.permutation(events[start:end]), events[end:]])
        return events, steps
