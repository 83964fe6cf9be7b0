"""``edgerec export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgerec.commands import data_from, json_option, load_data, split_option
from edgerec.export import PRECISIONS, TARGETS


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", type=click.Choice(TARGETS), default=TARGETS[0], show_default=True)
@click.option("--precision", type=click.Choice(PRECISIONS), default=PRECISIONS[0], show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .edgerec file to write.")
@click.option(
    "--add", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A catalogue of items that came later."
)
@click.option("--template", help="How the text of --add is made, where it was given for training.")
@json_option
def export(
    model: Path, target: str, precision: str, out: Path, add: Path | None, template: str | None, as_json: bool
) -> None:
    """Compile a teacher or student folder into one .edgerec file."""
    from edgerec.errors import require

    for module in ("torch", "transformers", "onnx"):
        require(module, "export")
    from edgerec.distill.checkpoint import load
    from edgerec.export.package import package

    if add is None:
        report = package(load(model), precision, out)
    else:
        from edgerec.export.latecomers import add_catalogue
        from edgerec.files import atomic_path

        with atomic_path(out) as temporary:
            report = package(load(model), precision, temporary)
            report["bytes"] = add_catalogue(temporary, add, template)
    if as_json:
        click.echo(json.dumps({"bundle": str(out), **report}, ensure_ascii=False))
        return
    click.echo(f"{out}: {report['bytes'] / 1e6:.2f} MB, {precision}")
    for name, value in report["parity"].items():
        click.echo(f"  {name}: {value:.3g}")


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
