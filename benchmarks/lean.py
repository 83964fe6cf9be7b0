"""What the runtime adds to an app: time to the first answer, memory, and rest between answers.

    python -m edgerec.benchmarks.lean tiny.edgerec --out benchmarks/results/lean-ml-100k.json

Fresh processes take turns. A *bare* one imports numpy and onnxruntime, and opens and runs a graph of one operator; the
others import the runtime too, open the bundle, and recommend. Both clocks start when the parent asks for the process.
Last, two processes hold the bundle at once: what they share is the resident set of one less its proportional one. Linux
tells the memory. Modules are compiled, as an installation leaves them. ``BUDGETS`` are checked; the exit code is 1
where one is broken.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import click

from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.quality import markdown
from edgerec.bundle import Bundle
from edgerec.cli import main as run
from edgerec.errors import require
from edgerec.files import write_result
from edgerec.runtime.contents import read

BUDGETS = {"first_answer_ms": 30.0, "resident_mb": 20.0, "idle_ms_per_s": 1.0}
SAID = {
    "first_answer_ms": "the first answer comes {:.1f} ms later",
    "resident_mb": "{:.1f} MB more are resident",
    "idle_ms_per_s": "an idle second takes {:.2f} ms of the processor",
}
HISTORY = 50
REST = 1.0  # seconds
BARE = """
import sys, time
import numpy, onnxruntime
done, cpu = time.monotonic_ns(), time.process_time()
session = onnxruntime.InferenceSession(bytes.fromhex(sys.argv[1]), providers=["CPUExecutionProvider"])
session.run(None, {"x": numpy.zeros(1, numpy.float32)})
"""
RUNTIME = """
import sys, time, json
import numpy, onnxruntime
from edgerec.runtime import Recommender
recommender = Recommender.load(sys.argv[1], threads=int(sys.argv[3]))
found = recommender.recommend(json.loads(sys.argv[2]), exclude_seen=False)
done, cpu = time.monotonic_ns(), time.process_time()
assert found
"""
REPORT = """
import json
def memory(kind):
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith(kind + ":"):
            return int(line.split()[1]) * 1024 / 1e6
print(json.dumps({"done": done, "cpu": cpu, "resident": memory("Rss")}), flush=True)
sys.stdin.readline()
before = time.process_time()
time.sleep(REST)
idle = time.process_time() - before
print(json.dumps({"idle": idle, "resident": memory("Rss"), "proportional": memory("Pss")}), flush=True)
sys.stdin.readline()
"""


class Child:
    """A process that has answered, and waits."""

    def __init__(self, compiled: str, source: str, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._started = time.monotonic_ns()
        command = [sys.executable, "-c", source + REPORT.replace("REST", str(REST)), *arguments]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env=environment, **pipes)
        first = self._next()
        self.found = {
            "first_ms": (first["done"] - self._started) / 1e6,
            "first_cpu_ms": 1e3 * first["cpu"],
            "resident_mb": first["resident"],
        }

    def rest(self) -> dict[str, float]:
        """Let it rest, and return what it says after: CPU seconds, resident and proportional MB."""
        self._go()
        return self._next()

    def end(self) -> None:
        """Let it go."""
        self._go()
        if code := self._process.wait():
            raise click.ClickException(f"a measured process ended with code {code}")

    def _go(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def _next(self) -> Any:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise click.ClickException(f"a measured process ended with code {self._process.wait()} before it answered")
        return json.loads(line)


def one_operator() -> str:
    """Return a graph that returns its input, in hexadecimal."""
    written = '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y) { y = Identity(x) }'
    return str(require("onnx", "export").parser.parse_model(written).SerializeToString().hex())


def measure(bundle: Path, history: Sequence[str], rounds: int, compiled: str) -> dict[str, Any]:
    """Start processes in turn; return medians over rounds, and what two at once share.

    Args:
        bundle: The file.
        history: What is asked.
        rounds: Processes of each kind.
        compiled: A folder for compiled modules.
    """
    asked, graph = [str(bundle), json.dumps(history), "1"], one_operator()
    kinds = {"bare": (BARE, graph), "runtime": (RUNTIME, *asked), "two threads": (RUNTIME, *asked[:2], "2")}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for name, command in [*kinds.items()] * (rounds + 1):  # the first turn of each fills the system's caches
        child = Child(compiled, *command)
        found[name].append({**child.found, "idle_ms": 1e3 * child.rest()["idle"] / REST})
        child.end()
    rows = {
        name: {key: median(run[key] for run in runs[1:]) for key in runs[0]} | {"n": rounds}
        for name, runs in found.items()
    }
    pair = [Child(compiled, RUNTIME, *asked) for _ in range(2)]
    at_once = [child.rest() for child in pair]
    for child in pair:
        child.end()
    bare, runtime = rows["bare"], rows["runtime"]
    return {
        "rows": rows,
        "pair": {f"{key}_mb": median(one[key] for one in at_once) for key in ("resident", "proportional")},
        "over_bare": {
            "first_answer_ms": runtime["first_ms"] - bare["first_ms"],
            "resident_mb": runtime["resident_mb"] - bare["resident_mb"],
            "idle_ms_per_s": max(rows["runtime"]["idle_ms"], rows["two threads"]["idle_ms"]),
        },
    }


def broken(over: Mapping[str, float]) -> list[str]:
    """Return which budgets are broken, a phrase each."""
    return [f"{name} is {over[name]:.3g}, budget {most:g}" for name, most in BUDGETS.items() if over[name] > most]


def table(result: Mapping[str, Any]) -> str:
    """Return a result as Markdown."""
    lines = [
        [name, str(row["n"]), *(f"{row[key]:.1f}" for key in ("first_ms", "first_cpu_ms", "resident_mb", "idle_ms"))]
        for name, row in result["rows"].items()
    ]
    over, pair, ran = result["over_bare"], result["pair"], result["environment"]
    load, rounds = (ran["load_average"] or ["unknown"])[0], result["rounds"]
    said = ", ".join(f"{SAID[name].format(over[name])} (budget {most:g})" for name, most in BUDGETS.items())
    rows = markdown(["process", "n", "first answer ms", "its CPU ms", "resident MB", "CPU ms in an idle second"], lines)
    return (
        f"{rows}\n\nBeside the bare process {said}. Of two processes with the bundle open, each has "
        f"{pair['resident_mb']:.1f} MB resident, and {pair['resident_mb'] - pair['proportional_mb']:.1f} MB of it are "
        f"the other's. Medians of {rounds} fresh processes each, in turn; {ran['cpu']}, load average {load}.\n"
    )


@click.command()
@click.argument("bundle", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="File for the result as JSON; its table lies beside it.")
def main(bundle: Path, rounds: int, out: Path | None) -> None:
    """Measure what BUNDLE adds to an app, and check the budgets."""
    ids = read(Bundle(bundle)).ids
    history = [ids[place % len(ids)] for place in range(HISTORY)]
    with TemporaryDirectory() as compiled:
        found = measure(bundle, history, rounds, compiled)
    result = {"schema": "edgerec-lean-1", "rounds": rounds, **found, "environment": environment()}
    if out:
        write_result(out, result, table(result))
    click.echo(table(result))
    if over := broken(result["over_bare"]):
        raise click.ClickException(f"over budget: {'; '.join(over)}")


if __name__ == "__main__":
    run(main)
