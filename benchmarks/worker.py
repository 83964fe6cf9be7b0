"""One task of one subject in a process of its own: ``python -m edgerec.benchmarks.worker TASK.json``.

The task names the file for the result; what the subject prints does not matter. Needs numpy and what the subject needs.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgerec.benchmarks import adapters, machine, power
from edgerec.benchmarks.percentiles import order_statistics, stability, summarise, windows
from edgerec.benchmarks.scenarios import Plan, Watch, run
from edgerec.errors import UsageError
from edgerec.files import write_json

FASTER = 0.10  # a repeated input may be answered so much faster than a new one (MLPerf's TEST04)
WARMUP = 10  # inputs of that audit that are not counted
TWICE = 256  # inputs that are asked twice for it, at most, so that a slow subject is not asked twice as much


def timed(subject: adapters.Subject, kind: str, inputs: Sequence[Any], plan: Plan, spawned: int) -> dict[str, Any]:
    """Prepare, which is a cold start, and run a scenario."""
    before = machine.memory()
    started = cold(subject, kind, inputs, spawned)
    adapters.observe(subject, kind, inputs)
    prepared, heat = machine.memory(), machine.clocks()
    sensor, reason = power.find(gpu=getattr(subject, "device", "").startswith("cuda"))
    baseline = power.idle(sensor) if sensor else None
    meter, joules = machine.Meter(), power.Meter(sensor) if sensor else None
    if joules:
        joules.start()
    found = run(adapters.asker(subject), inputs, plan, Watch(adapters.clock(subject)))
    if joules:
        joules.stop()
    milliseconds = found.latencies * 1e3
    return {
        "latency_ms": summarise(milliseconds),
        "order_statistics_ms": order_statistics(milliseconds),
        "stability": stability(windows(milliseconds)),
        "samples_per_second": found.samples / found.elapsed,
        "seconds": found.elapsed,
        "memory": {"before": before, "prepared": prepared, "after": machine.memory()},
        "machine": {
            "before": heat,
            "after": machine.clocks(),
            "affinity": machine.affinity(),
            "threads": machine.threads(),
            **meter.read(),
        },
        "energy": power.energy(sensor, joules, baseline, found.samples) if sensor and joules else power.nothing(reason),
        "cold": {"status": "measured", **started},
        "kept": [[number, plain(answer, kind)] for number, answer in found.kept],
        **found.extra,
    }


def answers(subject: adapters.Subject, kind: str, inputs: Sequence[Any]) -> dict[str, Any]:
    """Answer every input, some of them twice, and what the file knows the answers of.

    Returns:
        ``answers``, the first to each input: what accuracy is computed from; ``goldens``; and ``repeat``, how long the
        second ones took (TEST04).
    """
    subject.prepare()
    adapters.observe(subject, kind, inputs)
    different, first = {json.dumps(one): one for one in inputs}, dict[str, list[Any]]()

    def keep(one: Any, answer: Any) -> None:
        first.setdefault(json.dumps(one), plain(answer, kind))

    twice = [*different.values()][:TWICE]
    if len(twice) >= WARMUP + 2:
        audit = {"status": "measured", **repeats(subject.run_one, twice, Watch(adapters.clock(subject)), keep)}
    else:
        reason = f"got {len(twice)} different inputs; expected at least {WARMUP + 2}"
        audit = {"status": "not measured", "reason": reason}
    for key, one in different.items():
        if key not in first:
            keep(one, subject.run_one(one))
    found = [first[json.dumps(one)] for one in inputs]
    if kind == "encode" and len(lengths := {*map(len, found)}) > 1:
        raise UsageError(f"answered vectors of {min(lengths)} and of {max(lengths)} numbers; expected one length")
    return {"answers": found, "goldens": goldens(subject), "repeat": audit}


def goldens(subject: adapters.Subject) -> dict[str, Any] | None:
    """Return how a subject answers its file's golden requests; whatever it raises there is no more than a failure."""
    try:
        found = adapters.goldens(subject)
        if found is not None and not isinstance(found["passes"], bool):
            raise UsageError(f"got passes = {found['passes']!r}; expected true or false")
    except Exception as error:  # engines' errors share no base class
        return {"passes": False, "reason": told(error)}
    return found


