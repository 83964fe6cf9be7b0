"""The timer core, on a clock that the test drives."""

from __future__ import annotations

import numpy as np

import pytest

from edgerec.benchmarks.environment import cpu_features, environment
from edgerec.benchmarks.timer import Latency, measure, ratio
from edgerec.errors import UsageError


class Clock:
    """Nanoseconds that pass only when a subject works."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def work(self, milliseconds: int) -> None:
        self.now += milliseconds * 1_000_000


def test_each_subject_gets_its_own_time_and_warm_up_is_untimed() -> None:
    clock, calls = Clock(), []
    subjects = {"a": lambda n: (calls.append(n), clock.work(2)), "b": lambda n: clock.work(6)}
    result = measure(subjects, rounds=5, warmup=3, clock=clock)
    assert calls == [0, 1, 2, 0, 1, 2, 3, 4]
    assert result["a"].summary() == {"n": 5, "mean_ms": 2.0, "p50_ms": 2.0, "p90_ms": 2.0, "p99_ms": 2.0}
    assert ratio(result["b"], result["a"]) == {"ratio": 3.0, "low": 3.0, "high": 3.0}


def test_subjects_are_interleaved_in_an_order_drawn_anew() -> None:
    order: list[str] = []
    measure({name: lambda n, name=name: order.append(name) for name in "ab"}, rounds=40, warmup=0)
    rounds = {tuple(order[i : i + 2]) for i in range(0, 80, 2)}
    assert rounds == {("a", "b"), ("b", "a")}


def test_percentiles_are_samples_that_happened() -> None:
    latency = Latency(np.arange(1.0, 101.0))
    assert [latency.percentile(q) for q in (50, 90, 99)] == [50.0, 90.0, 99.0]


def test_a_clock_that_goes_backwards_is_refused() -> None:
    clock = Clock()
    with pytest.raises(RuntimeError, match="backwards by 1000000 ns while timing a"):
        measure({"a": lambda n: clock.work(-1)}, rounds=1, warmup=0, clock=clock)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        measure({}, rounds=1)


def test_cpu_features_of_both_architectures() -> None:
    assert cpu_features("flags\t: fpu avx2 avx_vnni")["AVX-VNNI"]
    assert cpu_features("Features\t: fp asimd asimddp")["dotprod"]
    assert not cpu_features("flags : avx2x")["AVX2"]


def test_environment_names_the_machine() -> None:
    assert environment()["cores"] >= 1
