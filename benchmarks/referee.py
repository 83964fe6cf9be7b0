"""Outside referees: does LoadGen itself, or a bare loop on the graph, measure what the harness measures?

    PYTHON benchmarks/referee.py BUNDLE INPUTS.json OUT.json

in an environment with edgerec, onnxruntime and ``mlcommons-loadgen``. INPUTS holds histories of item ids. In turn, and
several times, the same requests are timed by

    harness     this project's single-stream scenario
    loadgen     MLCommons' LoadGen (PyPI), single-stream, our runtime as its system under test
    inside loadgen    in the same run, our own clock around each call of the runtime
    loadgen, nothing asked    the same around a system that does nothing
    bare loop   as onnxruntime_perf_test would: ``session.run`` on the request's feeds, made beforehand
    harness, graph alone    this project's scenario around the same
    hyperfine   where it is installed: the process ``edgerec --version``, beside our own clock around it

The first three time the same work and should agree within 5% at p50. What LoadGen finds beyond the clock inside it is
its own: logging, and calling Python. The last two time the same work too, which leaves out what the runtime does around
the graph.
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

from edgerec.benchmarks.environment import environment, version
from edgerec.benchmarks.machine import Meter, affinity
from edgerec.benchmarks.percentiles import ratio_of_medians
from edgerec.benchmarks.scenarios import Plan, run
from edgerec.benchmarks.subjects import BundleSubject
from edgerec.files import sha256, write_result

ROUNDS, SECONDS, COUNT = 60, 0.5, 300  # turns far shorter than a machine's slow spells, which a ratio must not see
AGREE = 0.05
INSIDE, NOTHING = "inside loadgen", "loadgen, nothing asked"
UNDER_LOADGEN = ("loadgen", INSIDE)
BARE, ALONE = "bare loop", "harness, graph alone"
SAME_WORK = {"loadgen": "harness", INSIDE: "harness", BARE: ALONE}  # what is set against what
STARTS = 60


def over(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Return the median over rounds of a ratio, 95% by a bootstrap over rounds, and whether it is within 5% of 1."""
    found = ratio_of_medians([[one] for one in theirs], [[one] for one in ours], paired=True)
    return {**found, "agrees": abs(found["ratio"] - 1) <= AGREE}


def said(found: Mapping[str, Any]) -> str:
    """Return a ratio with its interval."""
    return f"{found['ratio']:.3f} ({found['low']:.3f}, {found['high']:.3f})"


def harness(run_one: Callable[[Any], Any], inputs: Sequence[Any]) -> float:
    """Return the p50 in ms."""
    found = run(lambda batch: [run_one(one) for one in batch], inputs, Plan(seconds=SECONDS, count=COUNT))
    return float(np.median(found.latencies)) * 1e3


def loadgen(run_one: Callable[[Any], Any], inputs: Sequence[Any]) -> tuple[float, float]:
    """Return the p50 in ms of LoadGen's own detailed log, and of our clock around each call in the same run."""
    import mlperf_loadgen as lg

    inside = list[int]()

    def issue(samples: Sequence[Any]) -> None:
        for sample in samples:
            start = time.perf_counter_ns()
            run_one(inputs[sample.index])
            inside.append(time.perf_counter_ns() - start)
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
        logs.enable_trace = False  # as MLPerf's submissions do: it writes each event down meanwhile
        lg.StartTestWithLogSettings(system, library, settings, logs, "")
        lines = (Path(folder) / "mlperf_log_detail.txt").read_text().splitlines()
    lg.DestroyQSL(library)
    lg.DestroySUT(system)
    found = [json.loads(line.split(" ", 1)[1]) for line in lines if line.startswith(":::MLLOG")]
    keys = {one["key"]: one["value"] for one in found}
    return keys["result_50.00_percentile_latency_ns"] / 1e6, float(np.median(inside)) / 1e6


