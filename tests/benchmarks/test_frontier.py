"""A subject is a point where its NDCG@10 and its cost are known."""

from __future__ import annotations

from typing import Any

from edgerec.benchmarks.frontier import frontiers

LOOKS = {"a": {"colour": "#111", "dash": ""}, "<b>": {"colour": "#222", "dash": "7 3"}}


def result(joules: float | None) -> dict[str, Any]:
    """Return two subjects, the second twice as large, slow and good."""
    cells, rows = [], []
    for times, name in enumerate(LOOKS, 1):
        same = {"subject": name, "kind": "recommend"}
        run = {"energy": {"net_joules_per_sample": joules and times * joules}}
        clock = {"p50": {"value": 0.1 * times}}
        cells.append({**same, "scenario": "single-stream", "status": "measured", "latency_ms": clock, "runs": [run]})
        ndcg = {"mean": 0.1 * times, "low": 0.09 * times, "high": 0.11 * times}
        rows.append({**same, "quality": {"ndcg": ndcg}, "bytes": times * 1_000_000})
    return {"cells": cells, "accuracy": rows}


def test_each_cost_that_is_known_has_a_drawing_with_every_subject() -> None:
    assert [one.title for one in frontiers(result(0.002), LOOKS)] == [
        f"recommend: NDCG@10 against {cost}" for cost in ("p50", "file", "net energy")
    ]
    (_, clock, names), (_, size, _) = frontiers(result(None), LOOKS)  # no sensor, no energy
    assert clock.count("<circle") == size.count("<circle") == 2 and names == list(LOOKS)
    assert 'stroke-dasharray="7 3"' in clock  # told apart without colours too
    assert "&lt;b&gt;: 0.2000 (0.1800, 0.2200) at 2<" in size and "<b>" not in size


def test_one_subject_alone_is_no_frontier_and_one_without_quality_no_point() -> None:
    made = result(0.002)
    made["accuracy"][0]["quality"] = None
    assert frontiers(made, LOOKS) == []
