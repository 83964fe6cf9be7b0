"""How long a device takes for a thousand new titles: ``python -m edgerec.benchmarks.add_items BUNDLE --data ml-100k``.

The titles are the catalogue's own under new ids. What costs is the text encoder; its batches hold texts of like length,
so that little of them is padding: the share of padding in the order of arrival is reported beside that.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np

from edgerec.benchmarks.environment import environment
from edgerec.cli import main as run
from edgerec.runtime import Recommender
from edgerec.runtime.text import BATCH

TITLES = 1000


def measure(bundle: Path, texts: list[str], rounds: int) -> dict[str, Any]:
    """Return wall and processor seconds of each round of adding texts under new ids, and how much was padding."""
    seconds: dict[str, list[float]] = {"wall": [], "processor": []}
    for number in range(rounds):
        with TemporaryDirectory() as folder:
            recommender = Recommender.load(bundle, overlay=Path(folder) / "new.overlay")
            recommender.search("warm up")  # opens tokenizer and graph
            begun, used = time.perf_counter(), time.process_time()
            recommender.add_items({f"new-{number}-{place}": text for place, text in enumerate(texts)})
            seconds["wall"].append(time.perf_counter() - begun)
            seconds["processor"].append(time.process_time() - used)
    lengths = np.array([len(tokens) for tokens in recommender.encoder.tokens(texts)])
    padding = {"by length": padded(np.sort(lengths)), "in order of arrival": padded(lengths)}
    return {"titles": len(texts), "batch": BATCH, "seconds": seconds, "padding": padding}


def padded(lengths: Any) -> float:
    """Return the share of padding in batches of texts of so many tokens."""
    parts = [lengths[start : start + BATCH] for start in range(0, len(lengths), BATCH)]
    cells = sum(len(part) * int(part.max()) for part in parts)
    return 1 - float(lengths.sum()) / cells


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--data", "source", default="ml-100k", show_default=True)
@click.option("--rounds", type=int, default=10, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(bundle: Path, source: str, rounds: int, out: Path | None) -> None:
    """Time adding a thousand titles to a bundle."""
    from edgerec.data import load
    from edgerec.files import write_json

    texts = load(source, offline=True).texts[:TITLES]
    result = {**measure(bundle, texts, rounds), "bundle": bundle.name, "environment": environment()}
    if out:
        write_json(out, result)
    click.echo(json.dumps(result))


if __name__ == "__main__":
    run(main)
