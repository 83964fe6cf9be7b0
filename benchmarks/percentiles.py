"""What may be said of n latencies: percentiles with a bound that holds at 99% confidence, stability, ratios.

The bound is MLPerf's early-stopping estimate (MLPerf inference policies, "Early stopping criterion"; LoadGen's
``results.cc`` and ``early_stopping.cc``, tolerance 0): of n sorted latencies it is the t-th largest, for the largest
t >= 1 such that t or fewer of n would lie above the true percentile with a probability of at most 1%. Below 64
latencies there is no such t for p90, below 662 none for p99, below 6,636 none for p99.9: then n is too small to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
CONFIDENCE = 0.99
WINDOWS = 3  # the last ones, which must agree; as Triton's perf_analyzer has it
AGREEMENT = 0.10  # their largest may be so much above their smallest
POINTS = 201  # order statistics kept of a run: what an eCDF is drawn from


def allowed_above(n: int, percentile: float) -> int:
    """Return how many of n latencies may be set aside for a percentile's bound; 0 where n is too small."""
    p = percentile / 100
    above = np.arange(n)
    steps = np.log((n - above) / (above + 1)) + np.log1p(-p) - np.log(p)  # from P(X = x) to P(X = x + 1)
    probabilities = np.exp(n * np.log(p) + np.concatenate([[0.0], np.cumsum(steps)]))
    t = int(np.searchsorted(np.cumsum(probabilities), 1 - CONFIDENCE, side="right")) - 1
    return t if t >= 1 else 0


def estimate(samples: Values, percentile: float) -> dict[str, Any]:
    """Return a percentile of latencies (a sample that happened) and its upper bound; ``bound`` is None for small n."""
    ordered = np.sort(samples)
    t = allowed_above(len(ordered), percentile)
    value = float(np.percentile(ordered, percentile, method="inverted_cdf"))
    return {"value": value, "bound": float(ordered[len(ordered) - t]) if t else None}


def summarise(samples: Values) -> dict[str, Any]:
    """Return count, mean and percentiles with their bounds, under names such as ``p99.9``."""
    named = {f"p{percentile:g}": estimate(samples, percentile) for percentile in PERCENTILES}
    return {"n": len(samples), "mean": float(samples.mean()), **named}


def windows(samples: Values, count: int = 5) -> list[float]:
    """Return the median of each of ``count`` consecutive parts of a run; fewer where there are fewer samples."""
    return [float(np.median(part)) for part in np.array_split(samples, count) if len(part)]


def stability(medians: Sequence[float]) -> dict[str, Any]:
    """Tell whether the last three windows agree within 10%; fewer windows cannot tell, and are not stable."""
    last = list(medians[-WINDOWS:])
    spread = max(last) / max(min(last), 1e-12) - 1
    return {"windows": list(medians), "spread": spread, "stable": len(last) == WINDOWS and spread <= AGREEMENT}


def order_statistics(samples: Values, points: int = POINTS) -> list[float]:
    """Return at most so many evenly spaced order statistics, smallest and largest included."""
    ordered = np.sort(samples)
    rows = np.unique(np.linspace(0, len(ordered) - 1, points).round().astype(int))
    return [float(f"{value:.5g}") for value in ordered[rows]]


def ratio_of_medians(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], paired: bool, draws: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Return how many times slower ``b`` is than ``a``, with a bootstrap 95% interval.

    Processes differ more than the queries of one, so whole runs are drawn first, then their samples (a two-stage
    bootstrap; Davison & Hinkley 1997, section 3.8). The ratio is that of the medians of the runs' medians.

    Args:
        a: Latencies of each run.
        b: Likewise.
        paired: Run i of both was measured in the same round: rounds are drawn, so that a round's noise cancels.
        draws: Of the bootstrap.
        seed: Of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    medians_a, medians_b = (np.array([[np.median(run)] for run in runs]) for runs in (a, b))
    drawn_a, drawn_b = (redrawn(runs, draws, rng) for runs in (a, b))
    rows = rng.integers(0, len(a), (len(a), draws))
    others = rows if paired else rng.integers(0, len(b), (len(b), draws))
    found = middle(np.take_along_axis(drawn_a, rows, 0), np.take_along_axis(drawn_b, others, 0), paired)
    low, high = np.percentile(found, [2.5, 97.5])
    ratio = float(middle(medians_a, medians_b, paired)[0])
    return {"ratio": ratio, "low": float(low), "high": float(high), "paired": paired}


def redrawn(runs: Sequence[Sequence[float]], draws: int, rng: np.random.Generator) -> Values:
    """Return the median of each run with its samples drawn anew, [runs, draws]."""
    return np.array([np.median(rng.choice(np.asarray(run), (draws, len(run))), axis=1) for run in runs])


def middle(a: Values, b: Values, paired: bool) -> Values:
    """Return the median of the rounds' ratios b / a, or the ratio of the medians where rounds were not shared, [draws].

    Args:
        a: Medians of runs, [runs, draws].
        b: Likewise.
        paired: Which of the two.
    """
    found: Values = np.median(b / a, axis=0) if paired else np.median(b, axis=0) / np.median(a, axis=0)
    return found


def verdict(found: Mapping[str, Any]) -> str:
    """Say what an interval of a ratio shows; an interval that holds 1 shows no difference."""
    if found["low"] > 1:
        return f"slower by {found['ratio'] - 1:.1%}"
    if found["high"] < 1:
        return f"faster by {1 - found['ratio']:.1%}"
    return "no difference shown"
