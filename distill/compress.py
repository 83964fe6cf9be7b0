"""From the teacher's model folder to the student's: the same towers, a smaller text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgerec.distill import checkpoint, student
from edgerec.distill.distillation import RECIPE, Recipe, distill
from edgerec.distill.encoder import Progress, no_progress
from edgerec.distill.ensemble import Ensemble
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
    require_support(options)
    checkpoint.new_folder(out, resume)
    processes().wait_for_everyone()
    made = distill(
        teacher.towers,
        teacher.encoder,
        data.texts,
        split,
        config,
        options,
        out / "checkpoints",
        resume,
        recipe,
        progress=progress,
        ensemble=ensemble,
    )
    if processes().is_main_process:
        student.save(out / checkpoint.ENCODER, made.encoder, made.tokenizer_json)
        info = {"kind": "student", "validation_ndcg10": made.report, "preset": preset, "sizes": asdict(config)}
        further = ensemble.described() if ensemble else []
        made_with = {"options": asdict(options), "recipe": asdict(recipe), "further_teachers": further}
        checkpoint.save(out, teacher.towers, data, split, info | made_with)
    return made.report
