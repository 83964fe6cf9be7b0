"""What pruning brings: a teacher cut down, beside the same size distilled as by default, and trained from scratch.

All start from a study's own teachers. The student that is pruned down to the first preset's sizes keeps as many tokens
as the preset's own has, so that the three of a size have the same parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgerec.benchmarks.cells import Cell, Cells
from edgerec.benchmarks.quality import K, fact, interval, markdown, paired, ratio
from edgerec.distill import checkpoint
from edgerec.distill import student as students
from edgerec.distill.compress import distill_checkpoint
from edgerec.distill.distillation import RECIPE
from edgerec.distill.evaluation import subjects
from edgerec.distill.options import TrainOptions
from edgerec.distill.prune import RECOVERY, described, opened, plan_of, prune_checkpoint
from edgerec.distill.pruning_steps import Cut
from edgerec.distill.shapes import Shape
from edgerec.distill.sizing import Sizes, Target
from edgerec.distill.text_encoder import text_tokenizer
from edgerec.export.package import package
from edgerec.export.study import (
    PRECISION,
    Study,
    heading,
    once,
    seconds,
    setting,
    student,
    teacher,
    to_json,
)
from edgerec.metrics import ndcg, rank

HALF = 0.5  # of the teacher's FLOPs
RECOVERIES = 3  # of a student that is pruned in every way: together they take as many steps as one distillation


@dataclass(frozen=True)
class Training:
    """How the students of a study's pruning are trained, but for their seed."""

    distillation: TrainOptions
    recovery: TrainOptions


Row = Callable[[Study, int, Training], checkpoint.Checkpoint]


