"""What helps where data is scarce: changed histories, another catalogue's teacher, and yesterday's.

Two questions. A tenth of the users is all there is: what do augmentation and a start from another teacher bring? And a
day of log has come: what does yesterday's teacher, updated, lose against one trained anew, and what without the update?
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgerec.benchmarks.cells import Cell, Cells
from edgerec.benchmarks.quality import K, fact, interval, markdown, paired, ratio
from edgerec.distill import checkpoint
from edgerec.distill.evaluation import subjects
from edgerec.distill.histories import Augmentation
from edgerec.distill.teacher import options_from
from edgerec.export.cold_study import per_person
from edgerec.export.study import (
    Study,
    heading,
    seconds,
    setting,
    teacher,
    to_json,
    train_teacher,
)
from edgerec.interactions import Dataset, Requests
from edgerec.metrics import ndcg, rank
from edgerec.splits import split as divide
from edgerec.subsets import some_users, until

SHARE = 0.1  # of the users, where data is scarce
LATE = 0.05  # of the events, the last: the day that has come
AUGMENTED = {
    "default": Augmentation(),
    "mask": Augmentation(mask=0.2),
    "reorder": Augmentation(reorder=0.2),
    "mask-and-reorder": Augmentation(mask=0.2, reorder=0.2),
}
FROM_ANOTHER = "from-another-teacher"
REFERENCES = {"scarce": "default", "update": "trained-anew"}


def run_sparsity(study: Study, init: Path | None = None) -> dict[str, Any]:
    """Train, where they are not there, the teachers that both questions need.

    Args:
        study: An opened study; what was interrupted goes on in its folder.
        init: Folder of a teacher of another catalogue, to start from as well.

    Returns:
        A JSON value: rows ``scarce`` and ``update``, the latter None where the log has no clock.

    Raises:
        UsageError: ``init`` is no teacher, or a tenth of the users is nobody.
        DataError: A tenth of the users, or the log before its last events, leaves nothing to judge by.
        InterruptedTraining: Ctrl-C.
    """
    other = checkpoint.load(init) if init else None
    return {
        "schema": "edgerec-sparsity-1",
        **setting(study),
        "share": SHARE,
        "late": LATE,
        "init": other.info["data"] if other else None,
        "scarce": scarce(study, other),
        "update": update(study) if study.data.real_time else None,
    }


def scarce(study: Study, other: checkpoint.Checkpoint | None) -> list[dict[str, Any]]:
    """Return a row per way to train on few users; every seed takes others."""
    found = {}
    for name, augment in AUGMENTED.items():
        make = partial(scarce_cell, study, name, augment, None)
        found[name] = cells(study, name, {"share": SHARE, "augment": asdict(augment)}, make)
    if other:
        make = partial(scarce_cell, study, FROM_ANOTHER, AUGMENTED["default"], other)
        found[FROM_ANOTHER] = cells(study, FROM_ANOTHER, {"share": SHARE, "init": other.info}, make)
    return rows(found, REFERENCES["scarce"])


def scarce_cell(study: Study, name: str, augment: Augmentation, init: checkpoint.Checkpoint | None, seed: int) -> Cell:
    """Train on some users and ask about them."""
    few = some_users(study.data, SHARE, seed)
    split = divide(few, study.split.name)
    options = options_from(init, few, study.plan.teacher) if init else study.plan.teacher
    options = replace(options, stage_1=replace(options.stage_1, augment=augment))
    model = train_teacher(study, few, split, seed, home(study, name) / f"seed-{seed}", options, init)
    return answered(model, split.test, split.mask_seen)


def update(study: Study) -> list[dict[str, Any]]:
    """Return a row per way to meet the day that has come, asked about the users whom yesterday's log knew."""
    known = np.isin(study.split.test.users, before(study).users)
    requests = study.split.test.take(np.flatnonzero(known))

    def make(way: Way, seed: int) -> Cell:
        return answered(way(study, seed), requests, study.split.mask_seen)

    found = {name: cells(study, name, {"late": LATE}, partial(make, way)) for name, way in WAYS.items()}
    return rows(found, REFERENCES["update"])


