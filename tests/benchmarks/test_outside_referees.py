"""What the referees are set against, and what is said of it."""

from __future__ import annotations

import json

import numpy as np

import pytest

from edgerec.benchmarks.referee import SAME_WORK, over, report
from edgerec.benchmarks.run_bench import RESULTS


def test_a_slow_spell_that_meets_both_sides_does_not_move_the_ratio() -> None:
    rng = np.random.default_rng(0)
    speed = rng.choice([1.0, 2.0], 60)  # of the machine in each round
    ours, theirs = 1.02 * speed, speed * rng.normal(1, 0.01, 60)
    found = over(ours.tolist(), theirs.tolist())
    assert found["ratio"] == pytest.approx(1.02, abs=0.005) and found["agrees"]
    assert found["low"] < 1.02 < found["high"] and found["high"] - found["low"] < 0.02
    assert not over((1.1 * ours).tolist(), theirs.tolist())["agrees"]


def test_the_committed_agreement_prints_its_table() -> None:
    path = RESULTS / "bench-referee.json"
    result = json.loads(path.read_text("utf-8"))
    assert path.with_suffix(".md").read_text("utf-8") == report(result)
    for name, found in result["harness_over"].items():
        assert found == over(result["p50_ms"][SAME_WORK[name]], result["p50_ms"][name])
