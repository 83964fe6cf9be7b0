"""``edgerec serve`` under load, its file swapped meanwhile: what docs/embedding.md says of the server.

    python -m edgerec.benchmarks.load tiny.edgerec static.edgerec --data ml-100k

A server of its own process answers connections over loopback that ask again as soon as they are answered. A copy of the
first bundle is served; after a third of the time the second is renamed onto it, after another third the first again.
Every answer is compared, bit by bit, with what the bundle that it names answers here. Results go to
``benchmarks/results/serve-load.{json,md}``. The client takes processor time too: where both share a core, it is most.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click
import numpy as np

from edgerec.benchmarks import machine
from edgerec.benchmarks.environment import environment, version
from edgerec.benchmarks.percentiles import summarise
from edgerec.benchmarks.quality import markdown
from edgerec.errors import EdgerecError, require
from edgerec.files import atomic_path, sha256, write_bytes, write_json
from edgerec.runtime import Recommendation, Recommender

OUT = Path(__file__).resolve().parent / "results" / "serve-load"
CONNECTIONS = (1, 32)
PERCENTILES = ("p50", "p90", "p99")


class Asked(NamedTuple):
    """A request: the verb, which is the path's last part, and its body."""

    verb: str
    body: dict[str, Any]


class Seen(NamedTuple):
    """What became of the requests: (verb, ms) of each right answer, the bundle of each in order, and the others."""

    answered: list[tuple[str, float]]
    bundles: list[tuple[float, str]]
    faults: Counter[str]


def requests_of(histories: Sequence[Sequence[str]], titles: Sequence[str], items: Sequence[str]) -> list[Asked]:
    """Return requests, eight recommendations to one search and one similar."""
    made = []
    for number, history in enumerate(histories):
        made.append(Asked("recommend", {"history": list(history)}))
        if number % 8 == 0:
            made.append(Asked("search", {"query": titles[number % len(titles)]}))
            made.append(Asked("similar", {"item": items[number % len(items)]}))
    return made


def oracle(bundle: Path, requests: Sequence[Asked]) -> list[list[dict[str, Any]]]:
    """Return what a bundle answers to each request in this process."""
    recommender = Recommender.load(bundle)

    def answer(one: Asked) -> list[Recommendation]:
        return getattr(recommender, one.verb)(*one.body.values())

    return [[entry._asdict() for entry in answer(one)] for one in requests]


