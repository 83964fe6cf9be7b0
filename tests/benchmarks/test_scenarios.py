"""Scenarios, on a clock that only the subject and the sleeper move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import pytest

from edgerec.benchmarks.scenarios import KEPT, NEAR, SEARCHES, Plan, Watch, run
from edgerec.errors import UsageError

INPUTS = list(range(100, 150))


class Time:
    """Nanoseconds that pass only when somebody works or sleeps."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(int(seconds * 1e9), 20_000)

    def subject(self, milliseconds: float) -> Callable[[Sequence[Any]], Sequence[Any]]:
        """Return a subject that takes so long per sample."""

        def ask(batch: Sequence[Any]) -> Sequence[Any]:
            self.now += int(milliseconds * 1e6) * len(batch)
            return [value + 1 for value in batch]

        return ask


def ran(milliseconds: float, **plan: Any) -> Any:
    time = Time()
    return run(time.subject(milliseconds), INPUTS, Plan(**plan), Watch(time, time.sleep))


@pytest.mark.parametrize(("seconds", "count", "expected"), [(1.0, 10, 500), (0.1, 200, 200)])
def test_a_run_lasts_until_duration_and_count_are_reached(seconds: float, count: int, expected: int) -> None:
    found = ran(2, seconds=seconds, count=count)
    assert len(found.latencies) == expected
    assert np.allclose(found.latencies, 0.002)


def test_warm_up_is_not_timed() -> None:
    time, calls = Time(), []
    ask = time.subject(1)
    slow_start = lambda batch: (calls.append(1), time.sleep(1 if len(calls) <= 5 else 0), ask(batch))[2]  # noqa: E731
    found = run(slow_start, INPUTS, Plan(seconds=0.1, count=10, warmup=5), Watch(time, time.sleep))
    assert found.latencies.max() < 0.002


def test_queries_hold_as_many_samples_as_the_scenario_says() -> None:
    multi, offline = ran(1, scenario="multi-stream", seconds=0.1), ran(1, scenario="offline", seconds=0.1)
    assert np.allclose(multi.latencies, 0.008)
    assert np.allclose(offline.latencies, 0.032)
    assert offline.samples / offline.elapsed == pytest.approx(1000)


def test_a_servers_queries_wait_for_each_other() -> None:
    """At half load, the mean time in an M/D/1 queue is service * (1 + load / (2 (1 - load))) (Pollaczek-Khinchine)."""
    found = ran(2, scenario="server", rate=250.0, seconds=50.0)
    assert found.latencies.mean() == pytest.approx(0.002 * 1.5, rel=0.05)
    assert found.extra["waited"] == pytest.approx(0.5, abs=0.03)
    assert len(found.latencies) / found.elapsed == pytest.approx(250, rel=0.02)


def test_the_highest_rate_that_holds_the_bound_is_found() -> None:
    found = ran(2, scenario="server", bound_ms=10.0, seconds=20.0)
    held = [one["rate"] for one in found.extra["tried"] if one["holds"]]
    failed = [one["rate"] for one in found.extra["tried"] if not one["holds"]]
    assert found.extra["holds"] and found.extra["rate"] == max(held) < min(failed) <= (1 + NEAR) * max(held)
    assert len({one["rate"] for one in found.extra["tried"]}) < SEARCHES  # near enough is an end
    # an M/D/1 queue's wait exceeds four service times once in 100 at a load of 0.56: P(W > x) ~ C exp(-t x), where
    # load * (exp(t) - 1) = t and C = (1 - load) / (load * exp(t) - 1) (Cramer-Lundberg)
    assert max(held) == pytest.approx(0.56 * 500, rel=0.05)
    assert not ran(2, scenario="server", bound_ms=1.0, seconds=1.0).extra["holds"]


def test_a_hiccup_of_the_machine_does_not_lower_the_rate_for_good() -> None:
    time, calls = Time(), []
    calm = time.subject(2)

    def ask(batch: Sequence[Any]) -> Sequence[Any]:
        calls.append(1)
        time.now += 2_000_000_000 if len(calls) == 1000 else 0  # in the first try of the first rate
        return calm(batch)

    plan = Plan(scenario="server", bound_ms=10.0, seconds=20.0)
    found = run(ask, INPUTS, plan, Watch(time, time.sleep))
    assert [one["holds"] for one in found.extra["tried"]][:2] == [False, True]
    assert found.extra["rate"] == pytest.approx(
        ran(2, scenario="server", bound_ms=10.0, seconds=20.0).extra["rate"], rel=0.05
    )


def test_seeds_say_which_samples_are_asked_and_when() -> None:
    same = [ran(1, scenario="server", rate=500.0, sample_seed=3).latencies for _ in range(2)]
    other = ran(1, scenario="server", rate=500.0, sample_seed=3, schedule_seed=1).latencies
    assert np.array_equal(*same) and not np.array_equal(same[0][:100], other[:100])
    assert ran(1, sample_seed=3).kept == ran(1, sample_seed=3).kept != ran(1, sample_seed=4).kept


def test_kept_answers_belong_to_their_samples() -> None:
    kept = ran(1, seconds=2.0).kept
    assert len(kept) == KEPT
    assert all(answer == INPUTS[number] + 1 for number, answer in kept)


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"count": 0}, {"scenario": "flood"}, {"rate": -1}, {"warmup": -1}])
def test_a_plan_that_cannot_run_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=str(next(iter(wrong.values())))):
        Plan(**wrong)


def test_a_clock_that_goes_backwards_is_refused() -> None:
    time = Time()
    with pytest.raises(RuntimeError, match="backwards by 1000000 ns"):
        run(time.subject(-1), INPUTS, Plan(warmup=0), Watch(time, time.sleep))
