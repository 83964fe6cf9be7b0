"""A study's table: every subject over its seeds, with intervals over users, against the best baseline and the teacher.

A user's metrics are averaged over a subject's seeds first, so that intervals say how the answer depends on who was
asked; the spread over seeds stands beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerec.benchmarks.evaluate import Rankings
from edgerec.interactions import FloatArray, IntArray, Split
from edgerec.metrics import METRICS, bootstrap, cold_hr, coverage, per_user

KS = (5, 10, 20)
K = 10  # of what is compared
KINDS = ("baseline", "peer", "teacher", "student", "control")
DETECTABLE = 1.96 + 0.84  # standard errors that a two-sided 5% test finds four times in five (Cohen 1988)
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Subject:
    """What was ranked: ``rankings`` and ``facts`` hold one entry per seed, a single one where no seed enters."""

    name: str
    kind: str  # one of KINDS
    rankings: list[Rankings] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)


def mean_metrics(subject: Subject, split: Split, k: int) -> dict[str, Values]:
    """Return each user's test metrics at k, averaged over seeds, float64 [R] by name."""
    found = [per_user(one.test, split.test.targets, k) for one in subject.rankings]
    return {name: np.mean([values[name] for values in found], axis=0) for name in METRICS}


def validation_ndcg(subject: Subject, split: Split) -> float:
    """Return NDCG@10 on validation, averaged over seeds."""
    found = [per_user(one.validation, split.validation.targets, K)["ndcg"].mean() for one in subject.rankings]
    return float(np.mean(found))


def interval(values: Values) -> dict[str, float]:
    """Return the mean of values over users with its 95% interval."""
    low, high = bootstrap(values)
    return {"mean": float(values.mean()), "low": low, "high": high}


def paired(a: Values, b: Values, draws: int = 2000, seed: int = 0) -> dict[str, float]:
    """Compare two subjects on the same users.

    Returns:
        ``difference`` a - b and ``ratio`` a / b of the means, each with ``_low`` and ``_high`` of a percentile
        bootstrap over users, and ``detectable``: the smallest difference that as many users could show.
    """
    rng = np.random.default_rng(seed)
    users = rng.integers(0, len(a), (draws, len(a)), dtype=np.int32)
    means = np.array([(a[row].mean(), b[row].mean()) for row in users])
    ratio = means[:, 0] / np.maximum(means[:, 1], 1e-12)
    difference = means[:, 0] - means[:, 1]
    found = {"difference": float((a - b).mean()), "ratio": float(a.mean() / max(b.mean(), 1e-12))}
    for name, values in (("difference", difference), ("ratio", ratio)):
        found[f"{name}_low"], found[f"{name}_high"] = (float(one) for one in np.percentile(values, [2.5, 97.5]))
    return {**found, "detectable": float(DETECTABLE * (a - b).std() / np.sqrt(len(a)))}


def diversity(ranked: IntArray, text_vectors: FloatArray) -> float:
    """Return 1 minus the mean cosine of two items of a list (intra-list diversity; Ziegler et al. 2005).

    Args:
        ranked: int32 [R, k]; lists of fewer than two items are left out.
        text_vectors: float32 [n_items, T], rows of length 1.
    """
    found = []
    for line in ranked:
        listed = text_vectors[line[line >= 0]]
        if len(listed) > 1:
            pairs = len(listed) * (len(listed) - 1)
            found.append(1 - (float(np.square(listed.sum(0)).sum()) - len(listed)) / pairs)
    return float(np.mean(found)) if found else 0.0


def best_baseline(subjects: Sequence[Subject], split: Split) -> str:
    """Return the name of the baseline or peer that is best on validation."""
    known = [one for one in subjects if one.kind in ("baseline", "peer")]
    return max(known, key=lambda one: validation_ndcg(one, split)).name


