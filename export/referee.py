"""``edgerec quantize``: of all precisions the one that ships, chosen by what was measured on this machine.

Kept is a candidate whose NDCG@10 on validation, shipped and re-encoded, is within the budget at the lower end of its
paired 95% interval. Of the kept ones the goal decides: ``latency`` takes the lowest p50 of encoding one title, ``size``
the fewest bytes, ``balanced`` the lowest geometric mean of both, each over fp32's. The first in that order whose ranks
do not depend on how onnxruntime multiplies bytes is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgerec.benchmarks.environment import environment, has_vnni, read_cpuinfo
from edgerec.benchmarks.quality import K
from edgerec.distill.checkpoint import Checkpoint, load
from edgerec.errors import EdgerecError, UsageError
from edgerec.export import GOALS, PRECISIONS
from edgerec.export.package import draft, write
from edgerec.export.rounded_graph import saturates
from edgerec.export.trials import (
    REFERENCE,
    WAYS,
    Bench,
    Say,
    Trial,
    Trials,
    agreement,
    ask,
    make_trials,
    quality,
    queries,
    reencoded,
    search_table,
    table_report,
    times,
)
from edgerec.interactions import Dataset, FloatArray, Split
from edgerec.metrics import top_k
from edgerec.runtime.engine import EXACT
from edgerec.runtime.text import EIGHT_BITS, TextEncoder

TIE = 1e-5  # of the largest score: what float32 sums in another order may differ by
ASKED = 256  # requests whose ranks are compared

Row = dict[str, Any]  # what is said of a candidate: a JSON value


class NothingKept(EdgerecError):
    """No candidate is within the budget; nothing was written."""


@dataclass(frozen=True)
class Terms:
    """By what is chosen.

    Attributes:
        names: The candidates; fp32 is one in any case.
        budget: The share of fp32's NDCG@10 that may be lost.
        goal: One of ``GOALS``.
        seed: Of the calibration's draw.

    Raises:
        UsageError: A candidate or goal is unknown, or the budget is negative.
    """

    names: Sequence[str] = PRECISIONS
    budget: float = 0.01
    goal: str = GOALS[0]
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := [name for name in self.names if name not in PRECISIONS]:
            raise UsageError(f"got the candidate {unknown[0]!r}; expected some of {', '.join(PRECISIONS)}")
        if self.goal not in GOALS:
            raise UsageError(f"got the goal {self.goal!r}; expected one of {', '.join(GOALS)}")
        if not 0 <= self.budget < 1:
            raise UsageError(f"got a budget of {self.budget}; expected a share of NDCG@10 from 0 to below 1")


def open_model(folder: Path) -> Checkpoint:
    """Read a model folder.

    Raises:
        UsageError: It is a file, such as a bundle, whose graphs are rounded already.
        DataError: It is no model folder.
    """
    if folder.is_file():
        raise UsageError(f"{folder} is a file; expected a student or teacher folder: what is packed is rounded already")
    return load(folder)


def quantize(
    checkpoint: Checkpoint,
    data: Dataset,
    split: Split,
    out: Path,
    terms: Terms,
    say: Say,
    qat: Checkpoint | None = None,
) -> Row:
    """Measure every candidate, and write the file of the best.

    Args:
        checkpoint: A student or a teacher.
        data: What it was made from.
        split: Of it; validation is what is asked.
        out: The file, whole or not at all.
        terms: By what is chosen.
        say: Takes the name of each candidate as it is made.
        qat: What ``edgerec qat`` made of the model; the candidate of that name.

    Returns:
        A JSON value: ``chosen``, ``reason``, ``rows`` (one per candidate), ``tables``, and on what all this ran. The
        file's manifest holds it as ``selection``, without what depends on the clock where the goal is ``size``.

    Raises:
        UsageError: A model was made from other data, or ``qat`` has no quantizers.
        NothingKept: No candidate is within the budget.
    """
    checkpoint.require_data(data)
    if qat:
        qat.require_data(data)
    if qat and "quantization" not in qat.info:
        raise UsageError(f"{qat.folder} has no quantizers; expected a folder that `edgerec qat` wrote")
    bench = Bench(draft(checkpoint), data, split.validation, split.mask_seen)
    with TemporaryDirectory() as folder:
        trials = make_trials(bench, terms.names, Path(folder), terms.seed, say, draft(qat) if qat else None)
        rows = judged(bench, trials, terms.budget)
        chosen, reason = choose(bench, trials, rows, terms)
        report = {**statement(bench, terms, rows), "chosen": chosen, "reason": reason}
        best = trials.made[chosen]
    selection = without_clock(report) if terms.goal == "size" else report
    written = write(best.prepared, chosen, best.graph, out, {"selection": selection})
    return {**report, "written": {"bytes": written["bytes"], "parity": written["parity"]}, "environment": environment()}


def statement(bench: Bench, terms: Terms, rows: Sequence[Row]) -> Row:
    """Return what the manifest says of a selection, without its outcome."""
    return {
        "schema": "edgerec-selection-1",
        "goal": terms.goal,
        "budget": terms.budget,
        "calibration": bench.prepared.calibration(terms.seed).record,
        "validation_requests": len(bench.requests),
        "has_vnni": has_vnni(read_cpuinfo()),
        "tables": table_report(bench),
        "rows": list(rows),
    }


def without_clock(report: Row) -> Row:
    """Return a report without what another run, or another machine, would say otherwise."""
    rows = [{key: value for key, value in row.items() if key != "times"} for row in report["rows"]]
    return {**{key: value for key, value in report.items() if key != "has_vnni"}, "rows": rows}


def judged(bench: Bench, trials: Trials, budget: float) -> list[Row]:
    """Return a row per candidate: what was measured, ``kept`` and ``reasons``; only those for one that was not made."""
    wanted, clock = ask(bench, trials.made[REFERENCE]), times(bench, trials)
    rows: list[Row] = []
    for name, trial in trials.made.items():
        got = ask(bench, trial)
        found = quality(bench, got, wanted)
        reasons = faults(found, budget)
        if trial.name not in EIGHT_BITS and saturates(trial.graph):
            reasons.append("u8s8 products with weights beyond 64 saturate on x86 without VNNI")
        rows.append(
            {
                "name": name,
                "bytes": trial.bytes,
                "encoder_bytes": len(trial.graph),
                "ndcg10": found,
                "top10_overlap": agreement(bench, got, wanted),
                "times": clock[name],
                "kept": not reasons,
                "reasons": reasons,
            }
        )
    return rows + [{"name": name, "kept": False, "reasons": [why]} for name, why in trials.refused.items()]


def faults(found: Mapping[str, Mapping[str, float]], budget: float) -> list[str]:
    """Return a phrase for each way in which a candidate may lose more than the budget."""
    return [
        f"{way} NDCG@10 may be as low as {found[way]['low']:.1%} of fp32's; the budget is {1 - budget:.1%}"
        for way in WAYS
        if not found[way]["low"] >= 1 - budget  # also where it is not a number
    ]


def choose(bench: Bench, trials: Trials, rows: Sequence[Row], terms: Terms) -> tuple[str, str]:
    """Return the best candidate and why; what comes before it and ranks otherwise elsewhere is refused in its row.

    Raises:
        NothingKept: None is left.
    """
    fp32 = rows[0]
    order = sorted((row for row in rows if row["kept"]), key=lambda row: (worth(row, fp32, terms.goal), row["bytes"]))
    for row in order:
        if fault := rank_fault(bench, trials.made[row["name"]]):
            row["kept"], row["reasons"] = False, [fault]
            continue
        kept = sum(one["kept"] for one in rows)
        best = {"size": "smallest", "latency": "fastest", "balanced": "smallest for its speed"}[terms.goal]
        return row[
            "name"
        ], f"{best} of {kept} within {terms.budget:.1%} of fp32's NDCG@10; {compared(row, fp32, terms.goal)}"
    reasons = "; ".join(f"{row['name']}: {row['reasons'][0]}" for row in rows if "bytes" in row)
    raise NothingKept(f"no candidate is within the budget, nothing was written ({reasons}); raise --budget")


def worth(row: Row, fp32: Row, goal: str) -> float:
    """Return what a goal ranks by, the lower the better."""
    size, clock = row["bytes"] / fp32["bytes"], p50(row) / p50(fp32)
    return {"size": size, "latency": clock, "balanced": math.sqrt(size * clock)}[goal]


def p50(row: Row) -> float:
    """Return a candidate's milliseconds for one title."""
    return float(row["times"]["encode_one"]["p50_ms"])