def cold(subject: adapters.Subject, kind: str, inputs: Sequence[Any], spawned: int) -> dict[str, Any]:
    """Time how long a new process takes to its first answer, by stages, in milliseconds.

    Args:
        subject: Not prepared.
        kind: Of the request.
        inputs: The first is asked.
        spawned: ``time.monotonic_ns`` of the parent when it made this process.
    """
    last = time.monotonic_ns()
    found = {"process": (last - spawned) / 1e6}

    def first() -> None:
        adapters.observe(subject, kind, inputs[:1])
        subject.run_one(inputs[0])

    for name, stage in (*adapters.stages(subject), ("first result", first)):
        stage()
        now = time.monotonic_ns()
        found[name], last = (now - last) / 1e6, now
    return {"stages_ms": found, "total_ms": (last - spawned) / 1e6}


def repeats(
    ask: Callable[[Any], Any], inputs: Sequence[Any], watch: Watch, keep: Callable[[Any, Any], None] | None = None
) -> dict[str, Any]:
    """Compare how long an input takes when it is new and when it comes again (after MLPerf's TEST04).

    Every input comes again right after the one that follows it, and none was asked before; the first ``WARMUP`` do not
    count. So an answer that is remembered shows, whatever the length of the input; what an engine prepares anew where a
    length is not the last one's (OpenVINO does) meets both times alike. So does ``keep``, which takes each input and
    its answer, second ones too, while the clock stands.

    Returns:
        ``faster``, by how much the repeated inputs' median is below the new ones', the ``least`` that a bootstrap over
        inputs leaves of it (one-sided, 97.5%), and whether that ``passes``.
    """

    def taken(one: Any) -> int:
        start = watch()
        answer = ask(one)
        passed = watch() - start
        if keep:
            keep(one, answer)
        return passed

    new, again = [taken(inputs[0])], list[int]()
    for before, one in itertools.pairwise(inputs):
        new.append(taken(one))
        again.append(taken(before))
    pairs = np.array([new[:-1], again], np.float64)[:, WARMUP:]
    drawn = np.random.default_rng(0).integers(0, pairs.shape[1], (500, pairs.shape[1]))
    ratios = [np.median(pairs[1, rows]) / max(np.median(pairs[0, rows]), 1.0) for rows in drawn]
    faster, least = 1 - float(np.median(pairs[1]) / np.median(pairs[0])), 1 - float(np.percentile(ratios, 97.5))
    return {"inputs": pairs.shape[1], "faster": faster, "least": least, "passes": least <= FASTER}


def plain(answer: Any, kind: str) -> list[Any]:
    """Return an answer as a JSON value; vectors to six digits.

    Raises:
        UsageError: It is no answer to its kind of request.
    """
    if kind == "encode":
        vector = np.asarray(answer, np.float64)
        if vector.ndim != 1 or not np.isfinite(vector).all():
            raise UsageError(f"answered an array of shape {vector.shape}; expected a vector of finite numbers")
        return [float(f"{value:.6g}") for value in vector.tolist()]
    if not isinstance(answer, Sequence) or not all(isinstance(one, str) for one in answer):
        raise UsageError(f"answered {str(answer)[:80]}; expected a list of item ids")
    return list(answer)


def told(error: Exception) -> str:
    """Return an error's kind and words in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def perform(task: Mapping[str, Any]) -> dict[str, Any]:
    """Do a task; what the subject raises becomes its result."""
    kind = task["kind"]
    try:
        inputs = json.loads(Path(task["inputs"]).read_text("utf-8"))
        subject = adapters.load(task["subject"], kind, task["options"])
        if task["task"] == "cold":
            found = cold(subject, kind, inputs, task["spawned"])
        elif task["task"] == "answers":
            found = answers(subject, kind, inputs)
        else:
            found = timed(subject, kind, inputs, Plan(**task["plan"]), task["spawned"])
        subject.close()
    except adapters.NotHere as reason:
        return {"status": "not measured", "reason": str(reason)}
    except Exception as error:  # a subject may raise anything, and the other cells go on
        return {"status": "failed", "reason": told(error)}
    return {"status": "measured", **found}


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    write_json(Path(given["out"]), perform(given))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the result is written; torch would take another second to take itself apart