def rows(subjects: Sequence[Subject], split: Split, text_vectors: FloatArray) -> list[dict[str, Any]]:
    """Return a row per subject, for JSON and for ``table``."""
    best, users = best_baseline(subjects, split), {one.name: mean_metrics(one, split, K)["ndcg"] for one in subjects}
    found = []
    for subject in subjects:
        lists = [one.test[:, :K] for one in subject.rankings]
        cold = [cold_hr(one, split.test.targets, split.warm, K) for one in lists]
        row: dict[str, Any] = {
            "name": subject.name,
            "kind": subject.kind,
            "seeds": len(subject.rankings),
            "validation_ndcg10": validation_ndcg(subject, split),
            "best_baseline": subject.name == best,
            "test": {
                str(k): {name: interval(values) for name, values in mean_metrics(subject, split, k).items()} for k in KS
            },
            "test_ndcg10_by_seed": [
                float(per_user(one.test, split.test.targets, K)["ndcg"].mean()) for one in subject.rankings
            ],
            "coverage10": float(np.mean([coverage(one, split.n_items) for one in lists])),
            "diversity10": float(np.mean([diversity(one, text_vectors) for one in lists])),
            "cold_hr10": None if cold[0][0] is None else float(np.mean([one for one, _ in cold if one is not None])),
            "cold_users": cold[0][1],
            "against_best_baseline": paired(users[subject.name], users[best]),
            "facts": subject.facts,
        }
        if "teacher" in users:
            row["against_teacher"] = paired(users[subject.name], users["teacher"])
        found.append(row)
    return found


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table at k = 10."""
    head = ["", "seeds", "HR", "NDCG (95% interval)", "MRR", "coverage", "diversity", "cold HR (n)"]
    head += ["NDCG / best baseline (95%)", "NDCG / teacher (95%)", "cosine, unseen titles"]
    head += ["parameters", "bytes", "seconds"]
    return markdown(head, [cells(row) for row in found])


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return cells as a Markdown table."""
    first, *rest = ["| " + " | ".join(line) + " |" for line in (head, *lines)]
    return "\n".join([first, "|---" * len(head) + "|", *rest])


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return a row's cells."""
    at, ndcg = row["test"][str(K)], row["test"][str(K)]["ndcg"]
    cold = "none" if row["cold_hr10"] is None else f"{row['cold_hr10']:.3f} ({row['cold_users']})"
    near = fact(row["facts"], "cosine_unseen", ".3f")
    facts = [near, *(fact(row["facts"], name) for name in ("parameters", "bytes", "seconds"))]
    return [
        row["name"],
        str(row["seeds"]),
        f"{at['hr']['mean']:.3f}",
        f"{ndcg['mean']:.4f} ({ndcg['low']:.4f}, {ndcg['high']:.4f})",
        f"{at['mrr']['mean']:.3f}",
        f"{row['coverage10']:.2f}",
        f"{row['diversity10']:.2f}",
        cold,
        "best baseline" if row["best_baseline"] else ratio(row["against_best_baseline"]),
        "teacher" if row["name"] == "teacher" else ratio(row.get("against_teacher")),
        *facts,
    ]


def ratio(found: Mapping[str, float] | None) -> str:
    """Return a ratio with its interval in per cent."""
    return f"{found['ratio']:.1%} ({found['ratio_low']:.1%}, {found['ratio_high']:.1%})" if found else ""


def fact(facts: Sequence[Mapping[str, Any]], name: str, form: str = ",.0f") -> str:
    """Return the mean of a number over seeds, as people write it; nothing where it was not said."""
    said = [one[name] for one in facts if one.get(name) is not None]
    return format(np.mean(said), form) if said else ""


def summary(results: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Return a line per planned study, by the name of its result; None where the data were not at hand."""
    head = ["", "users", "seeds", "best baseline", "NDCG@10", "teacher / best baseline (95%)"]
    head += ["tiny, shipped / teacher", "tiny, re-encoded / teacher", "static, re-encoded / teacher"]
    head += ["new items: tiny / zero-shot, among themselves", "among all"]
    lines = []
    for name, result in results.items():
        line = (
            ["no result: data not at hand, or not run", *[""] * (len(head) - 2)]
            if result is None
            else summary_cells(result)
        )
        lines.append([name, *line])
    return markdown(head, lines)


def summary_cells(result: Mapping[str, Any]) -> list[str]:
    """Return a study's cells of the summary; "not measured" where it lacks a subject."""
    found = {row["name"]: row for row in result["rows"]}
    best = next(row for row in result["rows"] if row["best_baseline"])
    cold: Mapping[str, Any] = next((row for row in result["cold"] if row["name"].startswith("tiny")), {})
    students = [found.get(name, {}) for name in ("tiny, shipped", "tiny, re-encoded", "static, re-encoded")]
    ratios = [found["teacher"]["against_best_baseline"], *(one.get("against_teacher") for one in students)]
    ratios += [cold.get(f"{way}_against_zero_shot") for way in ("hidden", "all")]
    ndcg = f"{best['test'][str(K)]['ndcg']['mean']:.4f}"
    users = str(result["split"]["test_users"])
    return [users, str(result["seeds"]), best["name"], ndcg, *(ratio(one) or "not measured" for one in ratios)]