def run_pruning(study: Study, steps: int | None = None) -> dict[str, Any]:
    """Train, where they are not there, a study's teachers and the students of every row.

    Args:
        study: An opened study, whose first preset has layers; what was interrupted goes on in its folder.
        steps: Of a distillation, and of the recoveries of a student together; None for the plan's.

    Returns:
        A JSON value with a row for the teacher and for each way to a student.

    Raises:
        UsageError: This part's folder holds one of other settings.
        InterruptedTraining: Ctrl-C.
    """
    distillation = replace(study.plan.student, steps=steps or study.plan.student.steps)
    recovery = replace(distillation, steps=-(-distillation.steps // RECOVERIES), learning_rate=RECOVERY.learning_rate)
    training, made = Training(distillation, recovery), dict[str, list[Cell]]()
    for seed in range(study.plan.seeds):
        for name, row in ROWS.items():
            cells = Cells(home(study, training, name), to_json(asdict(training)))
            made.setdefault(name, []).append(cells.get(str(seed), partial(cell, study, name, row, seed, training)))
    return {
        "schema": "edgerec-pruning-1",
        **setting(study),
        "preset": study.plan.presets[0],
        "steps": distillation.steps,
        "rows": rows(made),
    }


def half(study: Study, seed: int, training: Training) -> checkpoint.Checkpoint:
    """Return the teacher with the heads and units that half of its FLOPs pay for."""
    of = teacher(study, seed)
    encoder, _ = opened(of)
    shape = plan_of(encoder)
    assert isinstance(shape, Shape)
    sizes, target = Sizes(layers=shape.layers, hidden=shape.hidden), Target("flops", HALF)
    return pruned(study, of, seed, training, "half", sizes, target)


def down(study: Study, seed: int, training: Training) -> checkpoint.Checkpoint:
    """Return the teacher pruned to the sizes of the first preset, with as many tokens as the preset's own student."""
    own = text_tokenizer(distilled(study, seed, training))
    sizes = Sizes(**asdict(students.PRESETS[study.plan.presets[0]]), vocabulary=own.get_vocab_size())
    return pruned(study, teacher(study, seed), seed, training, "pruned", sizes, None)


def pruned(
    study: Study,
    of: checkpoint.Checkpoint,
    seed: int,
    training: Training,
    name: str,
    sizes: Sizes,
    target: Target | None,
) -> checkpoint.Checkpoint:
    """Return a pruned teacher."""
    folder, options = home(study, training, name) / f"seed-{seed}", replace(training.recovery, seed=seed)
    work = partial(prune_checkpoint, of, study.data, study.split, folder, sizes, target, options, resume=True)
    return once(study, folder, work)


def distilled(study: Study, seed: int, training: Training) -> checkpoint.Checkpoint:
    """Return the student of the first preset as by default: the study's own, unless it takes other steps."""
    if training.distillation == study.plan.student:
        return student(study, seed, study.plan.presets[0])
    return new(study, seed, training, "distilled", from_scratch=False)


def from_scratch(study: Study, seed: int, training: Training) -> checkpoint.Checkpoint:
    """Return a student of the first preset that learned the same from random weights."""
    return new(study, seed, training, "from-scratch", from_scratch=True)


def new(study: Study, seed: int, training: Training, name: str, from_scratch: bool) -> checkpoint.Checkpoint:
    """Return a student of the first preset."""
    folder, options = home(study, training, name) / f"seed-{seed}", replace(training.distillation, seed=seed)
    recipe, of = replace(RECIPE, from_scratch=from_scratch), teacher(study, seed)
    preset = study.plan.presets[0]
    work = partial(distill_checkpoint, of, study.data, study.split, preset, options, folder, True, recipe=recipe)
    return once(study, folder, work)


def own_teacher(study: Study, seed: int, training: Training) -> checkpoint.Checkpoint:
    """Return the study's teacher."""
    return teacher(study, seed)


ROWS: dict[str, Row] = {
    "teacher": own_teacher,
    "half": half,
    "distilled": distilled,
    "pruned": down,
    "from-scratch": from_scratch,
}
TITLES = {
    "teacher": "teacher, re-encoded",
    "half": "teacher, pruned to half its FLOPs",
    "distilled": "{preset}, distilled",
    "pruned": "{preset}, pruned from the teacher",
    "from-scratch": "{preset}, from scratch",
}


def home(study: Study, training: Training, name: str) -> Path:
    """Return the folder of a row's models and cells."""
    return study.folder / "pruning" / f"{training.distillation.steps}-steps" / name


def cell(study: Study, name: str, row: Row, seed: int, training: Training) -> Cell:
    """Return NDCG@10 per user of a row's model, its catalogue re-encoded, and what the model takes."""
    model = row(study, seed, training)
    found = described(Cut(*opened(model), {}), model.texts)
    facts = {"parameters": found["parameters"], "flops": found["flops_per_token"], "seconds": seconds(model.folder)}
    bundle = home(study, training, name) / f"seed-{seed}.edgerec"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    facts["bytes"] = package(model, PRECISION, bundle)["bytes"]
    # the text parts that a teacher is scored with are what its encoder gives
    scorer = subjects(model, seed)["teacher" if name == "teacher" else "student, re-encoded"]
    ranked = rank(scorer, study.split.test, K, study.split.mask_seen)
    return Cell({"ndcg": ndcg(ranked, study.split.test, K)}, facts)


def rows(made: Mapping[str, Sequence[Cell]]) -> list[dict[str, Any]]:
    """Return a row per model: NDCG@10 over users, averaged over seeds, against the teacher's."""
    values = {name: np.mean([one.arrays["ndcg"] for one in cells], axis=0) for name, cells in made.items()}
    return [
        {
            "name": name,
            "seeds": len(cells),
            "ndcg10": interval(values[name]),
            "by_seed": [float(one.arrays["ndcg"].mean()) for one in cells],
            "against_teacher": paired(values[name], values["teacher"]),
            "facts": [one.facts for one in cells],
        }
        for name, cells in made.items()
    ]


def report(result: Mapping[str, Any]) -> str:
    """Return the rows as Markdown."""
    steps, of_file = result["steps"], f"Bytes: of the exported file, {PRECISION}."
    caption = (
        f"{heading(result)} Test NDCG@10, every item's text re-encoded, paired over users. {steps} steps of "
        f"distillation, and of a student's {RECOVERIES} recoveries together (half the FLOPs take one). {of_file}"
    )
    head = ["", "seeds", "NDCG (95%)", "of teacher (95%)", "parameters", "FLOPs per token", "bytes", "seconds"]
    lines = []
    for row in result["rows"]:
        shown = [TITLES[row["name"]].format(preset=result["preset"]), str(row["seeds"])]
        shown.append("{mean:.4f} ({low:.4f}, {high:.4f})".format(**row["ndcg10"]))
        shown.append("teacher" if row["name"] == "teacher" else ratio(row["against_teacher"]))
        lines.append([*shown, *(fact(row["facts"], name) for name in ("parameters", "flops", "bytes", "seconds"))])
    return f"{caption}\n\n{markdown(head, lines)}\n"
