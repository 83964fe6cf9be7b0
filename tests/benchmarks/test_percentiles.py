"""Percentiles, their bounds and ratios, on numbers whose answer is known."""

from __future__ import annotations

import numpy as np

import pytest

from edgerec.benchmarks.percentiles import (
    allowed_above,
    estimate,
    order_statistics,
    ratio_of_medians,
    stability,
    verdict,
    windows,
)


@pytest.mark.parametrize(("percentile", "least"), [(90, 64), (99, 662), (99.9, 6636)])
def test_the_fewest_queries_are_mlperfs(percentile: float, least: int) -> None:
    assert allowed_above(least - 1, percentile) == 0
    assert allowed_above(least, percentile) == 1
    assert estimate(np.ones(least - 1), percentile)["bound"] is None


@pytest.mark.parametrize("n", [700, 5000, 1_000_000])
def test_the_number_set_aside_is_the_binomials(n: int) -> None:
    binom = pytest.importorskip("scipy.stats").binom
    t = allowed_above(n, 99)
    assert binom.cdf(t, n, 0.01) <= 0.01 < binom.cdf(t + 1, n, 0.01)


def test_the_bound_holds_the_true_percentile_in_at_least_99_of_100_runs() -> None:
    rng = np.random.default_rng(0)
    truth = -np.log(0.1)  # 90th percentile of the exponential distribution
    bounds = [estimate(rng.exponential(size=300), 90)["bound"] for _ in range(1000)]
    assert np.mean(np.array(bounds) < truth) <= 0.015
    assert np.median(bounds) < 1.5 * truth


def test_the_last_three_windows_decide() -> None:
    assert stability([9.0, 1.0, 1.05, 1.09])["stable"]
    assert not stability([1.0, 1.0, 1.0, 1.2])["stable"]
    assert not stability([1.0, 1.0])["stable"]
    assert windows(np.repeat([1.0, 2.0, 3.0, 4.0, 5.0], 10)) == [1, 2, 3, 4, 5]


def test_order_statistics_keep_both_ends() -> None:
    kept = order_statistics(np.arange(10_000.0), 11)
    assert (kept[0], kept[5], kept[-1], len(kept)) == (0, 5000, 9999, 11)


def test_noise_of_a_round_cancels_where_rounds_are_shared() -> None:
    rng = np.random.default_rng(1)
    noise = rng.uniform(1, 3, 10)
    a = [level * rng.normal(1.0, 0.01, 200) for level in noise]
    b = [level * rng.normal(1.1, 0.01, 200) for level in noise]
    shared = ratio_of_medians(a, b, paired=True, draws=300)
    assert 1.09 < shared["low"] < shared["high"] < 1.11
    assert verdict(shared).startswith("slower by 10.")
    assert verdict(ratio_of_medians(a, b, paired=False, draws=300)) == "no difference shown"
    assert verdict(ratio_of_medians(b, a, paired=True, draws=300)).startswith("faster by 9.")
