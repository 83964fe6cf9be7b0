"""One table of every engine that runs here, against torch in fp32: the numbers of docs/targets.md.

    python -m edgerec.export.parity_report MODEL --out benchmarks/results/parity-NAME.json

``--aarch64`` names a command that starts a Python for aarch64, real or emulated (``export/aarch64_root.sh``); a browser
answers where node, Chromium and a built ``runtime/web`` are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import onnxruntime

from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.quality import markdown
from edgerec.benchmarks.web_subject import ENGINES
from edgerec.cli import main as run
from edgerec.distill.checkpoint import Checkpoint, load
from edgerec.errors import EdgerecError
from edgerec.export.elsewhere import in_browser, in_python
from edgerec.export.engines import Engine
from edgerec.export.limits import LIMITS
from edgerec.export.mobile import write_ort
from edgerec.export.onnx_engine import OnnxEngine
from edgerec.export.openvino_target import write_openvino
from edgerec.export.package import Draft, draft, unpack, wanted, write
from edgerec.export.parity import Reference, compare
from edgerec.export.quantization import made
from edgerec.files import write_bytes, write_result
from edgerec.runtime.layout import ENCODER, GRAPH

ORT = ("fp32", "fp16", "int8-dynamic", "int8-static", "int8-weights")
ELSEWHERE = ("fp32", "int8-dynamic", "int8-static", "int8-weights")  # fp16 weights are computed with in fp32


def rows(checkpoint: Checkpoint, commands: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield what each engine answers, or why it does not; ``commands`` start Pythons on aarch64."""
    prepared = draft(checkpoint)
    asked = wanted(prepared)
    for precision in ORT:
        yield row(f"ORT {onnxruntime.__version__}", precision, asked, partial(here, prepared, precision))
    for compiled, precision in ((write_ort, "int8-weights"), (write_openvino, "fp32"), (write_openvino, "int8-static")):
        with TemporaryDirectory() as folder:
            try:
                yield {"precision": precision, **compiled(checkpoint, precision, Path(folder) / "out")["parity"]}
            except EdgerecError as error:
                yield {"engine": f"{compiled.__name__}, {precision}", "not_measured": str(error)}
    for command, precision in product(commands, ELSEWHERE):
        yield row("ORT on aarch64", precision, asked, partial(there, prepared, asked, command, precision))
    for engine, precision in product(ENGINES, ELSEWHERE):
        yield row(f"browser, {engine}", precision, asked, partial(browser, prepared, asked, engine, precision))
    yield {"engine": "TensorRT", "not_measured": "no NVIDIA GPU here"}
    if not commands:
        yield {"engine": "ORT on aarch64", "not_measured": "no aarch64 machine here, and no --aarch64 for another"}


def row(name: str, precision: str, asked: Reference, opened: Callable[[Path], Engine]) -> dict[str, Any]:
    """Return the line of one engine, or of ``name`` and why it is not there; ``opened`` may write to a folder."""
    with TemporaryDirectory() as folder:
        try:
            engine = opened(Path(folder))
            found = compare(engine, asked)
        except EdgerecError as error:
            return {"engine": f"{name}, {precision}", "not_measured": str(error)}
    return {"precision": precision, **found, "engine": f"{engine.name}, {precision}"}


def lay(prepared: Draft, precision: str, folder: Path) -> tuple[int, int]:
    """Write the portable files of a model; return the shape of a session's state, [K, d]."""
    unpack(prepared, folder)
    write_bytes(folder / ENCODER, made(precision, prepared.graph, prepared.calibration()))
    return len(prepared.rounded.decays), prepared.rounded.embedding_size


def here(prepared: Draft, precision: str, folder: Path) -> Engine:
    """Open the portable files in a stock onnxruntime."""
    shape = lay(prepared, precision, folder)
    return OnnxEngine(f"ORT {onnxruntime.__version__}", folder / GRAPH, folder / ENCODER, shape)


def there(prepared: Draft, asked: Reference, command: str, precision: str, folder: Path) -> Engine:
    """Have a stock onnxruntime of another Python answer, over the same files."""
    return in_python(command, folder, lay(prepared, precision, folder), asked)


def browser(prepared: Draft, asked: Reference, engine: str, precision: str, folder: Path) -> Engine:
    """Have a browser answer, over the bundle as it ships."""
    graph = made(precision, prepared.graph, prepared.calibration())
    write(prepared, precision, graph, folder / "model.edgerec")
    return in_browser(folder / "model.edgerec", engine, prepared.tower.ids, asked)


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
        if name in ORT
    )
    caption = (
        f"{result['model']} of {result['data']}: {measured['requests']} histories, {measured['texts']} texts, against "
        f"torch in fp32 with the tables before rounding. Limits: {limits}."
    )
    return f"{caption}\n\n{markdown(head, lines)}\n"


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--aarch64", multiple=True, help="A command that starts a Python for aarch64 with numpy and onnxruntime.")
def main(model: Path, out: Path, aarch64: tuple[str, ...]) -> None:
    """Compare every engine that runs here with torch."""
    checkpoint = load(model)
    result = {
        "schema": "edgerec-parity-1",
        "model": f"{checkpoint.info['kind']} {checkpoint.info.get('preset', '')}".strip(),
        "data": checkpoint.info["data"]["name"],
        "rows": [],
        "environment": environment(),
    }
    for one in rows(checkpoint, aarch64):
        result["rows"].append(one)
        said = (
            one.get("not_measured") or f"overlap {one['overlap']:.4f}, text distance {one['largest_text_distance']:.2g}"
        )
        click.echo(f"{one['engine']}: {said}")
    write_result(out, result, table(result))


if __name__ == "__main__":
    run(main)
