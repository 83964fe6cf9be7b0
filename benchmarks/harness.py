"""``bench run``: every cell in processes of its own, rounds in an order drawn anew, accuracy and audits beside speed.

A cell is a subject, a kind of request and a scenario. In each round every cell runs once in a new process, so that a
slow spell of the machine meets all of them, and a lucky memory layout is drawn again. Whatever happens to one cell is
recorded with it, and the others go on.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgerec.benchmarks import processes
from edgerec.benchmarks.percentiles import stability

VECTORS_EQUAL = 1e-4  # largest difference of a coordinate between two runs of one subject
NO_AUDIT = dict.fromkeys(("reason", "passes", "answers", "different", "faster", "least"))
Say = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """Who is measured at which kinds of request.

    Attributes:
        name: As tables show it.
        device: Such as ``cpu-ort``.
        where: ``module:Class`` or ``file.py:Class``.
        kinds: Of requests.
        options: What the class is made with.
        file: What is measured, for its size and sha256.
        model: The name of what the file was made from, or is; who shares it is compared.
        precision: As the file states it.
        interpreter: Python of a peer's own environment.
        missing: Why it cannot be measured here, if that is known beforehand.
    """

    name: str
    device: str
    where: str
    kinds: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None
    model: str | None = None
    precision: str | None = None
    interpreter: str | None = None
    missing: str | None = None


@dataclass(frozen=True)
class Settings:
    """How a whole measurement goes.

    Attributes:
        scenarios: Which.
        plan: Fields of each run's ``Plan``; its scenario is added, its seeds rise with the round.
        rounds: Runs of each cell.
        cold: Cold starts of each subject, at least: every timed run begins with one.
        limits: Of one process.
        seed: Of the order.
    """

    scenarios: tuple[str, ...] = ("single-stream",)
    plan: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 3
    cold: int = 5
    limits: processes.Limits = field(default_factory=processes.Limits)
    seed: int = 0


@dataclass
class Cell:
    """One row of the result while it fills."""

    target: Target
    kind: str
    scenario: str | None  # None for what has none: answers, cold starts, audits
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str]:
        """Who is asked what, whatever the scenario."""
        return self.target.name, self.kind

    @property
    def fault(self) -> dict[str, Any] | None:
        """The first run that was not measured; the cell is not run again."""
        return next((run for run in self.runs if run["status"] != "measured"), None)


class Bench:
    """Runs tasks of cells, and keeps the inputs of each kind in files.

    Args:
        inputs: Kind -> requests.
        folder: For files between processes.
        settings: How.
        say: Takes a line of progress.
    """

    def __init__(self, inputs: Mapping[str, Sequence[Any]], folder: Path, settings: Settings, say: Say) -> None:
        self.settings, self.say, self._folder = settings, say, folder
        self.inputs = {kind: list(requests) for kind, requests in inputs.items()}
        for kind, requests in self.inputs.items():
            self._file(kind).write_text(json.dumps(requests), "utf-8")

    def _file(self, kind: str) -> Path:
        return self._folder / f"inputs-{kind}.json"

    def task(self, cell: Cell, name: str, **plan: Any) -> dict[str, Any]:
        """Do one task of a cell in a new process."""
        target = cell.target
        if target.missing:
            return {"status": "not measured", "reason": target.missing}
        task = {
            "task": name,
            "subject": target.where,
            "kind": cell.kind,
            "options": dict(target.options),
            "plan": {**self.settings.plan, **plan},
            "inputs": str(self._file(cell.kind)),
        }
        found = processes.perform(task, self._folder, self.settings.limits, target.interpreter)
        self.say(f"{name:8} {target.name}, {cell.kind}{f', {cell.scenario}' if cell.scenario else ''}: {short(found)}")
        return found

    def rounds(self, cells: Sequence[Cell], count: int, name: str) -> None:
        """Run cells ``count`` times, each round in an order drawn anew; a cell that failed is not run again."""
        rng = random.Random(self.settings.seed)
        for number in range(count):
            order = [cell for cell in cells if not cell.fault]
            rng.shuffle(order)
            for cell in order:
                plan = self.settings.plan
                seeds = {name: plan.get(name, 0) + number for name in ("sample_seed", "schedule_seed")}
                scenario = {"scenario": cell.scenario} if cell.scenario else {}
                cell.runs.append({**self.task(cell, name, **seeds, **scenario), "round": number})


def measure(targets: Sequence[Target], bench: Bench) -> dict[str, list[dict[str, Any]]]:
    """Measure targets at every kind and scenario.

    Returns:
        ``cells`` (speed), ``cold`` (start by stages), ``audits`` (TEST01 and TEST04), and ``answers``, which
        ``accuracy`` is computed from and which the result file does not hold.
    """
    pairs = [(target, kind) for target in targets for kind in target.kinds]
    answers, cold = [Cell(*pair, None) for pair in pairs], [Cell(*pair, None) for pair in pairs]
    timed = [Cell(*pair, scenario) for pair in pairs for scenario in bench.settings.scenarios]
    bench.rounds(answers, 1, "answers")
    unable = {cell.key: cell.fault for cell in answers if cell.fault}
    for cell in (*timed, *cold):  # who cannot answer is not timed
        if fault := unable.get(cell.key):
            cell.runs.append(fault)
    bench.rounds(timed, bench.settings.rounds, "run")
    for cell in cold:  # every timed run began with one
        own = [one for one in timed if one.key == cell.key]
        begun = [run["cold"] for one in own for run in one.runs if "cold" in run]
        cell.runs += begun or [one.fault for one in own[:1] if one.fault and not cell.fault]
    short_of = [cell for cell in cold if not cell.fault and len(cell.runs) < bench.settings.cold]
    bench.rounds(short_of, max((bench.settings.cold - len(cell.runs) for cell in short_of), default=0), "cold")
    audits = [
        {
            **head(cell),
            "test01": {**NO_AUDIT, **compared(cell, timed)},
            "test04": {**NO_AUDIT, **cell.runs[0].get("repeat", cell.runs[0])},
        }
        for cell in answers
        if cell.target.device != "harness" and not cell.target.missing
    ]
    return {
        "cells": [speed_row(cell) for cell in timed],
        "cold": [cold_row(cell) for cell in cold],
        "audits": audits,
        "answers": [{**head(cell), **without(cell.runs[0], "repeat", "round")} for cell in answers],
    }


def without(run: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return a run but for some keys."""
    return {key: value for key, value in run.items() if key not in keys}


