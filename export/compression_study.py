"""What each precision of the text encoder costs and brings: the referee's candidates for a study's own students.

Verdicts are of validation, as ``edgerec quantize`` gives them; what is reported of quality is of test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgerec.benchmarks.cells import Arrays, Cell, Cells
from edgerec.benchmarks.quality import K, markdown
from edgerec.distill.checkpoint import Checkpoint
from edgerec.distill.quantization_aware import OPTIONS, quantization_aware
from edgerec.distill.student import StudentEncoder, load
from edgerec.export import PRECISIONS
from edgerec.export.package import draft
from edgerec.export.quantization import CANDIDATES
from edgerec.export.referee import Terms, judged
from edgerec.export.referee_report import share
from edgerec.export.study import Study, heading, once, setting, student, teacher
from edgerec.export.trials import REFERENCE, ROUNDS, WAYS, Bench, against, ask, make_trials, table_report
from edgerec.metrics import ndcg

TERMS = Terms()
KINDS = ("encode_one", "encode_batch", "recommend")


def run_compression(study: Study) -> dict[str, Any]:
    """Measure every precision of every student of a study, trained where it is not there.

    Args:
        study: An opened study; what was interrupted goes on in its folder.

    Returns:
        A JSON value: for each of the plan's presets a row per candidate.

    Raises:
        UsageError: This part's folder holds one of other settings.
        InterruptedTraining: Ctrl-C.
    """
    here = [name for name in PRECISIONS if CANDIDATES[name].unavailable() is None]
    home = study.folder / "compression" / f"{len(here)}-candidates-with-qat"  # with one more, all are measured anew
    cells = Cells(home, {"candidates": here, "budget": TERMS.budget, "qat_steps": OPTIONS.steps})
    found = {}
    for preset in study.plan.presets:
        names = [
            (f"{preset}-{seed}", partial(compression_cell, study, preset, seed)) for seed in range(study.plan.seeds)
        ]
        made = [cells.get(name, make) for name, make in names]
        found[preset] = {"rows": rows(made), "tables": [cell.facts["tables"] for cell in made]}
    return {
        "schema": "edgerec-compression-1",
        **setting(study),
        "budget": TERMS.budget,
        "rounds": dict(ROUNDS),
        "presets": found,
    }


def compression_cell(study: Study, preset: str, seed: int) -> Cell:
    """Return each candidate's NDCG@10 per user of test, by way, and what the referee said of it on validation."""
    trained = student(study, seed, preset)
    qat = trained_for_int8(study, trained, preset, seed)
    bench = Bench(draft(trained), study.data, study.split.validation, study.split.mask_seen)
    asked = replace(bench, requests=study.split.test)

    def say(name: str) -> None:
        study.say(f"{preset}-{seed} {name}")

    with TemporaryDirectory() as folder:
        trials = make_trials(bench, TERMS.names, Path(folder), seed, say, draft(qat) if qat else None)
        verdicts = judged(bench, trials, TERMS.budget)
        arrays: Arrays = {}
        for name, trial in trials.made.items():
            lists = ask(asked, trial).lists
            arrays |= {f"{way}/{name}": ndcg(lists[way], asked.requests, K) for way in WAYS}
    return Cell(arrays, {"rows": verdicts, "tables": table_report(asked)})


def trained_for_int8(study: Study, trained: Checkpoint, preset: str, seed: int) -> Checkpoint | None:
    """Return what ``edgerec qat`` makes of a student by default, made where it is not there; None of a static one."""
    if not isinstance(load(trained.encoder)[0], StudentEncoder):
        return None
    folder, options = study.folder / "compression" / "qat" / f"{preset}-{seed}", replace(OPTIONS, seed=seed)
    of = teacher(study, seed)
    work = partial(quantization_aware, trained, of, study.data, study.split, folder, options, resume=True)
    return once(study, folder, work)


def rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return a row per candidate: test NDCG@10 over users, averaged over seeds, against fp32, and the verdicts."""
    found = []
    for verdict in cells[0].facts["rows"]:
        name = verdict["name"]
        seeds = [next(row for row in cell.facts["rows"] if row["name"] == name) for cell in cells]
        row = {"name": name, "kept": [one["kept"] for one in seeds], "reasons": [one["reasons"] for one in seeds]}
        if all("bytes" in one for one in seeds):
            for way in WAYS:
                values, fp32 = (np.mean([c.arrays[f"{way}/{of}"] for c in cells], axis=0) for of in (name, REFERENCE))
                row[way] = against(values, fp32)
            row |= {key: [one[key] for one in seeds] for key in ("bytes", "top10_overlap", "times")}
        found.append(row)
    return found


def report(result: Mapping[str, Any]) -> str:
    """Return the part as Markdown: a table per preset, then why candidates were refused."""
    rounds = result["rounds"]
    intro = (
        f"{heading(result)} NDCG@10 on test as a share of fp32's, paired 95% interval over users; overlap of the "
        f"re-encoded top 10 with fp32's, and that of searches, on validation. p50 in ms of {rounds['encode_one']} "
        f"calls (one title), {rounds['encode_batch']} (32 titles) and {rounds['recommend']} (recommend), interleaved, "
        f"1 thread. Kept: a lower end on validation within {result['budget']:.0%} of fp32's NDCG@10."
    )
    parts = [intro]
    for preset, found in result["presets"].items():
        parts += [f"{preset}:", table(found["rows"]), *refusals(found["rows"]), table_lines(found["tables"])]
    return "\n\n".join(parts) + "\n"


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the candidates of a preset as a Markdown table."""
    head = ["", "bytes", *(f"{way} (95%)" for way in WAYS), "overlap", "search", "one title", "32 titles", "recommend"]
    return markdown([*head, "kept, of seeds"], [cells_of(row) for row in found])


def cells_of(row: Mapping[str, Any]) -> list[str]:
    """Return a candidate's cells, means over seeds."""
    kept = f"{sum(row['kept'])} of {len(row['kept'])}"
    if "bytes" not in row:
        return [row["name"], *[""] * (6 + len(WAYS)), kept]
    near = [np.mean([one[of]["mean"] for one in row["top10_overlap"]]) for of in ("re-encoded", "search")]
    clock = [np.mean([one[kind]["p50_ms"] for one in row["times"]]) for kind in KINDS]
    cells = [row["name"], f"{np.mean(row['bytes']):,.0f}", *(share(row[way]) for way in WAYS)]
    return [*cells, *(f"{one:.3f}" for one in near), *(f"{one:.2f}" for one in clock), kept]


def refusals(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a paragraph of the reasons, one line per candidate that some seed refused."""
    lines = []
    for row in found:
        reasons = dict.fromkeys(reason for one in row["reasons"] for reason in one)
        if reasons:
            lines.append(f"- {row['name']}: {'; '.join(reasons)}")
    return ["Refused:", "\n".join(lines)] if lines else []


def table_lines(found: Sequence[Mapping[str, Any]]) -> str:
    """Return what rounding the item tables costs on test, a line per way to round and seed."""
    lines = [
        f"- INT8 item tables, {name}, seed {seed}: {share(one[name])} of fp32 tables' NDCG@10, "
        f"overlap {one[name]['top10_overlap']['mean']:.3f}"
        for name in ("plain", "compensated")
        for seed, one in enumerate(found)
    ]
    return "\n".join(lines)
