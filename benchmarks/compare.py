"""``bench compare``: is B slower than A? Noise-aware; "no difference shown" is an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.percentiles import ratio_of_medians, verdict
from edgerec.benchmarks.tables import table
from edgerec.files import sha256

ROUNDS = 3  # processes a cell: below, how processes differ is not known
Key = tuple[str, str, str, int | None]


def keyed(result: Mapping[str, Any], subject: str | None = None) -> dict[Key, dict[str, Any]]:
    """Return a result's cells by subject, kind, scenario and threads; with ``subject``, its cells under one name."""
    return {
        ("" if subject else cell["subject"], cell["kind"], cell["scenario"], cell["threads"]): cell
        for cell in result["cells"]
        if cell["device"] != "harness" and subject in (None, cell["subject"])
    }


def pairs(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare the cells of two results that were measured one after the other."""
    return compared(keyed(a), keyed(b), paired=False)


def subjects(result: Mapping[str, Any], a: str, b: str) -> list[dict[str, Any]]:
    """Compare two subjects of one result, whose rounds were interleaved."""
    return compared(keyed(result, a), keyed(result, b), paired=True)


def compared(a: Mapping[Key, Any], b: Mapping[Key, Any], paired: bool) -> list[dict[str, Any]]:
    """Return a row per cell of A: the ratio of latencies B / A at p50, and what it shows."""
    return [{**name(key), **one(cell, b.get(key), paired)} for key, cell in a.items()]


def name(key: Key) -> dict[str, Any]:
    """Return a key as part of a row."""
    return dict(zip(("subject", "kind", "scenario", "threads"), key, strict=True))


def one(a: Mapping[str, Any], b: Mapping[str, Any] | None, paired: bool) -> dict[str, Any]:
    """Compare a cell with its counterpart; a cell that was measured in A only is ``lost``."""
    if a["status"] != "measured":
        return {"ratio": None, "shows": f"A {a['status']}: {a['reason']}", "lost": False}
    if b is None or b["status"] != "measured":
        reason = "B has no such cell" if b is None else f"B {b['status']}: {b['reason']}"
        return {"ratio": None, "shows": reason, "lost": True}
    first, second = ([run["order_statistics_ms"] for run in cell["runs"]] for cell in (a, b))
    if (rounds := min(len(first), len(second))) < ROUNDS:
        shows = f"no difference can be shown of {rounds} rounds; expected {ROUNDS}, in both"
        return {"ratio": None, "shows": shows, "lost": False}
    found = ratio_of_medians(first, second, paired and len(first) == len(second))
    unstable = [side for side, cell in (("A", a), ("B", b)) if not cell["stable"]]
    return {**found, "shows": verdict(found), "lost": False, "unstable": unstable}


def slower(rows: Sequence[Mapping[str, Any]], limit: float) -> list[Mapping[str, Any]]:
    """Return the rows that a gate stops at: lost, or shown to be slower by more than the limit (0.05 is 5%)."""
    return [row for row in rows if row["lost"] or (row["ratio"] is not None and row["low"] > 1 + limit)]


def record(a: Path, b: Path, rows: Sequence[Mapping[str, Any]], limit: float | None) -> dict[str, Any]:
    """Return a comparison as it is kept: of what, where, and what it shows."""
    sides = {side: {"file": path.name, "sha256": sha256(path)} for side, path in (("a", a), ("b", b))}
    stopped = [] if limit is None else slower(rows, limit)
    return {
        "schema": "edgerec-compare-1", "environment": environment(), **sides,
        "rows": rows, "limit": limit, "passes": not stopped, "stopped": len(stopped),
    }  # fmt: skip


def report(found: Mapping[str, Any]) -> str:
    """Return a comparison as Markdown: what was compared, and a table."""
    ran, sides = found["environment"], [f"{found[side]['file']} ({found[side]['sha256'][:12]})" for side in "ab"]
    loads = ", ".join(f"{load:.1f}" for load in ran["load_average"] or []) or "unknown"
    where = f"{ran['cpu']}, onnxruntime {ran['packages']['onnxruntime']}; load average {loads}."
    return f"A is {sides[0]}, B is {sides[1]}. {where}\n\n{markdown(found['rows'])}\n"


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a table; two subjects of one result have no name in common, so there is none."""
    lines = []
    for row in rows:
        interval = "-" if row["ratio"] is None else f"{row['ratio']:.3f} ({row['low']:.3f}, {row['high']:.3f})"
        unstable = f"; unstable: {', '.join(row['unstable'])}" if row.get("unstable") else ""
        lines.append([row["subject"], row["kind"], row["scenario"], interval, row["shows"] + unstable])
    header = ("subject", "request", "scenario", "B / A at p50 (95%)", "shows")
    named = 0 if any(row["subject"] for row in rows) else 1
    return table(header[named:], [line[named:] for line in lines])
