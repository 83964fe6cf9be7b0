"""A result as Markdown and as CSV: one place that words what was measured, for terminal, documents and report."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgerec.benchmarks.quality import markdown as markdown_table

Row = Sequence[str]
SPEED = (
    "subject",
    "request",
    "scenario",
    "n",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "p99.9 ms",
    "samples/s",
    "peak MB",
    "note",
)


def markdown(result: Mapping[str, Any]) -> str:
    """Return all of a result's tables."""
    parts = [card(result)]
    for title, (header, rows) in sections(result).items():
        if rows:
            parts.append(f"**{title}**\n\n{table(header, rows)}")
    return "\n\n".join(parts) + "\n"


def sections(result: Mapping[str, Any]) -> dict[str, tuple[Row, list[Row]]]:
    """Return title -> header and rows."""
    return {
        "Speed": (SPEED, [speed(cell) for cell in result["cells"]]),
        "Accuracy of the measured file": accuracy(result["accuracy"]),
        "Cold start, new process": cold(result["cold"]),
        "Audits": audits(result["audits"]),
    }


def card(result: Mapping[str, Any]) -> str:
    """Return what the numbers were measured on and how, in a few lines."""
    machine, settings, inputs = result["environment"], result["settings"], result["inputs"]
    loads = [run["machine"]["foreign_cores"] for cell in result["cells"] for run in cell["runs"]]
    affinity = next((run["machine"]["affinity"] for cell in result["cells"] for run in cell["runs"]), None)
    plan, length = settings["plan"], inputs["recommend"]["length"]
    load = f"{machine['load_average'][0]:.1f}" if machine["load_average"] else None
    return (
        f"{machine['cpu']}, {machine['platform']}, Python {machine['python']}, "
        f"onnxruntime {machine['packages']['onnxruntime']}; cores {affinity}, "
        f"load {load}, other processes took {max(loads, default=0):.2f} cores at most. "
        f"{inputs['recommend']['n']} histories of {inputs['source']}, {length['p50']:g} events in the middle, "
        f"{length['most']:g} at most. Each cell ran in {settings['rounds']} processes, interleaved, for at least "
        f"{plan['seconds']:g} s and {plan['count']} queries each; figures are medians over processes. In brackets: "
        "what the percentile does not exceed, at 99% confidence, in the worst of the processes."
    )


def table(header: Row, rows: Iterable[Row]) -> str:
    """Return a Markdown table."""
    return markdown_table(header, [[cell.replace("|", "\\|") for cell in line] for line in rows])


def speed(cell: Mapping[str, Any]) -> Row:
    """Return a timed cell's line."""
    start = [cell["subject"], cell["kind"], cell["scenario"]]
    if cell["status"] != "measured":
        return [*start, *[""] * (len(SPEED) - 4), f"{cell['status']}: {cell['reason']}"]
    latency = cell["latency_ms"]
    shown = [percentile(latency[name], name) for name in ("p50", "p90", "p99", "p99.9")]
    notes = [] if cell["stable"] else ["unstable"]
    if cell["scenario"] == "server":
        bound = cell["runs"][0].get("bound_ms", 0)
        held = (
            f"{cell['rate']:.0f} queries/s hold p99 <= {bound:g} ms" if cell["rate"] else f"no rate holds {bound:g} ms"
        )
        notes.append(held)
    figures = [f"{cell['samples_per_second']:.0f}", number(cell["peak_mb"], ".0f")]
    return [*start, str(latency["n"]), *shown, *figures, "; ".join(notes)]


def percentile(found: Mapping[str, Any], name: str) -> str:
    """Return a percentile with its bound; without a bound, a tail is not shown at all."""
    if found["bound"] is None:
        return f"{found['value']:.3g}" if name == "p50" else "n too small"
    return f"{found['value']:.3g} ({found['bound']:.3g})"


def number(value: float | None, form: str) -> str:
    """Return a number, or that there is none."""
    return "-" if value is None else format(value, form)


