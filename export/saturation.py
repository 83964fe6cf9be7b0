"""Whether products of bytes saturate on this CPU, and what that does to a model's lists.

    python -m edgerec.export.saturation MODEL DATA --out FILE --elsewhere 'qemu-x86_64 -cpu Haswell PYTHON'

AVX2 without VNNI adds two products of an unsigned and a signed byte in 16 bits. Beside the candidates that compute in
integers stands one with weights of all 8 bits, which edgerec never makes. Of each it is told what the linter says, and
whether ranks change once onnxruntime multiplies without saturation: what ``edgerec quantize`` decides by. A command
names a Python on another CPU, which has to have edgerec's packages.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime

from edgerec.benchmarks.environment import environment, has_vnni, read_cpuinfo
from edgerec.benchmarks.quality import markdown
from edgerec.cli import main as run
from edgerec.data import load as load_data
from edgerec.distill.checkpoint import load
from edgerec.errors import ParityError
from edgerec.export.elsewhere import output_of
from edgerec.export.package import draft
from edgerec.export.quantization import Calibration, dynamic, made, quiet
from edgerec.export.referee import rank_fault
from edgerec.export.rounded_graph import saturates
from edgerec.export.trials import Bench, tried
from edgerec.files import write_result
from edgerec.splits import split

LENGTH, LARGEST = 64, 255  # of activations that are summed
Row = dict[str, Any]


def product(weight: int) -> bytes:
    """Return the graph of ``LENGTH`` unsigned bytes times a column of weights, each the same signed byte."""
    graph = f"""<ir_version: 8, opset_import: ["": 17]>
    g (uint8[1, {LENGTH}] x) => (int32[1, 16] y) <int8[1] w = {{1}}> {{ y = MatMulInteger(x, w) }}"""
    model = onnx.parser.parse_model(graph)
    column = np.full((LENGTH, 16), weight, np.int8)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(column, "w"))
    return model.SerializeToString()


def sums(graph: bytes) -> int:
    """Return what onnxruntime sums the largest activations up to."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return int(session.run(None, {"x": np.full((1, LENGTH), LARGEST, np.uint8)})[0][0, 0])


def full_range(graph: bytes, titles: Calibration) -> bytes:
    """Return ``int8-dynamic`` with weights of 8 bits."""
    with quiet():
        return dynamic(graph, titles, reduce_range=False)


def rows(bench: Bench) -> list[Row]:
    """Return what this CPU makes of each candidate, and of the one that should not be."""
    prepared, titles = bench.prepared, bench.prepared.calibration()
    make: Mapping[str, Callable[[], bytes]] = {
        "int8-dynamic": partial(made, "int8-dynamic", prepared.graph, titles),
        "int8-static": partial(made, "int8-static", prepared.graph, titles),
        "int8-dynamic, weights of 8 bits": partial(full_range, prepared.graph, titles),
    }
    found = []
    with TemporaryDirectory() as folder:
        for name, graph_of in make.items():
            graph = graph_of()
            try:
                fault = rank_fault(
                    bench, tried(prepared, bench.data, name.split(",")[0], graph, Path(folder) / "x.edgerec")
                )
            except ParityError as error:
                fault = str(error).split(": ", 1)[1]
            found.append({"graph": name, "linter": saturates(graph), "fault": fault})
    return found


def here(model: Path, data: str) -> Row:
    """Return a CPU's own account."""
    log = load_data(data)
    divided = split(log)
    bench = Bench(draft(load(model)), log, divided.validation, divided.mask_seen)
    exact, found = LENGTH * LARGEST * 127, sums(product(127))
    return {"has_vnni": has_vnni(read_cpuinfo()), "sum": found, "exact_sum": exact, "rows": rows(bench)}


def elsewhere(command: str, model: Path, data: str) -> Row:
    """Return the account of the CPU that a command's Python runs on.

    Raises:
        EdgerecError: It gave none.
    """
    words = [*shlex.split(command), "-m", "edgerec.export.saturation", str(model), data]
    told: Row = json.loads(output_of(words, "expected a Python with edgerec's packages").splitlines()[-1])
    return told


def table(cpus: Sequence[Row]) -> str:
    """Return a report as Markdown."""
    head = ["CPU", f"{LENGTH} x {LARGEST} x 127 is summed to", "graph", "linter", "ranks without saturation"]
    lines = [
        [
            cpu["cpu"] + {True: ", VNNI", False: ", no VNNI", None: ""}[cpu["has_vnni"]],
            f"{cpu['sum']:,} of {cpu['exact_sum']:,}",
            row["graph"],
            "may saturate" if row["linter"] else "cannot",
            row["fault"] or "the same",
        ]
        for cpu in cpus
        for row in cpu["rows"]
    ]
    return markdown(head, lines) + "\n"


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--out", type=click.Path(path_type=Path), help="Without it, this CPU's account is printed as JSON.")
@click.option("--elsewhere", "commands", multiple=True, help="A command that starts Python on another CPU.")
def main(model: Path, data: str, out: Path | None, commands: tuple[str, ...]) -> None:
    """Tell whether bytes saturate, and what of."""
    own = here(model, data)
    if out is None:
        sys.stdout.write(json.dumps(own) + "\n")
        return
    machine = environment()
    cpus = [{"cpu": machine["cpu"], **own}]
    cpus += [{"cpu": named(command), **elsewhere(command, model, data)} for command in commands]
    result = {"schema": "edgerec-saturation-1", "data": data, "cpus": cpus, "environment": machine}
    write_result(out, result, table(cpus))
    click.echo(table(cpus))


def named(command: str) -> str:
    """Return what a table calls another CPU: its emulator's words, without paths."""
    words = shlex.split(command)
    return " ".join([Path(words[0]).name, *words[1:3]])


if __name__ == "__main__":
    run(main)
