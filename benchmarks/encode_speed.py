"""How fast titles become vectors, beside MiniLM-L6 in INT8 and model2vec, the tokenizer included.

    python -m edgerec.benchmarks.encode_speed tiny.edgerec static.edgerec --peer-python peers/bin/python
        --peer-models peers/models --out benchmarks/results/encode-speed-ml-100k.json

Titles of the catalogue, one at a time, 32 and 1,000 at once (peers take 32 at a time), one thread. Peers run in
processes of their own, in another Python, and wait while another subject runs: in each round every subject gets the
same titles, in an order drawn anew. Every subject times itself, by the clock and by the processor's time: on a machine
that others use, what takes longer than a turn of the scheduler waits for them, and what is short does not, so that only
the second compares the two. Last, the stages of ours are timed one by one, for one title.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click
import numpy as np

from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.peer_text import timed
from edgerec.benchmarks.processes import ONE_THREAD_EACH, importable
from edgerec.benchmarks.quality import markdown
from edgerec.benchmarks.timer import Latency, ratio
from edgerec.cli import main as run
from edgerec.errors import UsageError
from edgerec.files import write_result
from edgerec.runtime import Recommender
from edgerec.runtime.text import TextEncoder, feed_of

PEERS = ("MiniLM", "Model2Vec")
BASE = PEERS[0]
Taken = tuple[list[int], int]  # the nanoseconds of each request, and of the processor for all of them
Ask = Callable[[Sequence[Sequence[str]]], Taken]


class Size(NamedTuple):
    """How many titles a request has, how many requests a round, and every how many rounds it is asked."""

    titles: int
    requests: int
    every: int


SIZES = (Size(1, 20, 1), Size(32, 2, 4), Size(1000, 1, 20))


class Peer:
    """A peer's process, which times itself."""

    def __init__(self, interpreter: str, name: str, models: Path, folder: Path) -> None:
        variables = {**os.environ, "PYTHONPATH": str(importable(folder)), **dict.fromkeys(ONE_THREAD_EACH, "1")}
        command = [interpreter, "-m", "edgerec.benchmarks.peer_text", name, str(models)]
        try:
            self._process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=variables)
        except OSError as error:
            raise UsageError(f"{interpreter} cannot be started ({error.strerror}); expected a Python") from error

    def __call__(self, requests: Sequence[Sequence[str]]) -> Taken:
        """Encode some requests, and return how long it took.

        Raises:
            UsageError: The process has ended.
        """
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(requests) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise UsageError(f"{self._process.args!r} ended with code {self._process.wait()}; see what it said above")
        clock, processor = json.loads(line)
        return clock, processor

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def measure(subjects: Mapping[str, Ask], texts: Sequence[str], rounds: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return, for each size, every subject's latency and how many times as long the first peer takes.

    Args:
        subjects: ``BASE`` among them.
        texts: To draw from.
        rounds: Of the smallest request.
        seed: Of titles and orders.
    """
    rng, order, found = random.Random(seed), list(subjects), []
    for size in SIZES:
        clock: dict[str, list[list[int]]] = {name: [] for name in subjects}
        processor: dict[str, list[int]] = {name: [] for name in subjects}
        for number in range(max(3, rounds // size.every) + 1):
            asked = [rng.choices(texts, k=size.titles) for _ in range(size.requests)]
            rng.shuffle(order)
            for name in order:
                each, all_of_them = subjects[name](asked)
                if number:  # the first round warms up
                    clock[name].append(each)
                    processor[name].append(all_of_them)
        latency = {name: Latency(np.ravel(times) / 1e6) for name, times in clock.items()}
        middles = {name: Latency(np.median(times, axis=1)) for name, times in clock.items()}
        spent = {name: Latency(np.array(times) / (1e6 * size.requests)) for name, times in processor.items()}
        found.append(
            {
                "titles": size.titles,
                "rounds": len(spent[BASE].samples),
                "latency": {name: one.summary() for name, one in latency.items()},
                "processor_ms": {name: one.percentile(50) for name, one in spent.items()},
                "by_clock": {name: ratio(middles[BASE], middles[name], seed) for name in subjects},
                "by_processor": {name: ratio(spent[BASE], spent[name], seed) for name in subjects},
            }
        )
    return found


def stages(encoder: TextEncoder, texts: Sequence[str]) -> dict[str, float]:
    """Return the median microseconds of each stage of a title alone, and of a whole call."""
    taken: dict[str, list[int]] = {name: [] for name in ("tokens", "arrays", "graph", "whole call")}
    for text in texts:
        clock = [time.perf_counter_ns()]
        encoded = encoder.tokens([text])
        clock.append(time.perf_counter_ns())
        feed = feed_of(encoded)
        clock.append(time.perf_counter_ns())
        encoder.run(feed)
        clock.append(time.perf_counter_ns())
        encoder.encode([text])
        clock.append(time.perf_counter_ns())
        for name, nanoseconds in zip(taken, np.diff(clock).tolist(), strict=True):
            taken[name].append(nanoseconds)
    return {name: float(np.median(times)) / 1e3 for name, times in taken.items()}


def table(result: Mapping[str, Any]) -> str:
    """Return a result as Markdown."""
    ran, lines = result["environment"], []
    for size in result["sizes"]:
        for name, clock in size["latency"].items():
            numbers = [*(clock[f"{p}_ms"] for p in ("p50", "p90", "p99")), size["processor_ms"][name]]
            times = [size[by][name] for by in ("by_clock", "by_processor")]
            said = [f"{one['ratio']:.1f} ({one['low']:.1f} to {one['high']:.1f})" for one in times]
            lines.append([f"{size['titles']:,}", name, str(clock["n"]), *(f"{one:.3f}" for one in numbers), *said])
    headings = ["titles", "", "n", "p50 ms", "p90 ms", "p99 ms", "processor ms"]
    headings += [f"{BASE}, times as long", "times the processor (95%)"]
    parts = [[name, *(f"{one:.1f}" for one in found.values())] for name, found in result["stages_us"].items()]
    return (
        f"{markdown(headings, lines)}\n\n"
        f"{markdown(['one title, µs', *next(iter(result['stages_us'].values()))], parts)}\n\n"
        f"{ran['cpu']}, {result['threads']} thread, load average {(ran['load_average'] or ['unknown'])[0]}, "
        f"onnxruntime {ran['packages']['onnxruntime']}. {result['tokens']:.1f} tokens per title.\n"
    )


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data", "source", default="ml-100k", show_default=True)
@click.option("--peer-python", required=True, help="A Python with what benchmarks/bench_peers.txt names.")
@click.option("--peer-models", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rounds", type=click.IntRange(1), default=60, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="File for the result as JSON; its table lies beside it.")
def main(
    bundles: Sequence[Path], source: str, peer_python: str, peer_models: Path, rounds: int, out: Path | None
) -> None:
    """Time the text encoders of BUNDLES beside their peers."""
    from edgerec.data import load

    texts = load(source, offline=True).texts
    encoders = {bundle.stem: Recommender.load(bundle).encoder for bundle in bundles}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        peers = {name: Peer(peer_python, name, peer_models.resolve(), folder) for name in PEERS}
        for peer in peers.values():
            stack.callback(peer.close)
        sizes = measure(
            {**peers, **{name: partial(timed, one.encode) for name, one in encoders.items()}}, texts, rounds
        )
    result = {
        "schema": "edgerec-encode-speed-1",
        "threads": 1,
        "tokens": float(np.mean([len(ids) for ids in next(iter(encoders.values())).tokens(texts)])),
        "sizes": sizes,
        "stages_us": {name: stages(one, texts) for name, one in encoders.items()},
        "environment": environment(),
    }
    if out:
        write_result(out, result, table(result))
    click.echo(table(result))


if __name__ == "__main__":
    run(main)
