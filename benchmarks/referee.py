"""Outside referees: does LoadGen itself, or a bare loop on the graph, measure what the harness measures?

    PYTHON benchmarks/referee.py BUNDLE INPUTS.json OUT.json

in an environment with edgerec, onnxruntime and ``mlcommons-loadgen``. INPUTS holds histories of item ids. In turn, and
several times, the same requests are timed by

    harness     this project's single-stream scenario
    loadgen     MLCommons' LoadGen (PyPI), single-stream, our runtime as its system under test
    loadgen, nothing asked    the same around a system that does nothing: what LoadGen's own calls of Python take
    bare loop   as onnxruntime_perf_test would: ``session.run`` on the request's feeds, made beforehand
    hyperfine   where it is installed: the process ``edgerec --version``, beside our own clock around it

The first two time the same work and should agree within 5% at p50, once LoadGen's own share is taken off; the bare loop
leaves out what the runtime does around the graph, and says how much that is.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.machine import Meter, affinity
from edgerec.benchmarks.scenarios import Plan, run
from edgerec.benchmarks.subjects import BundleSubject
from edgerec.files import write_result

ROUNDS, SECONDS, COUNT = 15, 2.0, 300
AGREE = 0.05
NOTHING = "loadgen, nothing asked"
STARTS = 15


def harness(subject: BundleSubject, inputs: Sequence[Any]) -> list[float]:
    """Return latencies in ms."""
    found = run(lambda batch: [subject.run_one(one) for one in batch], inputs, Plan(seconds=SECONDS, count=COUNT))
    return (found.latencies * 1e3).tolist()


def loadgen(subject: BundleSubject, inputs: Sequence[Any], nothing: bool = False) -> list[float]:
    """Return the p50 in ms, from LoadGen's own detailed log; with ``nothing``, the subject is not asked."""
    import mlperf_loadgen as lg

    def issue(samples: Sequence[Any]) -> None:
        for sample in samples:
            if not nothing:
                subject.run_one(inputs[sample.index])
            lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0)])

    settings = lg.TestSettings()
    settings.scenario, settings.mode = lg.TestScenario.SingleStream, lg.TestMode.PerformanceOnly
    settings.min_duration_ms, settings.min_query_count = int(SECONDS * 1000), COUNT
    settings.single_stream_expected_latency_ns = 500_000
    system = lg.ConstructSUT(issue, lambda: None)
    library = lg.ConstructQSL(len(inputs), len(inputs), lambda rows: None, lambda rows: None)
    with tempfile.TemporaryDirectory() as folder:
        logs = lg.LogSettings()
        logs.log_output.outdir, logs.log_output.copy_summary_to_stdout = folder, False
        lg.StartTestWithLogSettings(system, library, settings, logs, "")
        lines = (Path(folder) / "mlperf_log_detail.txt").read_text().splitlines()
    lg.DestroyQSL(library)
    lg.DestroySUT(system)
    found = [json.loads(line.split(" ", 1)[1]) for line in lines if line.startswith(":::MLLOG")]
    keys = {one["key"]: one["value"] for one in found}
    return [keys["result_50.00_percentile_latency_ns"] / 1e6]


def bare_loop(subject: BundleSubject, inputs: Sequence[Any]) -> list[float]:
    """Return latencies in ms of the graph alone."""
    recommender = subject.recommender
    session, outputs = recommender.ranker._session, ["items", "scores"]
    feeds: list[Mapping[str, Any]] = []
    for history in inputs:
        rows = np.array([recommender.rows(history)], np.int64)
        feeds.append(
            {
                "history": rows,
                "state": recommender.no_state[None],
                "k": np.array([10]),
                "exclude": np.unique(rows)[None],
            }
        )
    rng, found = np.random.default_rng(0), list[float]()
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(found) < COUNT:
        feed = feeds[int(rng.integers(len(feeds)))]
        start = time.perf_counter_ns()
        session.run(outputs, feed)
        found.append((time.perf_counter_ns() - start) / 1e6)
    return found


