"""From the teacher's model folder to the student's: the same towers, a smaller text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgerec.distill import checkpoint, student
from edgerec.distill.distillation import RECIPE, Recipe, Start, distill
from edgerec.distill.encoder import Progress, no_progress
from edgerec.distill.ensemble import Ensemble
from edgerec.distill.options import TrainOptions
from edgerec.distill.processes import processes
from edgerec.distill.student import Config
from edgerec.distill.towers import Towers
from edgerec.distill.training import require_support
from edgerec.errors import UsageError
from edgerec.interactions import Dataset, Split


def distill_checkpoint(
    teacher: checkpoint.Checkpoint,
    data: Dataset,
    split: Split,
    preset: str,
    options: TrainOptions,
    out: Path,
    resume: bool = False,
    progress: Progress = no_progress,
    recipe: Recipe = RECIPE,
    sizes: Mapping[str, int] | None = None,
    ensemble: Ensemble | None = None,
) -> dict[str, Any]:
    """Distil a teacher's folder into a student's.

    Args:
        teacher: What ``fine_tune`` wrote.
        data: The data that the teacher was trained on.
        split: Its split.
        preset: A key of ``student.PRESETS``.
        options: How the training goes.
        out: A new folder, or with ``resume`` an unfinished one.
        resume: Go on from the last checkpoint.
        progress: Called with the number of texts encoded by the teacher.
        recipe: What the student learns from.
        sizes: What is different from the preset, by the names of its fields.
        ensemble: Further teachers.

    Returns:
        The report of ``distillation.distill``.

    Raises:
        UsageError: Not a teacher, other data, unknown preset or size, or ``out`` holds something.
        InterruptedTraining: Ctrl-C.
    """
    if teacher.info["kind"] != "teacher":
        raise UsageError(f"{teacher.folder} is a {teacher.info['kind']}; expected a folder that fine-tune wrote")
    config = student.sized(preset, sizes or {})
    teacher.require_data(data)
    further = ensemble.described() if ensemble else []
    info = {"kind": "student", "preset": preset, "sizes": asdict(config), "further_teachers": further}
    return train_into(
        out, teacher.towers, teacher.encoder, data, split, config, options, info, resume, recipe, progress, ensemble
    )


def train_into(
    out: Path,
    towers: Towers,
    teacher: Path,
    data: Dataset,
    split: Split,
    config: Config,
    options: TrainOptions,
    info: Mapping[str, Any],
    resume: bool = False,
    recipe: Recipe = RECIPE,
    progress: Progress = no_progress,
    ensemble: Ensemble | None = None,
    start: Start | None = None,
) -> dict[str, Any]:
    """Distil a student, and write its folder.

    Args:
        out: A new folder, or with ``resume`` an unfinished one.
        towers: What its item vectors belong to.
        teacher: Folder of the teacher's text encoder.
        data: The data that the towers were trained on.
        split: Its split.
        config: The student's sizes.
        options: How the training goes.
        info: What ``model.json`` says besides how the training went.
        resume: Go on from the last checkpoint.
        recipe: What the student learns from.
        progress: Called with the number of texts encoded by the teacher.
        ensemble: Further teachers.
        start: A student to train on.

    Returns:
        The report of ``distillation.distill``.

    Raises:
        UsageError: ``out`` holds something, or as ``distillation.distill``.
        InterruptedTraining: Ctrl-C.
    """
    require_support(options)
    checkpoint.new_folder(out, resume)
    processes().wait_for_everyone()
    made = distill(
        towers,
        teacher,
        data.texts,
        split,
        config,
        options,
        out / "checkpoints",
        resume,
        recipe,
        progress=progress,
        ensemble=ensemble,
        start=start,
    )
    if processes().is_main_process:
        student.save(out / checkpoint.ENCODER, made.encoder, made.tokenizer_json)
        trained = {"validation_ndcg10": made.report, "options": asdict(options), "recipe": asdict(recipe)}
        checkpoint.save(out, towers, data, split, {**info, **trained})
    return made.report