def head(cell: Cell) -> dict[str, Any]:
    """Return what names a row."""
    target = cell.target
    return {
        "subject": target.name,
        "device": target.device,
        "kind": cell.kind,
        "model": target.model,
        "precision": target.precision,
        "threads": target.options.get("threads"),
    }


def speed_row(cell: Cell) -> dict[str, Any]:
    """Return a timed cell: pooled over its rounds, and each round."""
    row: dict[str, Any] = {**head(cell), "scenario": cell.scenario, "status": "measured", "reason": None, "runs": []}
    row |= dict.fromkeys(("latency_ms", "stable", "samples_per_second", "peak_mb", "rate"))
    if fault := cell.fault:
        return {**row, "status": fault["status"], "reason": fault["reason"]}
    row["runs"] = [without(run, "kept", "status", "cold") for run in cell.runs]
    medians = [run["latency_ms"]["p50"]["value"] for run in cell.runs]
    between = stability(medians)
    within = all(run["stability"]["stable"] for run in cell.runs)
    row["stable"] = within and (between["stable"] or len(medians) < 3)
    row["between_rounds"] = between
    row["latency_ms"] = pooled([run["latency_ms"] for run in cell.runs])
    row["samples_per_second"] = float(np.median([run["samples_per_second"] for run in cell.runs]))
    row["peak_mb"] = max((run["memory"]["after"]["peak_mb"] or 0 for run in cell.runs), default=None) or None
    if cell.scenario == "server":
        holding = [run["rate"] for run in cell.runs if run.get("holds", True)]
        row["rate"] = float(np.median(holding)) if len(holding) == len(cell.runs) else None
    return row


