"""``edgerec export``, ``edgerec quantize``, ``edgerec run-kit`` and ``edgerec demo``."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from edgerec.commands import data_from, data_of, data_option, json_option, load_data, split_option
from edgerec.export import GOALS, PRECISIONS, TARGETS


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--target",
    "targets",
    type=click.Choice(TARGETS),
    multiple=True,
    default=TARGETS[:1],
    show_default=True,
    help="Again for several: then --out is a folder.",
)
@click.option("--precision", type=click.Choice(PRECISIONS), default=PRECISIONS[0], show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file (onnx) or folder to write.")
@click.option(
    "--add", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A catalogue of items that came later."
)
@click.option("--template", help="How the text of --add is made, where it was given for training.")
@click.option(
    "--index",
    type=click.Choice(("exact", "usearch")),
    default="exact",
    show_default=True,
    help="With usearch, a graph of neighbours for catalogues of a million items lies in the file too.",
)
@json_option
def export(
    model: Path,
    targets: tuple[str, ...],
    precision: str,
    out: Path,
    add: Path | None,
    template: str | None,
    index: str,
    as_json: bool,
) -> None:
    """Compile a teacher or student folder into one .edgerec file, or for another engine."""
    from edgerec.errors import require

    for module in ("torch", "transformers", "onnx"):
        require(module, "export")
    from edgerec.distill.checkpoint import load
    from edgerec.export.targets import compile_finished, compile_for

    finishers: dict[str, Callable[[Path], object]] = {}
    if add is not None:
        from edgerec.export.latecomers import add_catalogue

        finishers["--add"] = partial(add_catalogue, items=add, template=template)
    if index == "usearch":
        from edgerec.export.index import add_index

        require("usearch", "index")
        finishers["--index"] = add_index
    if finishers:
        reports = compile_finished(load(model), targets, precision, out, finishers)
    else:
        reports = compile_for(load(model), targets, precision, out)
    if as_json:
        click.echo(json.dumps({"targets": reports}, ensure_ascii=False))
        return
    for target, report in reports.items():
        size = report.get("bytes") or sum(report["files"].values())
        click.echo(f"{report['path']}: {target}, {size / 1e6:.2f} MB, {report.get('precision', precision)}")
        for name, value in report.get("parity", {}).items():
            click.echo(f"  {name}: {value if isinstance(value, str) else format(value, '.3g')}")
        if "note" in report:
            click.echo(f"  {report['note']}")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@data_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .edgerec file to write.")
@click.option("--candidates", help=f"Some of {', '.join(PRECISIONS)}, parted by commas.  [default: all]")
@click.option("--budget", type=float, default=0.01, show_default=True, help="Share of NDCG@10 that may be lost.")
@click.option("--goal", type=click.Choice(GOALS), default=GOALS[0], show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the titles to calibrate on.")
@click.option("--qat", type=click.Path(path_type=Path), help="What `edgerec qat` made of MODEL: a candidate more.")
@click.option("--figure", type=click.Path(path_type=Path), help="File for bytes and milliseconds against NDCG@10.")
@json_option
def quantize(
    model: Path,
    out: Path,
    candidates: str | None,
    budget: float,
    goal: str,
    seed: int,
    qat: Path | None,
    figure: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure a model's file in every precision, and write the best one within an accuracy budget."""
    from edgerec.errors import UsageError, require

    for module in ("torch", "transformers", "onnx", "rich", *(["matplotlib"] if figure else [])):
        require(module, "figures" if module == "matplotlib" else "export")
    from edgerec.export.referee import Terms, open_model
    from edgerec.export.referee import quantize as run
    from edgerec.export.referee_report import FORMATS, draw, print_report
    from edgerec.splits import split

    if figure and figure.suffix not in FORMATS:
        raise UsageError(f"got the figure {figure}; expected a name that ends in {', '.join(FORMATS)}")

    names = PRECISIONS if candidates is None else tuple(name.strip() for name in candidates.split(","))
    terms = Terms(names, budget, goal, seed)
    checkpoint = open_model(model)
    data = data_of(checkpoint.info, options)
    divided = split(data, checkpoint.info["split"])
    trained = open_model(qat) if qat else None
    report = run(checkpoint, data, divided, out, terms, lambda name: click.echo(f"making {name}", err=True), trained)
    if figure:
        draw(report, figure)
    if as_json:
        click.echo(json.dumps({"bundle": str(out), **report}, ensure_ascii=False))
        return
    print_report(report)
    click.echo(f"{out}: {report['written']['bytes'] / 1e6:.2f} MB, {report['chosen']}: {report['reason']}")


@click.command("run-kit")
@click.argument("kit", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--version-compatible", is_flag=True, help="Build engines that later TensorRT versions open too.")
@click.option("--hardware-compatible", is_flag=True, help="Build engines for every GPU from Ampere on.")
@click.option("--stripped", is_flag=True, help="Build engines without weights, to be refitted from the graphs.")
@json_option
def run_kit(kit: Path, version_compatible: bool, hardware_compatible: bool, stripped: bool, as_json: bool) -> None:
    """Open a TensorRT kit by the best way there is here, and replay its golden requests."""
    from edgerec.errors import ParityError, require

    require("onnx", "export")
    from edgerec.export.kit_run import run_kit as run
    from edgerec.export.tensorrt_builder import BuildOptions

    found = run(kit, BuildOptions(version_compatible, hardware_compatible, stripped))
    if as_json:
        click.echo(json.dumps({"kit": str(kit), "graphs": found}, ensure_ascii=False))
    else:
        for name, row in found.items():
            click.echo(f"{name}: {row['step']}, {row['faults'][0] if row['faults'] else 'agrees'}")
    if wrong := [name for name, row in found.items() if row["faults"]]:
        raise ParityError(f"{', '.join(wrong)} of {kit} do not answer as the goldens say; do not use them here")


@click.command()
@data_from("ml-100k")
@split_option
@click.option("--out", type=click.Path(path_type=Path), default=Path("edgerec-demo"), show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def demo(kind: str, out: Path, seed: int, **options: Any) -> None:
    """Fetch, fine-tune, distill, export, verify, recommend and evaluate on ml-100k."""
    from edgerec.errors import require

    for module in ("torch", "transformers", "onnx", "sklearn"):
        require(module, "export")
    from edgerec.export.demo import demo as run
    from edgerec.sources import fetch
    from edgerec.splits import split

    data = load_data(**options)
    run(data, split(data, kind), fetch("minilm-l6", options["offline"]), out, click.echo, seed)
