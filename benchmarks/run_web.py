"""Sizes and latency of the browser's runtime: what docs/web.md says, measured in headless Chromium.

    make web
    python -m edgerec.benchmarks.run_web tiny.edgerec static.edgerec --data ml-100k

Each bundle is verified, then timed, by both engines and by the Python runtime on the same histories and queries, on one
thread. Results go to ``benchmarks/results/web-DATA.{json,md}``.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.quality import markdown
from edgerec.benchmarks.shipped import latency
from edgerec.benchmarks.timer import Latency
from edgerec.benchmarks.web_subject import ENGINES, WEB
from edgerec.cli import main as run
from edgerec.errors import EdgerecError
from edgerec.files import write_result

ROOT = Path(__file__).resolve().parents[1]
KEYS = ("p50_ms", "p90_ms", "p99_ms")


def node(script: str, *jobs: Mapping[str, Any]) -> list[Any]:
    """Return what a script of runtime/web prints for jobs, a JSON value a line.

    Raises:
        EdgerecError: It failed.
    """
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    done = subprocess.run(["node", str(WEB / script)], input=lines, capture_output=True, text=True)
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "Error" in line), "it did not say why")
        raise EdgerecError(f"{script} failed ({said.strip()[:200]}); expected a built runtime/web: run make web")
    return [json.loads(line) for line in done.stdout.splitlines()]


def measure(bundle: Path, histories: Sequence[Sequence[str]], queries: Sequence[str], rounds: int) -> dict[str, Any]:
    """Verify and time a bundle in Chromium by both engines, and in Python.

    Returns:
        Runtime -> latencies by kind of request; of the browser's also ``load_ms`` and ``verify``.
    """
    jobs = [{"bundle": str(bundle.resolve()), "engine": engine} for engine in ENGINES]
    asked = {"rounds": rounds, "histories": histories, "queries": queries}
    answers = node(
        "browser.mjs", *({**job, "steps": [["verify"]]} for job in jobs), *({**job, "time": asked} for job in jobs)
    )
    found: dict[str, Any] = {"python": latency(bundle, histories, queries, rounds)}
    for engine, replayed, timed in zip(ENGINES, answers[: len(jobs)], answers[len(jobs) :], strict=True):
        if "value" not in (verified := replayed["answers"][0]):
            raise EdgerecError(f"{bundle} fails in Chromium by {engine}: {verified['error']['message']}")
        found[engine] = {
            **{name: Latency(np.array(samples)).summary() for name, samples in timed["samples"].items()},
            "load_ms": timed["load"],
            "verify": verified["value"],
            "browser": timed["browser"],
        }
    return found


def report(result: Mapping[str, Any]) -> str:
    """Return a result as two Markdown tables, and what they were measured on."""
    files = [[name, f"{size['bytes']:,}", f"{size['brotli']:,}"] for name, size in result["files"].items()]
    files += [[name, f"{one['bytes']:,}", ""] for name, one in result["bundles"].items()]
    lines = []
    for name, one in result["bundles"].items():
        for runtime, timed in one["latency"].items():
            for kind, row in timed.items():
                if isinstance(row, dict) and "n" in row:
                    lines.append([f"{name}, {runtime}", kind, str(row["n"]), *(f"{row[key]:.2f}" for key in KEYS)])
    ran = result["environment"]
    [browser] = {one["latency"][engine]["browser"] for one in result["bundles"].values() for engine in ENGINES}
    loads = ", ".join(f"{load:.1f}" for load in ran["load_average"] or [])
    latencies = markdown(["bundle, runtime", "request", "n", "p50 ms", "p90 ms", "p99 ms"], lines)
    where = f"Chromium {browser}, headless; one thread, {ran['cpu']}; load average {loads or 'unknown'}."
    return f"{markdown(['file', 'bytes', 'brotli'], files)}\n\n{latencies}\n\n{where}\n"


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, help="The data set that they were made from: whose histories are asked.")
@click.option("--rounds", default=300, show_default=True, help="Timed calls of each kind.")
def main(bundles: tuple[Path, ...], data: str, rounds: int) -> None:
    """Measure BUNDLES and write the result."""
    from edgerec.data import load
    from edgerec.splits import split

    dataset = load(data)
    asked = split(dataset).test
    histories = [[dataset.item_ids[row] for row in asked.histories[user]] for user in range(min(64, len(asked)))]
    measured = {
        path.name: {"bytes": path.stat().st_size, "latency": measure(path, histories, dataset.titles[:64], rounds)}
        for path in bundles
    }
    [files] = node("sizes.mjs")
    result = {"data": dataset.name, "files": files, "bundles": measured, "environment": environment()}
    out = ROOT / "benchmarks" / "results" / f"web-{dataset.name}"
    write_result(out.with_suffix(".json"), result, report(result))
    click.echo(report(result))


if __name__ == "__main__":
    run(main)
