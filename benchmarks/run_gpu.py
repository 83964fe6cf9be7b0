"""The run on a GPU: latency by ``edgerec bench``, then encoding by batch size and its share of the card's roof.

    python -m edgerec.benchmarks.run_gpu STUDENT BUNDLE OUT --data ml-100k

STUDENT is the folder that BUNDLE was exported from. ``OUT/bench.json`` has torch, eager and compiled, the bundle's
encoder on onnxruntime's CUDA provider where onnxruntime-gpu is installed, and TensorRT's engines where it is; their
kit is kept in ``OUT/kit``. ``OUT/sweep.json`` has what roofline.py found. Each has its tables beside it as Markdown.
Without a GPU nothing is written, and the exit code is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgerec.benchmarks import adapters
from edgerec.benchmarks.devices import TORCH
from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.run_bench import kit_options, measure
from edgerec.benchmarks.tables import table
from edgerec.cli import main as run
from edgerec.files import write_result

DEVICES = ("cuda-torch", "cuda-ort", "tensorrt")
KINDS = ("recommend", "search", "encode")
FOLDER = click.Path(exists=True, path_type=Path)


def no_gpu() -> str | None:
    """Return why there is nothing to measure, or None."""
    import torch

    return None if torch.cuda.is_available() else f"torch {torch.__version__} sees no CUDA device"


def sweeps(student: Path, data: str, device: str, seconds: float) -> dict[str, Any]:
    """Encode a catalogue's texts by batch size, eager and compiled."""
    import torch

    from edgerec.benchmarks.roofline import BATCHES, roof, sweep
    from edgerec.data import load

    options = {"folder": str(student), "threads": 1, "mode": "eager", "device": device}
    subject: Any = adapters.load(TORCH, "encode", options)
    subject.prepare()
    subject.tokenizer.enable_padding()
    texts, rng = load(data).texts, torch.Generator().manual_seed(0)
    batches = []
    for size in BATCHES:
        chosen = torch.randint(len(texts), (size,), generator=rng).tolist()
        tokens = subject.tokenizer.encode_batch([texts[row] for row in chosen])
        batches.append(
            (torch.tensor([one.ids for one in tokens]), torch.tensor([one.attention_mask for one in tokens]))
        )
    limit = roof(device)
    rows = [
        row for compiled in (False, True) for row in sweep(subject.encoder, batches, device, limit, compiled, seconds)
    ]
    name = torch.cuda.get_device_name() if device == "cuda" else environment()["cpu"]
    return {
        "schema": "edgerec-sweep-1",
        "device": name,
        "environment": environment(),
        "roof": limit._asdict(),
        "rows": rows,
    }


def report(result: Mapping[str, Any]) -> str:
    """Return a sweep as Markdown."""
    limit = result["roof"]
    head = ("mode", "texts", "tokens each", "p50 ms", "p90 ms", "texts/s", "share of the roof")
    lines = [
        [
            row["mode"],
            str(row["batch"]),
            str(row["tokens"]),
            *(f"{row['latency_ms'][name]['value']:.3g}" for name in ("p50", "p90")),
            f"{row['texts_per_second']:.0f}",
            f"{row['share_of_roof']:.1%}",
        ]
        for row in result["rows"]
    ]
    measured = f"{limit['peak'] / 1e12:.3g} TFLOP/s in float32, {limit['bandwidth'] / 1e9:.4g} GB/s"
    return f"{result['device']}; measured at most: {measured}.\n\n{table(head, lines)}\n"


@click.command()
@click.argument("student", type=FOLDER)
@click.argument("bundle", type=FOLDER)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="The data set whose histories and texts are asked.")
@click.option("--seconds", default=3.0, show_default=True, help="Of each run and batch size.")
def main(student: Path, bundle: Path, out: Path, data: str, seconds: float) -> None:
    """Measure on this machine's GPU."""
    if reason := no_gpu():
        click.echo(f"not measured: {reason}", err=True)
        raise SystemExit(1)
    out.mkdir(parents=True, exist_ok=True)
    options = [f"--device={name}" for name in DEVICES] + [f"--kind={kind}" for kind in KINDS]
    options += ["--model", str(student), "--data", data, "--seconds", str(seconds)]
    options += kit_options(student, out / "kit")
    measure([str(bundle), *options], out / "bench.json")
    result = sweeps(student, data, "cuda", seconds)
    write_result(out / "sweep.json", result, report(result))
    click.echo(report(result))


if __name__ == "__main__":
    run(main)
