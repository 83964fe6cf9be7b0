"""``edgerec fine-tune-cross``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgerec.commands import data_options, json_option, load_data
from edgerec.distill import LOSSES, NEGATIVES
from edgerec.distill.commands import need_distill, show


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
    kinds: dict[str, Any] = {"negatives": negatives} if negatives else {}
    cross = CrossOptions(
        loss=loss, number=negatives_each, history=history, top_layers=top_layers, train=schedule, **kinds
    )
    divided = split(data, first.info["split"])
    report = train(data, divided, encoder or first.encoder, first.towers.arrays(), cross, out, resume)
    show(report, out, as_json)