def accuracy(rows: Sequence[Mapping[str, Any]]) -> tuple[Row, list[Row]]:
    """Return header and lines of what the files are worth."""
    header = (
        "subject",
        "request",
        "NDCG@10 (95%)",
        "HR@10",
        "cold HR (n)",
        "top-10 overlap",
        "cosine, mean (least)",
        "set against",
        "goldens",
        "MB",
        "sha256",
    )
    lines: list[Row] = []
    for row in rows:
        if row["device"] == "harness" or row["status"] != "measured":
            continue
        quality, replayed = row["quality"], row["goldens"]
        ndcg = (
            quality and f"{quality['ndcg']['mean']:.3f} ({quality['ndcg']['low']:.3f}, {quality['ndcg']['high']:.3f})"
        )
        cold_hr = (
            "-" if not quality or quality["cold_hr"] is None else f"{quality['cold_hr']:.3f} ({quality['cold_users']})"
        )
        goldens = "-" if not replayed else "pass" if replayed["passes"] else "FAIL"
        cosine = row.get("cosine")
        close = f"{cosine['mean']:.4f} ({cosine['least']:.4f})" if cosine else "-"
        against = row.get("overlap_with") or row.get("cosine_with") or "-"
        size = "-" if row["bytes"] is None else f"{row['bytes'] / 1e6:.2f}"
        lines.append(
            [row["subject"], row["kind"], ndcg or "-", f"{quality['hr']['mean']:.3f}" if quality else "-", cold_hr]
            + [number(row["overlap10"], ".4f"), close, against, goldens, size, (row["sha256"] or "-")[:12]]
        )
    return header, lines


def cold(rows: Sequence[Mapping[str, Any]]) -> tuple[Row, list[Row]]:
    """Return header and lines of cold starts; stages that a subject does not part are one."""
    lines: list[Row] = []
    for row in rows:
        start = [row["subject"], row["kind"]]
        if row["status"] != "measured":
            lines.append([*start, "", f"{row['status']}: {row['reason']}"])
        elif row["total_ms"] is not None:
            stages = ", ".join(f"{name} {value:.0f}" for name, value in row["stages_ms"].items())
            lines.append([*start, f"{row['total_ms']:.0f}", stages])
    return ("subject", "request", "total ms", "stages, ms"), lines


def audits(rows: Sequence[Mapping[str, Any]]) -> tuple[Row, list[Row]]:
    """Return header and lines of the audits."""
    header = ("subject", "request", "answers while timed = answers of the accuracy run", "repeated input faster by")
    lines: list[Row] = []
    for row in rows:
        first, second = row["test01"], row["test04"]
        same = (
            first["reason"]
            if first["passes"] is None
            else f"{verdict(first)}: {first['different']} of {first['answers']} differ"
        )
        faster = (
            second["reason"]
            if second["status"] != "measured"
            else f"{verdict(second)}: {second['faster']:.1%} (at least {second['least']:.1%})"
        )
        lines.append([row["subject"], row["kind"], same, faster])
    return header, lines


def verdict(audit: Mapping[str, Any]) -> str:
    """Return how an audit ended."""
    return "pass" if audit["passes"] else "FAIL"


def csv_text(result: Mapping[str, Any]) -> str:
    """Return the timed cells as CSV, figures unrounded."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    percentiles = ("p50", "p90", "p99", "p99.9")
    bounds = [f"{name}_ms{end}" for name in percentiles for end in ("", "_bound")]
    writer.writerow(
        ["subject", "device", "kind", "scenario", "precision", "threads", "status", "reason", "stable", "n"]
        + [*bounds, "samples_per_second", "peak_mb"]
    )
    for cell in result["cells"]:
        start = [
            cell[key] for key in ("subject", "device", "kind", "scenario", "precision", "threads", "status", "reason")
        ]
        if cell["status"] != "measured":
            writer.writerow(start)
            continue
        latency = cell["latency_ms"]
        figures = [latency[name][part] for name in percentiles for part in ("value", "bound")]
        writer.writerow([*start, cell["stable"], latency["n"], *figures, cell["samples_per_second"], cell["peak_mb"]])
    return stream.getvalue()
