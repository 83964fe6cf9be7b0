"""One table of every engine that runs here, against torch in fp32: the numbers of docs/targets.md.

python -m edgerec.export.parity_report MODEL --out benchmarks/results/parity-NAME.json
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import onnxruntime

from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.quality import markdown
from edgerec.distill.checkpoint import Checkpoint, load
from edgerec.errors import EdgerecError
from edgerec.export.engines import Engine, OnnxEngine
from edgerec.export.mobile import write_ort
from edgerec.export.openvino_target import write_openvino
from edgerec.export.package import Draft, draft, unpack, wanted
from edgerec.export.parity import LIMITS, compare
from edgerec.export.quantization import made
from edgerec.files import write_bytes, write_json
from edgerec.runtime.layout import ENCODER, GRAPH

ORT = ("fp32", "fp16", "int8-dynamic", "int8-static", "int8-weights")
ELSEWHERE = {
    "TensorRT": "no NVIDIA GPU here",
    "ORT on aarch64": "no aarch64 machine here",
}


def rows(checkpoint: Checkpoint) -> Iterator[dict[str, Any]]:
    """Yield what each engine answers, or why it does not."""
    prepared = draft(checkpoint)
    asked = wanted(prepared)
    for precision in ORT:
        name = f"ORT {onnxruntime.__version__}, {precision}"
        with TemporaryDirectory() as folder:
            try:
                yield {"precision": precision, **compare(portable(prepared, precision, name, Path(folder)), asked)}
            except EdgerecError as error:
                yield {"engine": name, "not_measured": str(error)}
    for write, precision in ((write_ort, "int8-weights"), (write_openvino, "fp32"), (write_openvino, "int8-static")):
        with TemporaryDirectory() as folder:
            try:
                yield {"precision": precision, **write(checkpoint, precision, Path(folder) / "out")["parity"]}
            except EdgerecError as error:
                yield {"engine": f"{write.__name__}, {precision}", "not_measured": str(error)}
    yield from ({"engine": name, "not_measured": reason} for name, reason in ELSEWHERE.items())


def portable(prepared: Draft, precision: str, name: str, folder: Path) -> Engine:
    """Open the portable files of a model in a stock onnxruntime."""
    unpack(prepared, folder)
    write_bytes(folder / ENCODER, made(precision, prepared.graph, prepared.calibration()))
    shape = (len(prepared.rounded.decays), prepared.rounded.embedding_size)
    return OnnxEngine(name, folder / GRAPH, folder / ENCODER, shape)


def table(result: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    head = ["engine", "top-10 overlap", "Kendall tau", "flips (of near-ties)", "largest score difference"]
    head += ["worst request", "largest text distance"]
    lines = []
    for row in result["rows"]:
        if reason := row.get("not_measured"):
            lines.append([row["engine"], f"not measured: {reason}", *[""] * (len(head) - 2)])
            continue
        lines.append(
            [
                row["engine"],
                f"{row['overlap']:.4f}",
                f"{row['tau']:.4f}",
                f"{row['flips']} ({row['near_flips']})",
                f"{row['largest_score_difference']:.2g}",
                f"{row['worst_overlap']:.1f}: {row['worst_request']}",
                f"{row['largest_text_distance']:.1g}",
            ]
        )
    measured = next(row for row in result["rows"] if "requests" in row)
    limits = "; ".join(
        f"{name}: overlap {one.overlap:g}, tau {one.tau:g}, text distance {one.text_distance:g}"
        for name, one in LIMITS.items()
    )
    caption = (
        f"{result['model']} of {result['data']}: {measured['requests']} histories, {measured['texts']} texts, against "
        f"torch in fp32 with the tables before rounding. Limits: {limits}."
    )
    return f"{caption}\n\n{markdown(head, lines)}\n"


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(model: Path, out: Path) -> None:
    """Compare every engine that runs here with torch."""
    checkpoint = load(model)
    result = {
        "schema": "edgerec-parity-1",
        "model": f"{checkpoint.info['kind']} {checkpoint.info.get('preset', '')}".strip(),
        "data": checkpoint.info["data"]["name"],
        "rows": [],
        "environment": environment(),
    }
    for row in rows(checkpoint):
        result["rows"].append(row)
        click.echo(row.get("not_measured") or f"{row['engine']}: overlap {row['overlap']:.4f}, tau {row['tau']:.4f}")
    write_json(out, result)
    write_bytes(out.with_suffix(".md"), table(result).encode())


if __name__ == "__main__":
    main()