def pooled(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the median over rounds of each figure, and the worst bound; a bound that a round lacks is None."""
    found: dict[str, Any] = {
        "n": sum(one["n"] for one in rounds),
        "mean": float(np.median([r["mean"] for r in rounds])),
    }
    for name in (key for key in rounds[0] if key.startswith("p")):
        bounds = [one[name]["bound"] for one in rounds]
        value = float(np.median([one[name]["value"] for one in rounds]))
        found[name] = {"value": value, "bound": None if None in bounds else max(bounds)}
    return found


def cold_row(cell: Cell) -> dict[str, Any]:
    """Return a subject's cold start: the median over processes, in all and by stage."""
    if fault := cell.fault:
        return {
            **head(cell), "status": fault["status"], "reason": fault["reason"], "total_ms": None, "stages_ms": {}
        }  # fmt: skip
    names = cell.runs[0]["stages_ms"] if cell.runs else {}
    stages = {name: float(np.median([run["stages_ms"][name] for run in cell.runs])) for name in names}
    totals = [run["total_ms"] for run in cell.runs]
    total = float(np.median(totals)) if totals else None
    return {
        **head(cell),
        "status": "measured",
        "reason": None,
        "total_ms": total,
        "stages_ms": stages,
        "all_ms": totals,
    }


def compared(audited: Cell, timed: Sequence[Cell]) -> dict[str, Any]:
    """Compare the answers kept of timed runs with those of an accuracy run (TEST01)."""
    reference = audited.runs[0].get("answers")
    own = (run for cell in timed if cell.key == audited.key for run in cell.runs)
    kept = [pair for run in own for pair in run.get("kept", [])]
    if not reference or not kept:
        return {"status": "not measured", "reason": "no answers to compare", "passes": None}
    different = sum(not same(answer, reference[number]) for number, answer in kept)
    return {"status": "measured", "answers": len(kept), "different": different, "passes": not different}


def same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Tell whether two answers are equal: lists of ids as they are, vectors within a tolerance."""
    if len(a) != len(b) or not a or isinstance(a[0], str):
        return list(a) == list(b)
    return bool(np.abs(np.subtract(a, b)).max() <= VECTORS_EQUAL)


def short(found: Mapping[str, Any]) -> str:
    """Return a result as part of a progress line."""
    if found["status"] != "measured":
        return f"{found['status']}: {found['reason']}"
    if "latency_ms" in found:
        return f"p50 {found['latency_ms']['p50']['value']:.4g} ms of {found['latency_ms']['n']}"
    return f"{found['total_ms']:.4g} ms" if "total_ms" in found else "done"


def described(inputs: Mapping[str, Sequence[Any]], source: str) -> dict[str, Any]:
    """Return what the inputs are: how many, how long, and their sha256."""
    rows = {}
    for kind, requests in inputs.items():
        lengths = [len(one) for one in requests]  # events of a history, characters of a text
        quantiles = np.percentile(lengths, [0, 50, 90, 100], method="inverted_cdf").tolist()
        digest = hashlib.sha256(json.dumps(list(requests)).encode()).hexdigest()
        rows[kind] = {
            "n": len(requests),
            "unit": "events" if kind in ("recommend", "session") else "characters",
            "length": dict(zip(("least", "p50", "p90", "most"), quantiles, strict=True)),
            "sha256": digest,
        }
    return {"source": source, **rows}


def settings_json(settings: Settings) -> dict[str, Any]:
    """Return settings as a JSON value."""
    return {**asdict(settings), "limits": settings.limits._asdict()}