def feeds_of(subject: BundleSubject, inputs: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Return what the graph is fed for each request."""
    recommender = subject.recommender
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
    return feeds


def bare_loop(run_one: Callable[[Any], Any], feeds: Sequence[Any]) -> float:
    """Return the p50 in ms of nothing but a loop."""
    rng, found = np.random.default_rng(0), list[int]()
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(found) < COUNT:
        feed = feeds[int(rng.integers(len(feeds)))]
        start = time.perf_counter_ns()
        run_one(feed)
        found.append(time.perf_counter_ns() - start)
    return float(np.median(found)) / 1e6


def process_start() -> dict[str, Any] | None:
    """Return what hyperfine and our clock say of a process, in ms, or None without hyperfine."""
    if shutil.which("hyperfine") is None:
        return None
    command = [sys.executable, "-m", "edgerec", "--version"]

    def own() -> float:
        start = time.monotonic_ns()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return (time.monotonic_ns() - start) / 1e6

    def theirs() -> float:
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            options = ["-N", "--runs", "2", "--export-json", out.name]
            subprocess.run(["hyperfine", *options, " ".join(command)], check=True, stdout=subprocess.DEVNULL)
            return float(json.loads(Path(out.name).read_text())["results"][0]["times"][0]) * 1e3

    clocks = {"own_ms": own, "hyperfine_ms": theirs}
    found, rng = {name: list[float]() for name in clocks}, np.random.default_rng(0)
    for _ in range(STARTS):
        for name in rng.permutation(list(clocks)):
            found[name].append(clocks[name]())
    return {**found, **over(found["own_ms"], found["hyperfine_ms"])}


def hyperfine() -> str | None:
    """Return what hyperfine says of its version, or None where it is not installed."""
    if shutil.which("hyperfine") is None:
        return None
    return subprocess.run(["hyperfine", "--version"], capture_output=True, text=True).stdout.split()[-1]


def report(result: Mapping[str, Any]) -> str:
    """Return a result's table as Markdown."""
    names, found = list(result["p50_ms"]), result["harness_over"]
    lines = [("", *names), ["---"] * (len(names) + 1)]
    rounds = len(result["p50_ms"]["harness"])
    lines.append(
        (f"p50 ms, median over {rounds} rounds", *(f"{np.median(values):.4f}" for values in result["p50_ms"].values()))
    )
    ratios = [said(found[name]) if name in found else "" for name in names]
    lines.append(("harness on the same work / referee (95%)", *ratios))
    agree = [("yes" if found[name]["agrees"] else "no") if name in found else "" for name in names]
    lines.append(("agrees within 5%", *agree))
    made = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    if start := result["process_start"]:
        agrees = "within" if start["agrees"] else "not within"
        made += (
            f"\n\n`edgerec --version`: hyperfine {np.median(start['hyperfine_ms']):.0f} ms, "
            f"own clock {np.median(start['own_ms']):.0f} ms, medians of {len(start['own_ms'])} starts each, "
            f"in turn; own / hyperfine {said(start)}, {agrees} 5%. {result['environment']['cpu']}; "
            f"other processes took {result['load']['foreign_cores']:.2f} cores meanwhile."
        )
    return made + "\n"


def main(bundle: Path, inputs: Sequence[Any], out: Path) -> None:
    """Ask all referees in turn, and write medians by round, ratios and what agrees."""
    subject = BundleSubject("recommend", str(bundle))
    subject.prepare()
    feeds, graph = feeds_of(subject, inputs), partial(subject.recommender.ranker._session.run, ["items", "scores"])
    # what is measured at once, and how
    referees: dict[tuple[str, ...], Callable[[], tuple[float, ...]]] = {
        ("harness",): lambda: (harness(subject.run_one, inputs),),
        UNDER_LOADGEN: lambda: loadgen(subject.run_one, inputs),
        (NOTHING,): lambda: loadgen(lambda request: None, inputs)[:1],
        (BARE,): lambda: (bare_loop(graph, feeds),),
        (ALONE,): lambda: (harness(graph, feeds),),
    }
    meter, rng, turns = Meter(), np.random.default_rng(0), list(referees)
    medians: dict[str, list[float]] = {name: [] for names in turns for name in names}
    for _ in range(ROUNDS):
        for turn in rng.permutation(len(turns)):
            for name, value in zip(turns[turn], referees[turns[turn]](), strict=True):
                medians[name].append(value)
    result = {
        "schema": "edgerec-referee-2",
        "bundle": {"file": bundle.name, "sha256": sha256(bundle)},
        "referees": {"mlcommons_loadgen": version("mlcommons_loadgen"), "hyperfine": hyperfine()},
        "environment": environment(),
        "affinity": affinity(),
        "load": meter.read(),
        "p50_ms": medians,
        "harness_over": {name: over(medians[ours], medians[name]) for name, ours in SAME_WORK.items()},
        "process_start": process_start(),
    }
    write_result(out, result, report(result))
    sys.stdout.write(json.dumps({key: result[key] for key in ("p50_ms", "harness_over", "process_start")}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text("utf-8")), Path(sys.argv[3]))
