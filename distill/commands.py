"""``edgerec fine-tune`` and ``edgerec distill``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgerec.commands import data_options, encoding_progress, json_option, load_data, split_option
from edgerec.distill import LOSSES, NEGATIVES
from edgerec.distill.encoder import POOLINGS

PRESETS = ("tiny", "small")
TIES = ("auto", "shared", "separate")  # those of `teacher`, which imports torch


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a training run."""
    options = [
        click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder for the model."),
        click.option("--resume", is_flag=True, help="Go on with an interrupted run in --out."),
        click.option("--steps", type=int, help="Steps at most; of fine-tune's first stage.  [default: the stage's]"),
        click.option("--batch-size", type=int, help="Users per step.  [default: the stage's]"),
        click.option("--learning-rate", type=float, help="[default: the stage's]"),
        click.option("--seed", type=int, default=0, show_default=True),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def chosen(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def need_distill() -> None:
    """Say which extra is missing before anything else is done."""
    from edgerec.errors import require

    for module in ("torch", "transformers", "accelerate", "safetensors", "sklearn"):
        require(module, "distill")


@click.command("fine-tune")
@data_options
@split_option
@click.option("--encoder", type=click.Path(path_type=Path), help="Folder of a text encoder.  [default: minilm-l6]")
@click.option("--pooling", type=click.Choice(POOLINGS), default=POOLINGS[0], show_default=True, help="Of its tokens.")
@click.option("--embedding-size", type=click.IntRange(1), default=128, show_default=True)
@click.option("--tie", type=click.Choice(TIES), default=TIES[0], show_default=True, help="Vectors per item: 1 or 2.")
@click.option("--top-layers", type=click.IntRange(0), default=2, show_default=True, help="Encoder layers to train.")
@training_options
@json_option
def fine_tune(
    kind: str,
    encoder: Path | None,
    pooling: str,
    embedding_size: int,
    tie: str,
    top_layers: int,
    out: Path,
    resume: bool,
    steps: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    seed: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a teacher: a text encoder and two towers on one log."""
    need_distill()
    from dataclasses import replace

    from edgerec.distill.teacher import TeacherOptions
    from edgerec.distill.teacher import fine_tune as train
    from edgerec.distill.towers import TowerConfig
    from edgerec.sources import fetch
    from edgerec.splits import split

    data = load_data(**options)
    default = TeacherOptions()
    given = chosen(steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    teacher = replace(
        default,
        towers=TowerConfig(embedding_size=embedding_size),
        tie=tie,
        stage_1=replace(default.stage_1, **given),
        stage_2=replace(default.stage_2, seed=seed),
        top_layers=top_layers,
        pooling=pooling,
    )
    folder = encoder or fetch("minilm-l6", options["offline"])
    report = train(data, split(data, kind), folder, teacher, out, resume, encoding_progress(len(data.texts)))
    show(report, out, as_json)


@click.command()
@data_options
@click.option("--teacher", type=click.Path(path_type=Path), required=True, help="Folder that fine-tune wrote.")
@click.option("--preset", type=click.Choice(PRESETS), default=PRESETS[0], show_default=True)
@training_options
@json_option
def distill(
    teacher: Path,
    preset: str,
    out: Path,
    resume: bool,
    steps: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    seed: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Distill a teacher's text encoder into a small student."""
    need_distill()
    from dataclasses import replace

    from edgerec.distill import checkpoint
    from edgerec.distill.compress import distill_checkpoint
    from edgerec.distill.distillation import OPTIONS
    from edgerec.splits import split

    trained = checkpoint.load(teacher)
    data = load_data(**options)
    given = chosen(steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    divided = split(data, trained.info["split"])
    bar = encoding_progress(len(data.texts))
    report = distill_checkpoint(trained, data, divided, preset, replace(OPTIONS, **given), out, resume, bar)
    show(report, out, as_json)


@click.command("fine-tune-cross")
@data_options
@click.option("--teacher", type=click.Path(path_type=Path), required=True, help="Folder of two towers, to be reranked.")
@click.option("--encoder", type=click.Path(path_type=Path), help="BERT-like encoder.  [default: the teacher's]")
@click.option("--loss", type=click.Choice(LOSSES), default=LOSSES[0], show_default=True, help="mse: on their scores.")
@click.option(
    "--negatives", type=click.Choice(NEGATIVES), multiple=True, help="Taken in turn.  [default: uniform, hard]"
)
@click.option("--negatives-each", type=click.IntRange(1), default=4, show_default=True, help="Per positive.")
@click.option("--pairs", type=click.IntRange(1), default=20_000, show_default=True, help="Positives drawn of the log.")
@click.option("--history", type=click.IntRange(1), default=10, show_default=True, help="Events that are told.")
@click.option("--top-layers", type=click.IntRange(1), default=2, show_default=True, help="Encoder layers to train.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder for the model.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run in --out.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Positives per step.")
@click.option("--learning-rate", type=float, default=5e-5, show_default=True, help="Of the layers; the head's is 3x.")
@click.option("--seed", type=int, default=0, show_default=True)
@json_option
def fine_tune_cross(
    teacher: Path,
    encoder: Path | None,
    loss: str,
    negatives: tuple[str, ...],
    negatives_each: int,
    pairs: int,
    history: int,
    top_layers: int,
    out: Path,
    resume: bool,
    batch_size: int,
    learning_rate: float,
    seed: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a cross-encoder: a second teacher that reranks what the first one finds."""
    need_distill()
    from dataclasses import replace

    from edgerec.distill import checkpoint
    from edgerec.distill.cross_training import TRAIN, CrossOptions
    from edgerec.distill.cross_training import fine_tune_cross as train
    from edgerec.splits import split

    first = checkpoint.load(teacher)
    data = load_data(**options)
    first.require_data(data)
    steps = max(1, pairs // batch_size)
    schedule = replace(TRAIN, steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    kinds = chosen(negatives=negatives or None)
    cross = CrossOptions(
        loss=loss, number=negatives_each, history=history, top_layers=top_layers, train=schedule, **kinds
    )
    divided = split(data, first.info["split"])
    report = train(data, divided, encoder or first.encoder, first.towers.arrays(), cross, out, resume)
    show(report, out, as_json)


def show(report: dict[str, Any], out: Path, as_json: bool) -> None:
    """Print what was reached and where it lies."""
    if as_json:
        click.echo(json.dumps({"model": str(out), **report}))
        return
    click.echo(f"{out}")
    for name, value in report.items():
        click.echo(f"  {name}: {value}")
