"""``edgerec sparsify`` and ``edgerec qat``: a student is changed, and recovers under its teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edgerec.commands import data_of, data_option, encoding_progress, json_option
from edgerec.distill.commands import chosen, need_distill, show, training_options
from edgerec.distill.options import TrainOptions


def recovery_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what a recovery wants: the student, its data and teacher, and how the training goes."""
    teacher = click.option(
        "--teacher", type=click.Path(path_type=Path), required=True, help="Folder that MODEL was distilled from."
    )
    model = click.argument("model", type=click.Path(path_type=Path))
    return model(data_option(teacher(training_options(json_option(command)))))


def need() -> None:
    """Say which extra is missing before anything else is done."""
    from edgerec.errors import require

    need_distill()
    for module in ("nncf", "onnx"):
        require(module, "export")


def opened(model: Path, teacher: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Read what ``recovery_options`` name, but for how the training goes, as arguments of a recovery."""
    from edgerec.distill import checkpoint
    from edgerec.splits import split

    trained = checkpoint.load(model)
    data = data_of(trained.info, options)
    return {
        "trained": trained,
        "teacher": checkpoint.load(teacher),
        "data": data,
        "split": split(data, trained.info["split"]),
        "progress": encoding_progress(len(data.texts)),
    }


@click.command()
@recovery_options
@click.option("--pattern", type=click.Choice(["magnitude", "2:4"]), default="2:4", show_default=True)
@click.option("--ratio", type=float, default=0.5, show_default=True, help="Share of each layer's weights; of 2:4, 0.5.")
def sparsify(
    model: Path, teacher: Path, pattern: str, ratio: float, out: Path, resume: bool, as_json: bool, **options: Any
) -> None:
    """Set a share of a student's weights to zero, 2:4 or by size, and distill on."""
    need()
    from edgerec.distill import checkpoint
    from edgerec.distill.recovery import RECOVERY
    from edgerec.distill.sparse_weights import sparsify as run
    from edgerec.export.sparse_gain import gain

    given, training = opened(model, teacher, options), replace(RECOVERY, **chosen(TrainOptions, options))
    report = run(**given, pattern=pattern, ratio=ratio, options=training, out=out, resume=resume)
    show({**report, "on this machine": gain(given["trained"], checkpoint.load(out))}, out, as_json)


@click.command()
@recovery_options
def qat(model: Path, teacher: Path, out: Path, resume: bool, as_json: bool, **options: Any) -> None:
    """Distill a student on with the rounding of INT8 in it."""
    need()
    from edgerec.distill.quantization_aware import OPTIONS, quantization_aware

    given, training = opened(model, teacher, options), replace(OPTIONS, **chosen(TrainOptions, options))
    show(quantization_aware(**given, options=training, out=out, resume=resume), out, as_json)
