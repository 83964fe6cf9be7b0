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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, NamedTuple

import click
import numpy as np

from edgerec.benchmarks import machine
from edgerec.benchmarks.environment import environment, version
from edgerec.benchmarks.percentiles import summarise
from edgerec.benchmarks.quality import markdown
from edgerec.cli import main as run
from edgerec.errors import EdgerecError, require
from edgerec.files import atomic_path, sha256, write_result
from edgerec.runtime import Recommendation, Recommender

OUT = Path(__file__).resolve().parent / "results" / "serve-load"
CONNECTIONS = (1, 32)
PERCENTILES = ("p50", "p90", "p99")


class Asked(NamedTuple):
    """A request: the verb, which is the path's last part, and its body."""

    verb: str
    body: dict[str, Any]


class Right(NamedTuple):
    """A right answer: to what, after how many ms, at which moment of the clock, by which bundle."""

    verb: str
    ms: float
    ended: float
    bundle: str


@dataclass
class Seen:
    """What clients saw: right answers, how often what went wrong, seconds from each swap to its first answer."""

    right: list[Right] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    seconds: float = 0.0


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
    address: str, requests: Iterator[tuple[int, Asked]], known: Mapping[str, Any], stop: asyncio.Event, seen: Seen
) -> None:
    """Ask over one connection, one request after the other, until told to stop."""
    httpx2 = require("httpx2", "dev")
    async with httpx2.AsyncClient(base_url=address, timeout=60) as client:
        while not stop.is_set():
            (number, asked), begun = next(requests), time.perf_counter()
            try:
                response = await client.post(f"/v1/{asked.verb}", json=asked.body)
            except httpx2.HTTPError as error:
                seen.faults[f"dropped: {type(error).__name__}"] += 1
                await asyncio.sleep(0.01)  # or a server that is gone would keep the loop for itself
                continue
            ended, bundle = time.perf_counter(), response.headers.get("edgerec-bundle")
            if response.status_code != 200:
                seen.faults[f"dropped: status {response.status_code}"] += 1
            elif bundle not in known or response.json()["items"] != known[bundle][number]:
                seen.faults["wrong"] += 1
            else:
                seen.right.append(Right(asked.verb, 1e3 * (ended - begun), ended, bundle))


async def load(
    address: str,
    requests: Sequence[Asked],
    known: Mapping[str, Any],
    connections: int,
    seconds: float,
    swaps: Mapping[str, Callable[[], None]] = MappingProxyType({}),
) -> Seen:
    """Ask for some seconds, and for as long as it takes till each swap, evenly in time, is answered from.

    Args:
        address: The server's.
        requests: What is asked, in turn.
        known: Bundle's sha256 -> the answer to each request.
        connections: How many ask at once.
        seconds: For how long.
        swaps: A bundle's sha256 -> what makes the server take it.
    """
    seen, stop, turns = Seen(), asyncio.Event(), itertools.cycle(enumerate(requests))
    begun = time.perf_counter()
    askers = [asyncio.create_task(ask(address, turns, known, stop, seen)) for _ in range(connections)]
    for bundle, swap in swaps.items():
        await asyncio.sleep(seconds / (len(swaps) + 1))
        await asyncio.to_thread(swap)
        seen.waits.append(await first_answer(seen, bundle))
    await asyncio.sleep(seconds / (len(swaps) + 1))
    stop.set()
    await asyncio.gather(*askers)
    seen.seconds = time.perf_counter() - begun
    return seen


async def first_answer(seen: Seen, bundle: str) -> float:
    """Wait for the first answer of a bundle from now on; returns after how many seconds it came.

    Raises:
        EdgerecError: None came within a minute.
    """
    begun, after = time.perf_counter(), len(seen.right)
    while time.perf_counter() < begun + 60:
        await asyncio.sleep(0.02)
        if found := next((one for one in seen.right[after:] if one.bundle == bundle), None):
            return found.ended - begun
    raise EdgerecError(f"no answer of the bundle {bundle} within a minute of its swap; expected one: {seen.faults}")


