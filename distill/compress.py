"""From the teacher's model folder to the student's: the same towers, a smaller text encoder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgerec.distill import checkpoint, student
from edgerec.distill.distillation import distill
from edgerec.distill.encoder import Progress, no_progress
from edgerec.distill.options import TrainOptions
from edgerec.distill.processes import processes
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

    Returns:
        The report of ``distillation.distill``.

    Raises:
        UsageError: Not a teacher, other data, unknown preset, or ``out`` holds something.
        InterruptedTraining: Ctrl-C.
    """
    if teacher.info["kind"] != "teacher":
        raise UsageError(f"{teacher.folder} is a {teacher.info['kind']}; expected a folder that fine-tune wrote")
    if preset not in student.PRESETS:
        raise UsageError(f"unknown preset {preset!r}; expected one of {', '.join(student.PRESETS)}")
    teacher.require_data(data)
    require_support(options)
    checkpoint.new_folder(out, resume)
    processes().wait_for_everyone()
    config, folder = student.PRESETS[preset], out / "checkpoints"
    made = distill(
        teacher.towers, teacher.encoder, data.texts, split, config, options, folder, resume, progress=progress
    )
    if processes().is_main_process:
        student.save(out / checkpoint.ENCODER, made.encoder, made.tokenizer_json)
        info = {"kind": "student", "validation_ndcg10": made.report, "preset": preset, "options": asdict(options)}
        checkpoint.save(out, teacher.towers, data, split, info)
    return made.report