def before(study: Study) -> Dataset:
    """Return yesterday's log."""
    return until(study.data, float(np.quantile(study.data.timestamps, 1 - LATE, method="higher")))


def yesterday(study: Study, seed: int) -> checkpoint.Checkpoint:
    """Return the teacher of yesterday's log, from which that log's own last steps were held out, as ever."""
    log = before(study)
    folder = home(study, "left-alone") / f"seed-{seed}"
    return train_teacher(study, log, divide(log, study.split.name), seed, folder)


def updated(study: Study, seed: int) -> checkpoint.Checkpoint:
    """Return yesterday's teacher after a short training on the whole log."""
    init, folder = yesterday(study, seed), home(study, "updated") / f"seed-{seed}"
    options = options_from(init, study.data, study.plan.teacher)
    return train_teacher(study, study.data, study.split, seed, folder, options, init)


Way = Callable[[Study, int], checkpoint.Checkpoint]
WAYS: dict[str, Way] = {"trained-anew": teacher, "updated": updated, "left-alone": yesterday}


def home(study: Study, name: str) -> Path:
    """Return the folder of a way's models and cells."""
    return study.folder / "sparsity" / name


def cells(study: Study, name: str, identity: Mapping[str, Any], make: Callable[[int], Cell]) -> list[Cell]:
    """Return a way's cells, one per seed, made where they are not there."""
    kept = Cells(home(study, name), to_json(identity))
    return [kept.get(str(seed), partial(make, seed)) for seed in range(study.plan.seeds)]


def answered(model: checkpoint.Checkpoint, requests: Requests, mask_seen: bool) -> Cell:
    """Return a teacher's NDCG@10 per user, and what it took to train."""
    ranked = rank(subjects(model)["teacher"], requests, K, mask_seen)
    return Cell({"users": requests.users, "ndcg": ndcg(ranked, requests, K)}, {"seconds": seconds(model.folder)})


def rows(found: Mapping[str, Sequence[Cell]], reference: str) -> list[dict[str, Any]]:
    """Return a row per way: NDCG@10 over users, each averaged over the seeds that asked them, against the reference."""
    values = {
        name: per_person([(cell.arrays["users"], cell.arrays["ndcg"]) for cell in of]) for name, of in found.items()
    }
    return [
        {
            "name": name,
            "seeds": len(of),
            "users": len(values[name]),
            "ndcg10": interval(values[name]),
            "by_seed": [float(cell.arrays["ndcg"].mean()) for cell in of],
            "against_reference": paired(values[name], values[reference]),
            "facts": [cell.facts for cell in of],
        }
        for name, of in found.items()
    ]


def report(result: Mapping[str, Any]) -> str:
    """Return both questions as Markdown."""
    started = f" Another teacher: of {result['init']['name']}." if result["init"] else ""
    few = (
        f"Teachers of {result['share']:.0%} of the users, others with every seed, asked about these.{started} NDCG@10."
    )
    parts = [heading(result), few, table(result["scarce"], REFERENCES["scarce"])]
    if result["update"] is None:
        parts.append("The log has no clock: no day that has come.")
    else:
        parts.append(
            f"Yesterday's log ends before the last {result['late']:.0%} of the events. Asked about the users of "
            "yesterday, with the whole log's histories. NDCG@10."
        )
        parts.append(table(result["update"], REFERENCES["update"]))
    return "\n\n".join(parts) + "\n"


def table(found: Sequence[Mapping[str, Any]], reference: str) -> str:
    """Return the rows as a Markdown table."""
    head = ["", "seeds", "users", "NDCG (95%)", f"of {reference} (95%)", "seconds"]
    lines = []
    for row in found:
        shown = [row["name"], str(row["seeds"]), str(row["users"])]
        shown.append("{mean:.4f} ({low:.4f}, {high:.4f})".format(**row["ndcg10"]))
        shown.append(reference if row["name"] == reference else ratio(row["against_reference"]))
        lines.append([*shown, fact(row["facts"], "seconds")])
    return markdown(head, lines)