@contextmanager
def server(bundle: Path) -> Iterator[tuple[str, int]]:
    """Serve a bundle in a process of its own; yields its address and process id."""
    command = [sys.executable, "-m", "edgerec", "serve", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()
    if process.returncode:
        raise EdgerecError(f"the server ended with {process.returncode}; expected 0 after SIGTERM")


async def ask(
    address: str, requests: Iterator[tuple[int, Asked]], known: Mapping[str, Any], until: float, seen: Seen
) -> None:
    """Ask over one connection, one request after the other, until a time."""
    httpx2 = require("httpx2", "dev")
    async with httpx2.AsyncClient(base_url=address, timeout=60) as client:
        while (begun := time.perf_counter()) < until:
            number, asked = next(requests)
            try:
                response = await client.post(f"/v1/{asked.verb}", json=asked.body)
            except httpx2.HTTPError as error:
                seen.faults[f"dropped: {type(error).__name__}"] += 1
                continue
            ended, bundle = time.perf_counter(), response.headers.get("edgerec-bundle")
            if response.status_code != 200:
                seen.faults[f"dropped: status {response.status_code}"] += 1
            elif bundle not in known or response.json()["items"] != known[bundle][number]:
                seen.faults["wrong"] += 1
            else:
                seen.answered.append((asked.verb, 1e3 * (ended - begun)))
                seen.bundles.append((ended, bundle))


async def load(
    address: str, requests: Sequence[Asked], known: Mapping[str, Any], connections: int, seconds: float, swaps: Any
) -> tuple[Seen, list[float]]:
    """Ask for some seconds; ``swaps`` are done one after the other, evenly in time. Returns also when each was done."""
    seen, turns, done = Seen([], [], Counter()), itertools.cycle(enumerate(requests)), []
    until = time.perf_counter() + seconds
    askers = [asyncio.create_task(ask(address, turns, known, until, seen)) for _ in range(connections)]
    for swap in swaps:
        await asyncio.sleep(seconds / (len(swaps) + 1))
        await asyncio.to_thread(swap)
        done.append(time.perf_counter())
    await asyncio.gather(*askers)
    return seen, done


def measure(
    bundles: Sequence[Path], requests: Sequence[Asked], connections: int, seconds: float, warmup: float = 2.0
) -> dict[str, Any]:
    """Serve the first of two bundles, swap to the second and back, and return what clients and machine saw."""
    known = {sha256(path): oracle(path, requests) for path in bundles}
    with TemporaryDirectory() as folder:
        served = Path(folder) / "served.edgerec"
        shutil.copy(bundles[0], served)

        def swap_to(path: Path) -> None:
            with atomic_path(served) as temporary:
                shutil.copy(path, temporary)

        swaps = [lambda: swap_to(bundles[1]), lambda: swap_to(bundles[0])]
        with server(served) as (address, pid):
            asyncio.run(load(address, requests, known, connections, warmup, []))
            meter, start, used = machine.Meter(), machine.memory(pid), machine.processor_seconds()[pid][1]
            seen, done = asyncio.run(load(address, requests, known, connections, seconds, swaps))
            used, end, busy = machine.processor_seconds()[pid][1] - used, machine.memory(pid), meter.read()
    return {
        "connections": connections,
        "seconds": seconds,
        "answers": {
            verb: summarise(np.array([ms for one, ms in seen.answered if verb in ("all", one)]))
            for verb in ("all", *dict.fromkeys(one.verb for one in requests))
        },
        "per_second": len(seen.answered) / seconds,
        "server_processor_ms": 1e3 * used / max(len(seen.answered), 1),
        "wrong": seen.faults.pop("wrong", 0),
        "dropped": sum(seen.faults.values()),
        "faults": dict(seen.faults),
        "by_bundle": dict(Counter(bundle for _, bundle in seen.bundles)),
        "seconds_to_swap": [
            min((ended - at for ended, bundle in seen.bundles if ended > at and bundle == sha256(path)), default=None)
            for at, path in zip(done, (bundles[1], bundles[0]), strict=True)
        ],
        "rss_mb": {"start": start["rss_mb"], "end": end["rss_mb"], "peak": end["peak_mb"]},
        "machine": busy,
    }


def report(result: Mapping[str, Any]) -> str:
    """Return a result as Markdown."""
    ran, head = result["environment"], ["connections", "request", "n", "answers/s"]
    head += [f"{name} ms" for name in PERCENTILES] + ["wrong", "dropped", "RSS MB: start, end, peak"]
    lines = []
    for run in result["runs"]:
        for verb, found in run["answers"].items():
            whole = verb == "all"
            memory = ", ".join("?" if mb is None else f"{mb:.0f}" for mb in run["rss_mb"].values())
            cells = [str(run["connections"]), verb, f"{found['n']:,}", f"{run['per_second']:.0f}" if whole else ""]
            cells += [f"{found[name]['value']:.1f}" for name in PERCENTILES]
            lines.append([*cells, *([str(run["wrong"]), str(run["dropped"]), memory] if whole else [""] * 3)])
    swaps = ", ".join(
        "not seen" if one is None else f"{one:.1f}" for run in result["runs"] for one in run["seconds_to_swap"]
    )
    cost = ", ".join(f"{run['server_processor_ms']:.2f}" for run in result["runs"])
    loads = ", ".join(f"{load:.1f}" for load in ran["load_average"] or [])
    foreign = max(run["machine"]["foreign_cores"] for run in result["runs"])
    said = (
        f"{' and '.join(result['bundles'])}, {result['runs'][0]['seconds']:g} s each, server and client on the core(s) "
        f"{result['affinity']} of one machine ({ran['cpu']}; uvicorn {result['packages']['uvicorn']}, httpx2 "
        f"{result['packages']['httpx2']}). The server took {cost} ms of the processor for an answer. From renaming a "
        f"file to its first answer: {swaps} s. Load average {loads or 'unknown'}; other processes, the server among "
        f"them, took up to {foreign:.1f} cores."
    )
    return f"{markdown(head, lines)}\n\n{said}\n"


@click.command()
@click.argument("bundles", nargs=2, type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, help="The data set that they were made from: whose histories are asked.")
@click.option("--seconds", default=30.0, show_default=True, help="Of each load.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, help="Two files, .json and .md.")
def main(bundles: tuple[Path, Path], data: str, seconds: float, out: Path) -> None:
    """Load a server of two BUNDLES, swapped for each other, and write the result."""
    from edgerec.data import load as read
    from edgerec.splits import split

    dataset = read(data)
    asked = split(dataset).test
    histories = [[dataset.item_ids[row] for row in asked.histories[user]] for user in range(min(256, len(asked)))]
    requests = requests_of(histories, dataset.titles, dataset.item_ids)
    runs = [measure(bundles, requests, connections, seconds) for connections in CONNECTIONS]
    result = {
        "schema": "edgerec-serve-load-1",
        "data": dataset.name,
        "bundles": {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in bundles},
        "runs": runs,
        "affinity": machine.affinity(),
        "packages": {name: version(name) for name in ("starlette", "uvicorn", "msgspec", "httpx2")},
        "environment": environment(),
    }
    write_json(out.with_suffix(".json"), result)
    write_bytes(out.with_suffix(".md"), report(result).encode())
    click.echo(json.dumps({"wrong": [run["wrong"] for run in runs], "dropped": [run["dropped"] for run in runs]}))


if __name__ == "__main__":
    main()
