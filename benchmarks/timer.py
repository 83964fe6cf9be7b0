"""The timer core: subjects are measured interleaved, so that a noisy machine is noisy for all of them alike.

Each round runs every subject once, in an order drawn anew; a ratio between two subjects is taken within rounds. The
clock is ``time.perf_counter_ns``; a negative difference is refused, not clipped.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerec.errors import UsageError

Clock = Callable[[], int]


@dataclass(frozen=True)
class Latency:
    """Latencies of one subject in milliseconds, float64 [n], in the order of the rounds."""

    samples: NDArray[np.float64]

    def percentile(self, q: float) -> float:
        """Return the q-th percentile (0 to 100) in milliseconds: the smallest sample with q% at or below it."""
        return float(np.percentile(self.samples, q, method="inverted_cdf"))

    def summary(self) -> dict[str, float | int]:
        """Return n, mean and percentiles in milliseconds."""
        named = {f"p{q}_ms": self.percentile(q) for q in (50, 90, 99)}
        return {"n": len(self.samples), "mean_ms": float(self.samples.mean()), **named}


def measure(
    subjects: Mapping[str, Callable[[int], object]],
    rounds: int,
    warmup: int = 10,
    seed: int = 0,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, Latency]:
    """Time every subject ``rounds`` times, interleaved.

    Args:
        subjects: Name -> function of the round's number (so that inputs can differ between rounds).
        rounds: Timed calls per subject.
        warmup: Untimed calls per subject, before any timed one.
        seed: Seed of the order within rounds.
        clock: Returns nanoseconds; for tests.

    Raises:
        UsageError: ``rounds`` is below 1, or no subject was given.
        RuntimeError: The clock went backwards.
    """
    if rounds < 1 or not subjects:
        raise UsageError(f"got {rounds} rounds over {len(subjects)} subjects; expected at least 1 of each")
    for number in range(warmup):
        for run in subjects.values():
            run(number)
    order, rng = list(subjects), random.Random(seed)
    samples = {name: np.empty(rounds) for name in subjects}
    for number in range(rounds):
        rng.shuffle(order)
        for name in order:
            run, start = subjects[name], clock()
            run(number)
            if (elapsed := clock() - start) < 0:
                raise RuntimeError(f"the clock went backwards by {-elapsed} ns while timing {name}")
            samples[name][number] = elapsed / 1e6
    return {name: Latency(values) for name, values in samples.items()}


def ratio(a: Latency, b: Latency, seed: int = 0, draws: int = 2000) -> dict[str, Any]:
    """Return how many times slower ``a`` is than ``b``: ratio of medians with a bootstrap 95% interval over rounds."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(a.samples), (draws, len(a.samples)))
    drawn = np.median(a.samples[rows], axis=1) / np.median(b.samples[rows], axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"ratio": float(np.median(a.samples) / np.median(b.samples)), "low": float(low), "high": float(high)}
