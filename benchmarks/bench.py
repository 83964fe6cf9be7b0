"""From the command's names to one result: inputs, targets, cells, accuracy, environment."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgerec.benchmarks import jetson
from edgerec.benchmarks.accuracy import accuracy_rows
from edgerec.benchmarks.adapters import KINDS
from edgerec.benchmarks.compare import subjects
from edgerec.benchmarks.devices import DEVICES, of_device, peer, targets
from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.harness import Bench, Say, Settings, described, measure, settings_json
from edgerec.benchmarks.inputs import from_bundle, from_data
from edgerec.benchmarks.processes import Limits
from edgerec.benchmarks.scenarios import SCENARIOS
from edgerec.benchmarks.schema import NAME
from edgerec.errors import UsageError
from edgerec.interactions import Dataset, Split


def measured(
    bundles: Sequence[Path],
    devices: Sequence[str],
    kinds: Sequence[str],
    scenarios: Sequence[str],
    models: Sequence[Path],
    kits: Sequence[Path],
    torch_modes: Sequence[str],
    peers: Sequence[str],
    threads: Sequence[int],
    source: str | None,
    seconds: float,
    count: int,
    bound_ms: float,
    rounds: int,
    cold: int,
    seed: int,
    timeout: float,
    rss_limit_mb: float,
    say: Say,
) -> dict[str, Any]:
    """Measure everything that the command names; the arguments are its options.

    Returns:
        A result of schema ``edgerec-bench-1``.

    Raises:
        UsageError: Nothing can be asked or measured.
    """
    if unknown := [device for device in devices if device not in DEVICES]:
        raise UsageError(f"got the device {unknown[0]!r}; expected one of {', '.join(DEVICES)}")
    data = loaded(source) if source else None
    if not data and not bundles:
        raise UsageError("got nothing to ask; expected a bundle, whose golden requests are asked, or --data")
    inputs = from_data(*data) if data else from_bundle(bundles[0])
    chosen = targets(devices, bundles, models, kinds, threads, kits, torch_modes)
    chosen += [peer(one, kinds, threads[0]) for one in peers]
    # what a plan cannot be made of is refused in each cell's process, and recorded there
    plan = {"seconds": seconds, "count": count, "bound_ms": bound_ms, "sample_seed": seed, "schedule_seed": seed}
    settings = Settings(tuple(scenarios), plan, rounds, cold, Limits(timeout, rss_limit_mb), seed)
    before = environment()
    with tempfile.TemporaryDirectory(prefix="edgerec-bench-") as folder:
        bench = Bench({kind: inputs[kind] for kind in KINDS}, Path(folder), settings, say)
        found = measure(chosen, bench)
    shipped = {
        one.name: Path(one.options["bundle"]) for one in chosen if one.device != "peer" and "bundle" in one.options
    }
    files = {one.name: one.file for one in chosen}
    return {
        "schema": NAME,
        "environment": {**before, "jetson": jetson.board()},
        "settings": settings_json(settings),
        "inputs": described(inputs, data[0].name if data else bundles[0].name),
        "cells": found["cells"],
        "cold": found["cold"],
        "audits": found["audits"],
        "accuracy": accuracy_rows(found["answers"], inputs, files, shipped, data),
    }


def side_by_side(
    a: Path, b: Path, kinds: Sequence[str], seconds: float, rounds: int, threads: int, say: Say
) -> list[dict[str, Any]]:
    """Measure two bundles in interleaved rounds, on the requests of A, and compare them; both may be one file."""
    made = [
        replace(of_device("cpu-ort", path.resolve(), tuple(kinds), threads)[0], name=side)
        for side, path in zip("AB", (a, b), strict=True)
    ]
    inputs, settings = from_bundle(a), Settings(SCENARIOS[:1], {"seconds": seconds, "count": 100}, rounds, 0)
    with tempfile.TemporaryDirectory(prefix="edgerec-bench-") as folder:
        found = measure(made, Bench(inputs, Path(folder), settings, say))
    return subjects(found, "A", "B")


def loaded(source: str) -> tuple[Dataset, Split]:
    """Load a data set by name or folder, and split it as ``evaluate`` does."""
    from edgerec.data import Columns, load
    from edgerec.splits import SPLITS, split

    data = load(source, Columns(), False)
    return data, split(data, SPLITS[0])
