"""Distilling a student on after something was done to its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgerec.distill import checkpoint, student
from edgerec.distill.compress import train_into
from edgerec.distill.distillation import OPTIONS, Start
from edgerec.distill.encoder import Progress, no_progress
from edgerec.distill.options import TrainOptions
from edgerec.distill.student import StudentEncoder
from edgerec.errors import UsageError
from edgerec.interactions import Dataset, Split

# Half of what a distillation takes: it starts near its goal.
RECOVERY = replace(OPTIONS, steps=750, learning_rate=1e-3)


def open_student(trained: checkpoint.Checkpoint) -> tuple[StudentEncoder, str]:
    """Return the encoder and the ``tokenizer.json`` text of a student's folder.

    Raises:
        UsageError: It is no student, or a static one.
    """
    if trained.info["kind"] != "student":
        raise UsageError(f"{trained.folder} is a {trained.info['kind']}; expected a folder that distill wrote")
    encoder, tokenizer_json = student.load(trained.encoder)
    if not isinstance(encoder, StudentEncoder):
        raise UsageError(f"{trained.folder} is a static student; expected one with layers, such as --preset tiny")
    return encoder, tokenizer_json


def recover(
    trained: checkpoint.Checkpoint,
    teacher: checkpoint.Checkpoint,
    data: Dataset,
    split: Split,
    start: Start,
    made: Mapping[str, Any],
    options: TrainOptions,
    out: Path,
    resume: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Distil on from a changed student, and write its folder.

    Args:
        trained: The student's folder as it was.
        teacher: What it was distilled from.
        data: The data that both were made from.
        split: Its split.
        start: The changed encoder.
        made: What was done to it, for ``model.json``.
        options: How the training goes.
        out: A new folder, or with ``resume`` an unfinished one.
        resume: Go on from the last checkpoint.
        progress: Called with the number of texts encoded by the teacher.

    Returns:
        The report of ``distillation.distill``.

    Raises:
        UsageError: Not its teacher, other data, or ``out`` holds something.
        InterruptedTraining: Ctrl-C.
    """
    if teacher.info["kind"] != "teacher":
        raise UsageError(f"{teacher.folder} is a {teacher.info['kind']}; expected the teacher of {trained.folder}")
    trained.require_data(data)
    info, config = {**trained.info, **made}, start.encoder.student_config
    return train_into(
        out, trained.towers, teacher.encoder, data, split, config, options, info, resume, progress=progress, start=start
    )
