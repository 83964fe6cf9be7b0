"""The quality table: every subject ranks the full catalogue for the same requests, and stands beside the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgerec.interactions import IntArray, Requests, Split
from edgerec.metrics import Scorer, ndcg, paired_bootstrap, rank, summarise, validation_ndcg

DEPTH = 20  # the deepest cut-off that a report may ask for


def evaluate(
    scorers: Mapping[str, Scorer], split: Split, ks: tuple[int, ...] = (10,)
) -> tuple[list[dict[str, Any]], dict[str, IntArray]]:
    """Score subjects on test, and choose the reference on validation NDCG at the first k.

    Returns:
        A row per subject (test metrics at each k, validation NDCG, paired difference to the best baseline), and the
        test rankings int32 [R, DEPTH] by name.
    """
    rankings = {name: rank(scorer, split.test, DEPTH, split.mask_seen) for name, scorer in scorers.items()}
    validation = {name: validation_ndcg(scorer, split, ks[0]) for name, scorer in scorers.items()}
    best = max(validation, key=lambda name: validation[name])
    rows = [
        {
            "name": name,
            "validation_ndcg": validation[name],
            "best_on_validation": name == best,
            "test": [summarise(ranked, split.test, split.warm, k) for k in ks],
            "ndcg_minus_best": compare(ranked, rankings[best], split.test, ks[0]),
        }
        for name, ranked in rankings.items()
    ]
    return rows, rankings


def sample(split: Split, users: int | None, seed: int = 0) -> Split:
    """Return a split whose validation and test keep so many random users each; all of them for None."""
    if users is None:
        return split

    def some(requests: Requests) -> Requests:
        order = np.random.default_rng(seed).permutation(len(requests))
        return requests.take(np.sort(order[:users]))

    return replace(split, validation=some(split.validation), test=some(split.test))


def compare(a: IntArray, b: IntArray, requests: Requests, k: int) -> dict[str, float]:
    """Return the paired difference in NDCG@k with its 95% interval."""
    return paired_bootstrap(ndcg(a, requests, k), ndcg(b, requests, k))


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table, at the first k."""
    k = rows[0]["test"][0]["k"]
    head = f"| | HR@{k} | NDCG@{k} (95% interval) | MRR@{k} | coverage | cold HR (n) | NDCG - best (95%) |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for row in rows:
        test, gap = row["test"][0], row["ndcg_minus_best"]
        interval = f"{test['ndcg']['mean']:.3f} ({test['ndcg']['low']:.3f}, {test['ndcg']['high']:.3f})"
        cold = "none" if test["cold_hr"] is None else f"{test['cold_hr']:.3f} ({test['cold_users']})"
        best = "best on validation" if row["best_on_validation"] else None
        delta = best or f"{gap['difference']:+.3f} ({gap['low']:+.3f}, {gap['high']:+.3f})"
        cells = [row["name"], f"{test['hr']['mean']:.3f}", interval, f"{test['mrr']['mean']:.3f}"]
        lines.append("| " + " | ".join([*cells, f"{test['coverage']:.2f}", cold, delta]) + " |")
    return "\n".join(lines)