def process_start() -> dict[str, Any] | None:
    """Return what hyperfine and our clock say of a process, in ms, or None without hyperfine."""
    if shutil.which("hyperfine") is None:
        return None
    command = [sys.executable, "-m", "edgerec", "--version"]
    own, theirs = list[float](), list[float]()
    for _ in range(STARTS):
        start = time.monotonic_ns()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        own.append((time.monotonic_ns() - start) / 1e6)
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            options = ["-N", "--runs", "2", "--export-json", out.name]
            subprocess.run(["hyperfine", *options, " ".join(command)], check=True, stdout=subprocess.DEVNULL)
            theirs += [seconds * 1e3 for seconds in json.loads(Path(out.name).read_text())["results"][0]["times"][:1]]
    ratio = float(np.median(np.array(own) / np.array(theirs)))
    medians = {"hyperfine_ms": float(np.median(theirs)), "own_ms": float(np.median(own))}
    return {**medians, "ratio": ratio, "agrees": abs(ratio - 1) <= AGREE}


def report(result: Mapping[str, Any]) -> str:
    """Return a result's table as Markdown."""
    names = list(result["p50_ms"])
    lines = [("", *names), ["---"] * (len(names) + 1)]
    lines.append(("p50 ms, median over rounds", *(f"{np.median(values):.4f}" for values in result["p50_ms"].values())))
    ratios = [f"{result['harness_over'][name]:.3f}" if name in result["harness_over"] else "" for name in names]
    lines.append(("harness / referee, less what LoadGen takes around nothing", *ratios))
    said = {"loadgen": "yes" if result["agrees_with_loadgen"] else "no", "bare loop": "not the same work"}
    lines.append(("agrees within 5%", *(said.get(name, "") for name in names)))
    made = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    if start := result["process_start"]:
        agrees = "within" if start["agrees"] else "not within"
        made += (
            f"\n\n`edgerec --version`: hyperfine {start['hyperfine_ms']:.0f} ms, own clock {start['own_ms']:.0f} ms, "
            f"in turn; own / hyperfine {start['ratio']:.3f}, {agrees} 5%. "
            f"Other processes took {result['load']['foreign_cores']:.2f} cores meanwhile."
        )
    return made + "\n"


def main(bundle: Path, inputs: Sequence[Any], out: Path) -> None:
    """Ask all referees in turn, and write medians by round, ratios and what agrees."""
    subject = BundleSubject("recommend", str(bundle))
    subject.prepare()
    referees: dict[str, Callable[[BundleSubject, Sequence[Any]], list[float]]] = {
        "harness": harness,
        "loadgen": loadgen,
        NOTHING: partial(loadgen, nothing=True),
        "bare loop": bare_loop,
    }
    meter, rng = Meter(), np.random.default_rng(0)
    medians: dict[str, list[float]] = {name: [] for name in referees}
    for _ in range(ROUNDS):
        for name in rng.permutation(list(referees)):
            medians[name].append(float(np.median(referees[name](subject, inputs))))
    taken = {name: np.array(values) for name, values in medians.items()}
    theirs = {"loadgen": taken["loadgen"] - np.median(taken[NOTHING]), "bare loop": taken["bare loop"]}
    ratios = {name: float(np.median(taken["harness"] / values)) for name, values in theirs.items()}
    result = {
        "schema": "edgerec-referee-1",
        "environment": environment(),
        "affinity": affinity(),
        "load": meter.read(),
        "p50_ms": medians,
        "harness_over": ratios,
        "agrees_with_loadgen": abs(ratios["loadgen"] - 1) <= AGREE,
        "process_start": process_start(),
    }
    write_result(out, result, report(result))
    sys.stdout.write(json.dumps({key: result[key] for key in ("p50_ms", "harness_over", "process_start")}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text("utf-8")), Path(sys.argv[3]))