def measure(
    bundles: Sequence[Path], requests: Sequence[Asked], connections: int, seconds: float, warmup: float = 2.0
) -> dict[str, Any]:
    """Serve the first of two bundles, swap to the second and back, and return what clients and machine saw."""
    hashes = [sha256(path) for path in bundles]
    known = {name: oracle(path, requests) for name, path in zip(hashes, bundles, strict=True)}
    with TemporaryDirectory() as folder:
        served = Path(folder) / "served.edgerec"
        shutil.copy(bundles[0], served)
        swaps = {hashes[place]: partial(replace, served, bundles[place]) for place in (1, 0)}
        with server(served) as (address, pid):
            asyncio.run(load(address, requests, known, connections, warmup))
            meter, start, used = machine.Meter(), machine.memory(pid), machine.processor_seconds()[pid][1]
            seen = asyncio.run(load(address, requests, known, connections, seconds, swaps))
            used, end, busy = machine.processor_seconds()[pid][1] - used, machine.memory(pid), meter.read()
    return {
        "connections": connections,
        "seconds": seen.seconds,
        "answers": {
            verb: summarise(np.array([one.ms for one in seen.right if verb in ("all", one.verb)]))
            for verb in ("all", *dict.fromkeys(one.verb for one in requests))
        },
        "per_second": len(seen.right) / seen.seconds,
        "server_processor_ms": 1e3 * used / max(len(seen.right), 1),
        "wrong": seen.faults.pop("wrong", 0),
        "dropped": sum(seen.faults.values()),
        "faults": dict(seen.faults),
        "by_bundle": dict(Counter(one.bundle for one in seen.right)),
        "seconds_to_swap": seen.waits,
        "rss_mb": {"start": start["rss_mb"], "end": end["rss_mb"], "peak": end["peak_mb"]},
        "machine": busy,
    }


def replace(served: Path, path: Path) -> None:
    """Rename a copy of a file onto the served one."""
    with atomic_path(served) as temporary:
        shutil.copy(path, temporary)


def hand_over(bundle: Path, requests: Sequence[Asked], rounds: int = 5) -> dict[str, float]:
    """Return what a recommendation takes of the processor in ms, asked for directly and through a thread."""
    from edgerec.runtime.serve_app import Workers

    recommender, histories = (
        Recommender.load(bundle),
        [one.body["history"] for one in requests if "history" in one.body],
    )
    workers = Workers(60)
    spent: dict[str, list[float]] = {"directly": [], "in a thread": []}

    async def threaded() -> None:
        for history in histories:
            await workers.do(recommender.recommend, history)

    for _ in range(rounds):
        for name, work in (
            ("directly", lambda: [recommender.recommend(history) for history in histories]),
            ("in a thread", lambda: asyncio.run(threaded())),
        ):
            begun = time.process_time()
            work()
            spent[name].append(1e3 * (time.process_time() - begun) / len(histories))
    workers.close()
    return {name: min(values) for name, values in spent.items()}  # the least: others' work only adds


def report(result: Mapping[str, Any]) -> str:
    """Return a result as Markdown."""
    ran, head = result["environment"], ["connections", "request", "n", "answers/s"]
    head += [f"{name} ms" for name in PERCENTILES] + ["wrong", "dropped", "RSS MB: start, end, peak"]
    lines = []
    for one in result["runs"]:
        for verb, found in one["answers"].items():
            whole = verb == "all"
            memory = ", ".join("?" if mb is None else f"{mb:.0f}" for mb in one["rss_mb"].values())
            cells = [str(one["connections"]), verb, f"{found['n']:,}", f"{one['per_second']:.0f}" if whole else ""]
            cells += [f"{found[name]['value']:.1f}" for name in PERCENTILES]
            lines.append([*cells, *([str(one["wrong"]), str(one["dropped"]), memory] if whole else [""] * 3)])
    swaps = ", ".join(f"{seconds:.1f}" for one in result["runs"] for seconds in one["seconds_to_swap"])
    cost = ", ".join(f"{one['server_processor_ms']:.2f}" for one in result["runs"])
    direct, threaded = (result["recommend_processor_ms"][name] for name in ("directly", "in a thread"))
    loads = ", ".join(f"{load:.1f}" for load in ran["load_average"] or [])
    foreign = max(one["machine"]["foreign_cores"] for one in result["runs"])
    said = (
        f"{' and '.join(result['bundles'])}, {result['seconds']:g} s each; server and client shared core "
        f"{', '.join(map(str, result['affinity'] or ['?']))} of one machine ({ran['cpu']}; uvicorn "
        f"{result['packages']['uvicorn']}, httpx2 {result['packages']['httpx2']}). The server took {cost} ms of the "
        f"processor for an answer; a recommendation alone takes {direct:.2f} ms, and {threaded:.2f} ms when it is "
        f"handed to a thread. From renaming a file to its first answer: {swaps} s. Load average {loads or 'unknown'}; "
        f"other processes than the client, the server among them, took up to {foreign:.1f} cores."
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
        "seconds": seconds,
        "runs": runs,
        "recommend_processor_ms": hand_over(bundles[0], requests),
        "affinity": machine.affinity(),
        "packages": {name: version(name) for name in ("starlette", "uvicorn", "msgspec", "httpx2")},
        "environment": environment(),
    }
    write_result(out.with_suffix(".json"), result, report(result))
    click.echo(json.dumps({"wrong": [run["wrong"] for run in runs], "dropped": [run["dropped"] for run in runs]}))


if __name__ == "__main__":
    run(main)