def compared(row: Row, fp32: Row, goal: str) -> str:
    """Return how a candidate compares with fp32, in bytes and, unless bytes alone decide, in time."""
    size = f"{row['bytes'] / fp32['bytes']:.2f} times fp32's bytes"
    return size if goal == "size" else f"{size} and {p50(row) / p50(fp32):.2f} times its milliseconds for one title"


def rank_fault(bench: Bench, trial: Trial) -> str | None:
    """Return where ranks differ, beyond ties, once bytes are multiplied without saturation; None where they agree."""
    recommender = trial.recommender
    exact = TextEncoder(recommender.bundle, recommender.contents.model, 1, EXACT)
    found = [queries(one, bench.titles) @ search_table(trial).T for one in (recommender.encoder, exact)]
    if place := disagreement(*found):
        return f"without saturation, a search for {bench.titles[place[0]]!r} differs at place {place[1] + 1}"
    requests = bench.requests.sample(ASKED)
    found = [reencoded(trial.prepared, one).score(requests) for one in (recommender.encoder, exact)]
    if place := disagreement(*found):
        user = bench.data.user_ids[int(requests.users[place[0]])]
        return f"without saturation, the re-encoded answer to user {user!r} differs at place {place[1] + 1}"
    return None


def disagreement(a: FloatArray, b: FloatArray) -> tuple[int, int] | None:
    """Return the first line and place at which the ten best of scores [R, N] differ, ties aside; None without one."""
    tie = TIE * max(float(np.abs(a).max(initial=0)), 1e-12)
    ours, theirs = top_k(a, K), top_k(b, K)
    for line, (one, two) in enumerate(zip(ours, theirs, strict=True)):
        gaps = np.abs(a[line, one] - a[line, two])
        if (gaps > tie).any():
            return line, int(np.argmax(gaps > tie))
    return None
