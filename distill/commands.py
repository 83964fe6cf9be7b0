"""``edgerec fine-tune`` and ``edgerec distill``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgerec.commands import data_options, encoding_progress, json_option, load_data, split_option
from edgerec.distill.encoder import POOLINGS
from edgerec.distill.histories import Augmentation
from edgerec.distill.options import PRECISIONS, REPORTERS, SCHEDULES, TrainOptions

if TYPE_CHECKING:
    from edgerec.distill.teacher import TeacherOptions

PRESETS = ("static", "tiny", "small")
LOSSES = ("vectors", "listwise", "next-item", "logits", "hidden", "relation")  # those of `losses`, likewise
TIES = ("auto", "shared", "separate")  # those of `teacher`, which imports torch
OF_BOTH_STAGES = ("accumulate", "schedule", "patience", "mixed_precision", "report_to", "seed")
SHARE = click.FloatRange(0, 1, max_open=True)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a training run: those of ``TrainOptions``, under its names."""
    options = [
        click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder for the model."),
        click.option("--resume", is_flag=True, help="Go on with an interrupted run in --out."),
        click.option("--steps", type=int, help="Steps at most; of fine-tune's first stage.  [default: the stage's]"),
        click.option("--batch-size", type=int, help="Users per batch and process.  [default: about 800 events]"),
        click.option("--accumulate", type=int, help="Batches per step.  [default: 1]"),
        click.option("--window", type=int, help="Events of a history at a time.  [default: the stage's]"),
        click.option("--learning-rate", type=float, help="[default: the stage's]"),
        click.option("--schedule", type=click.Choice(SCHEDULES), help="Of the learning rate.  [default: linear]"),
        click.option("--warmup", type=int, help="Steps of a rising rate.  [default: a tenth of all, at most 50]"),
        click.option("--weight-decay", type=float, help="[default: 0.01]"),
        click.option("--patience", type=int, help="Worse evaluations in a row that end a run; a good step is kept."),
        click.option("--mixed-precision", type=click.Choice(PRECISIONS), help="[default: no]"),
        click.option("--augment", help="Change histories at random, such as mask=0.1,reorder=0.1.  [default: neither]"),
        click.option(
            "--report-to", multiple=True, type=click.Choice([*REPORTERS, "none"]), help="[default: tensorboard]"
        ),
        click.option("--seed", type=int, default=0, show_default=True),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def chosen(kind: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a dataclass that were given as options, as it wants them."""
    names = [field.name for field in fields(kind)]
    given = {name: options[name] for name in names if options.get(name) not in (None, ())}
    if "augment" in given:
        given["augment"] = Augmentation.parse(given["augment"])
    if "report_to" in given:
        given["report_to"] = tuple(name for name in given["report_to"] if name != "none")
    if "patience" in given:
        given["keep_best"] = True
    return given


def given(options: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return those of the named options that were given."""
    return {name: options[name] for name in names if options[name] is not None}


def need_distill() -> None:
    """Say which extra is missing before anything else is done."""
    from edgerec.errors import require

    for module in ("torch", "transformers", "accelerate", "safetensors", "sklearn"):
        require(module, "distill")


@click.command("fine-tune")
@data_options
@split_option
@click.option("--encoder", type=click.Path(path_type=Path), help="Folder of a text encoder.  [default: minilm-l6]")
@click.option("--pooling", type=click.Choice(POOLINGS), help="Of the encoder's tokens.  [default: auto]")
@click.option("--init-from", type=click.Path(path_type=Path), help="A teacher to start from: its encoder and vectors.")
@click.option("--embedding-size", type=click.IntRange(1), help="[default: 128]")
@click.option("--tie", type=click.Choice(TIES), help="Vectors per item: 1 or 2.  [default: auto]")
@click.option("--history-dropout", type=SHARE, help="Of the coordinates of a history's vectors.  [default: 0.3]")
@click.option("--residual-dropout", type=SHARE, help="Of what the log taught of an item.  [default: 0.2]")
@click.option("--top-layers", type=click.IntRange(0), help="Encoder layers to train.  [default: 0]")
@click.option("--search", "trials", type=click.IntRange(1), help="Trials to look for what is not given here.")
@training_options
@json_option
def fine_tune(
    kind: str,
    encoder: Path | None,
    init_from: Path | None,
    trials: int | None,
    out: Path,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a teacher: a text encoder and two towers on one log."""
    need_distill()
    from edgerec.distill import checkpoint
    from edgerec.distill.teacher import fine_tune as train
    from edgerec.distill.teacher import options_from
    from edgerec.errors import require
    from edgerec.sources import fetch
    from edgerec.splits import split

    if trials:
        require("optuna", "search")
    if init_from:
        taken = {"--encoder": encoder, "--search": trials, "--tie": options["tie"]}
        refuse_beside_init({**taken, "--embedding-size": options["embedding_size"]})
    init = checkpoint.load(init_from) if init_from else None
    data = load_data(**options)
    teacher = teacher_options(options_from(init, data) if init else None, trials, options)
    folder = init.encoder if init else encoder or fetch("minilm-l6", options["offline"])
    report = train(data, split(data, kind), folder, teacher, out, resume, encoding_progress(len(data.texts)), init)
    show(report, out, as_json)


def refuse_beside_init(given: dict[str, Any]) -> None:
    """Refuse options that say what the other teacher says."""
    from edgerec.errors import UsageError

    if names := [name for name, value in given.items() if value is not None]:
        raise UsageError(f"got {' and '.join(names)} with --init-from, whose model decides that; leave one of them out")


def teacher_options(default: TeacherOptions | None, trials: int | None, options: dict[str, Any]) -> TeacherOptions:
    """Return a teacher's options: the default, what was given, and a search over the rest.

    Both stages take what concerns the machine and the record; the numbers of the log's training are stage 1's.
    """
    from edgerec.distill.search import SPACE, SearchPlan
    from edgerec.distill.teacher import TeacherOptions
    from edgerec.distill.towers import TowerConfig

    default = default or TeacherOptions()
    training = chosen(TrainOptions, options)
    both = {name: value for name, value in training.items() if name in OF_BOTH_STAGES}
    fixed = {**options, "shared": None if options["tie"] in (None, "auto") else options["tie"]}
    free = tuple(name for name in SPACE if fixed[name] is None)
    return replace(
        default,
        towers=replace(default.towers, **chosen(TowerConfig, options)),
        stage_1=replace(default.stage_1, **training),
        stage_2=replace(default.stage_2, **both),
        search=SearchPlan(trials, free) if trials else None,
        **given(options, "tie", "top_layers", "pooling"),
    )


@click.command()
@data_options
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    required=True,
    metavar="NAME[=WEIGHT]",
    help="Folder that fine-tune wrote; again, for further opinions: another one, itemknn or ease.  [weight: 1]",
)
@click.option("--preset", type=click.Choice(PRESETS), default="tiny", show_default=True)
@click.option("--layers", type=int, help="Of the student.  [default: the preset's, as for the other sizes]")
@click.option("--hidden", type=int, help="Width of the student.")
@click.option("--heads", type=int, help="Attention heads of the student.")
@click.option("--intermediate", type=int, help="Feed-forward units of the student.")
@click.option("--loss", "losses", multiple=True, metavar="NAME=WEIGHT", help=f"One of {', '.join(LOSSES)}.")
@click.option("--temperature", type=float, help="Of the listwise loss.  [default: 1]")
@click.option("--confidence", type=float, help="Power of the teacher's confidence in the next item.  [default: 0]")
@click.option("--full-vocabulary", is_flag=True, help="Keep all tokens of the teacher's tokenizer.")
@click.option("--from-scratch", is_flag=True, help="Start from random weights, not from the teacher's.")
@training_options
@json_option
def distill(
    teachers: tuple[str, ...],
    preset: str,
    losses: tuple[str, ...],
    full_vocabulary: bool,
    from_scratch: bool,
    out: Path,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Distill a teacher's text encoder into a small student."""
    need_distill()
    from edgerec.distill import checkpoint
    from edgerec.distill.compress import distill_checkpoint
    from edgerec.distill.distillation import OPTIONS, RECIPE
    from edgerec.distill.ensemble import Ensemble, further_teacher
    from edgerec.splits import split

    (first, own), *further = (weighted(one) for one in teachers)
    weights = RECIPE.weights.with_losses(dict(weighted(one, required=True) for one in losses))
    weights = replace(weights, **given(options, "temperature", "confidence"))
    words = None if full_vocabulary else RECIPE.words
    recipe = replace(RECIPE, weights=weights, from_scratch=from_scratch, words=words)
    sizes = given(options, "layers", "hidden", "heads", "intermediate")
    trained = checkpoint.load(Path(first))
    data = load_data(**options)
    training = replace(OPTIONS, **chosen(TrainOptions, options))
    divided = split(data, trained.info["split"])
    bar = encoding_progress(len(data.texts))
    others = Ensemble(own, [further_teacher(*one, data, divided) for one in further]) if further else None
    report = distill_checkpoint(trained, data, divided, preset, training, out, resume, bar, recipe, sizes, others)
    show(report, out, as_json)


def weighted(text: str, required: bool = False) -> tuple[str, float]:
    """Part ``NAME=WEIGHT``; what ends in no weight counts 1, unless a weight is required.

    Raises:
        UsageError: There is no weight, or it is no number.
    """
    from edgerec.errors import UsageError

    name, _, weight = text.rpartition("=")
    try:
        return name, float(weight)
    except ValueError as error:
        if not required:
            return text, 1.0
        raise UsageError(f"got {text!r}; expected NAME=WEIGHT with a number, such as listwise=0.5") from error


def show(report: dict[str, Any], out: Path, as_json: bool) -> None:
    """Print what was reached and where it lies, once where several processes did it."""
    from edgerec.distill.processes import processes

    if not processes().is_main_process:
        return
    if as_json:
        click.echo(json.dumps({"model": str(out), **report}))
        return
    click.echo(f"{out}")
    for name, value in report.items():
        lines = value if isinstance(value, list) else [value]
        for line in lines:
            click.echo(f"  {name}: {line}")
