"""The quality table: every subject ranks the full catalogue for the same requests, and stands beside the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from edgerec.interactions import IntArray, Requests, Split
from edgerec.metrics import Scorer, ndcg, paired_bootstrap, rank, summarise

DEPTH = 20  # the deepest cut-off that a report may ask for


class Rankings(NamedTuple):
    """What one subject answers to the requests of a split: int32 [R, DEPTH] each, -1 where a list is shorter."""

    validation: IntArray
    test: IntArray


def answers(scorer: Scorer, split: Split) -> Rankings:
    """Return a scorer's rankings of the full catalogue."""
    parts = (split.validation, split.test)
    return Rankings(*(rank(scorer, requests, DEPTH, split.mask_seen) for requests in parts))


def evaluate(
    scorers: Mapping[str, Scorer],
    split: Split,
    ks: tuple[int, ...] = (10,),
    runs: Mapping[str, Rankings] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, IntArray]]:
    """Score subjects on test, and choose the reference on validation NDCG at the first k.

    Args:
        scorers: Subjects that are asked here.
        split: The requests.
        ks: Cut-offs, none above DEPTH.
        runs: Subjects that were asked elsewhere.

    Returns:
        A row per subject (test metrics at each k, validation NDCG, paired difference to the best on validation), and
        the test rankings int32 [R, DEPTH] by name.
    """
    subjects = {name: answers(scorer, split) for name, scorer in scorers.items()} | dict(runs or {})
    validation = {
        name: float(ndcg(ranked.validation, split.validation, ks[0]).mean()) for name, ranked in subjects.items()
    }
    best = max(validation, key=lambda name: validation[name])
    rows = [
        {
            "name": name,
            "validation_ndcg": validation[name],
            "best_on_validation": name == best,
            "test": [summarise(ranked.test, split.test, split.warm, k) for k in ks],
            "ndcg_minus_best": compare(ranked.test, subjects[best].test, split.test, ks[0]),
        }
        for name, ranked in subjects.items()
    ]
    return rows, {name: ranked.test for name, ranked in subjects.items()}


def sample(split: Split, users: int | None, seed: int = 0) -> Split:
    """Return a split whose validation and test keep so many random users each; all of them for None."""
    if users is None:
        return split
    return replace(split, validation=split.validation.sample(users, seed), test=split.test.sample(users, seed))


def compare(a: IntArray, b: IntArray, requests: Requests, k: int) -> dict[str, float]:
    """Return the paired difference in NDCG@k with its 95% interval."""
    return paired_bootstrap(ndcg(a, requests, k), ndcg(b, requests, k))


def report(result: Mapping[str, Any]) -> str:
    """Return the result of ``edgerec evaluate`` as Markdown."""
    asked = result["split"]
    of = "" if asked["test_users"] == asked["of_users"] else f" of {asked['of_users']}"
    masked = "seen items masked" if asked["seen_masked"] else "repeats unmasked"
    users = f"{asked['test_users']}{of} users"
    caption = f"{result['data']['name']}, {asked['kind']}, {users}, full catalogue of {asked['items']}, {masked}"
    return f"{caption}\n\n{table(result['rows'])}\n"


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
