"""Whether NVIDIA's own parser and builder take every graph of the target ``tensorrt``, without a GPU.

TensorRT-RTX (PyPI: ``tensorrt-rtx-cu13``, in an environment of its own) has TensorRT's parser and builder classes,
takes strongly typed networks only, and builds for a GPU that is not there. That shows acceptance: speed, fusion and
numbers need a GPU, and a Jetson's SM 8.7 is not among those it builds for.

``python -m edgerec.export.tensorrt_gate MODEL... --out FILE`` prints and writes a run's log as JSON.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgerec.cli import main as run
from edgerec.distill import checkpoint
from edgerec.distill.encoder import MAX_TOKENS
from edgerec.errors import require
from edgerec.export.jetson_kit import graphs_of, kind_of
from edgerec.export.package import draft
from edgerec.export.tensorrt_builder import (
    BuildError,
    BuildOptions,
    Profile,
    build,
    encoder_profiles,
    recommender_profiles,
)
from edgerec.files import write_json
from edgerec.runtime.layout import Tower

CAPABILITIES = (86, 89)


def gate(trt: Any, graphs: Mapping[str, bytes], tower: Tower) -> list[dict[str, Any]]:
    """Parse and build graphs for each of ``CAPABILITIES``; return a row for each build.

    Args:
        trt: The module ``tensorrt_rtx``.
        graphs: As ``jetson_kit.graphs_of`` returns them.
        tower: Whose recommender is among them.
    """
    sizes = len(tower.decays), tower.embedding_size, int(tower.repeat_decays.size)
    profiles: dict[str, list[Profile]] = {
        "encoder": encoder_profiles(MAX_TOKENS),
        "recommender": recommender_profiles(*sizes),
    }
    rows: list[dict[str, Any]] = []
    for name, graph in graphs.items():
        for number in CAPABILITIES:
            row = {"graph": name, "graph_bytes": len(graph), "sm": number, "profiles": len(profiles[kind_of(name)])}
            try:
                built = build(trt, graph, profiles[kind_of(name)], BuildOptions(capabilities=(number,)))
            except BuildError as error:
                rows.append({**row, "built": False, "reason": str(error)})
                continue
            rows.append({**row, "built": True, "engine_bytes": len(built.plan), "seconds": built.record["seconds"]})
    return rows


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The JSON file to write.")
def main(models: tuple[Path, ...], out: Path) -> None:
    """Build every graph of some model folders by TensorRT-RTX, and write the log."""
    import onnx

    trt = require("tensorrt_rtx", "tensorrt")
    rows = []
    for folder in models:
        prepared = draft(checkpoint.load(folder))
        for row in gate(trt, graphs_of(prepared), prepared.rounded):
            rows.append(
                {"model": f"{prepared.checkpoint.folder.name} of {prepared.checkpoint.info['data']['name']}", **row}
            )
            click.echo(json.dumps(rows[-1]))
    versions = {"tensorrt_rtx": trt.__version__, "onnx": onnx.__version__, "python": platform.python_version()}
    write_json(out, {"schema": "edgerec-tensorrt-gate-1", "gpu": None, "versions": versions, "builds": rows})


if __name__ == "__main__":
    run(main)
