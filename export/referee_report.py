"""What the referee found, for people: a table, and a figure with a point per candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgerec.errors import require
from edgerec.export.trials import REFERENCE, WAYS
from edgerec.files import atomic_path

FORMATS = (".png", ".svg", ".pdf")
HEAD = ("", "MB", "shipped", "re-encoded", "overlap", "search", "one title", "32 titles", "recommend", "")


def cells(row: Mapping[str, Any], chosen: str | None) -> list[str]:
    """Return a candidate's cells of the table."""
    verdict = "chosen" if row["name"] == chosen else "kept" if row["kept"] else "refused"
    if "bytes" not in row:
        return [row["name"], *[""] * (len(HEAD) - 2), verdict]
    near, clock = row["top10_overlap"], row["times"]
    return [
        row["name"],
        f"{row['bytes'] / 1e6:.2f}",
        *(share(row["ndcg10"][way]) for way in WAYS),
        f"{near['re-encoded']['mean']:.3f} ({near['re-encoded']['worst']['overlap']:.1f})",
        f"{near['search']['mean']:.3f} ({near['search']['worst']['overlap']:.1f})",
        *(f"{clock[kind]['p50_ms']:.2f}" for kind in ("encode_one", "encode_batch", "recommend")),
        verdict,
    ]


def share(found: Mapping[str, float]) -> str:
    """Return a ratio to fp32 with its interval."""
    return f"{found['ratio']:.1%} ({found['low']:.1%}, {found['high']:.1%})"


def print_report(report: Mapping[str, Any]) -> None:
    """Print the candidates, why some were refused, and what rounding the tables costs."""
    from rich.console import Console
    from rich.table import Table

    console, table = Console(), Table(caption=caption(report), caption_justify="left")
    for name in HEAD:
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for row in report["rows"]:
        table.add_row(*cells(row, report["chosen"]), style="bold" if row["name"] == report["chosen"] else None)
    console.print(table)
    for line in [
        *refusals(report["rows"]),
        *worst(report["rows"], report["chosen"]),
        *tables(report["tables"], report["budget"]),
    ]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def caption(report: Mapping[str, Any]) -> str:
    """Return what the columns mean."""
    counts = {kind: one["n"] for kind, one in report["rows"][0]["times"].items()}
    return (
        f"Shipped, re-encoded: NDCG@10 of fp32's on {report['validation_requests']} validation requests, paired 95% "
        "interval. Overlap, search: top-10 overlap with fp32's of re-encoded lists and of searches (worst request). "
        f"p50 in ms of {counts['encode_one']}, {counts['encode_batch']} and {counts['recommend']} calls, 1 thread."
    )


def refusals(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line per reason that a candidate was refused for."""
    return [f"{row['name']} refused: {reason}" for row in rows for reason in row["reasons"]]


def worst(rows: Sequence[Mapping[str, Any]], chosen: str) -> list[str]:
    """Return the requests that the chosen candidate answers least as fp32 does."""
    near = next(row for row in rows if row["name"] == chosen)["top10_overlap"]
    return [
        f"{chosen}, worst re-encoded list: {who(near['re-encoded']['worst'])}",
        "{}, worst search: {title!r} keeps {overlap:.0%}".format(chosen, **near["search"]["worst"]),
    ]


def who(found: Mapping[str, Any]) -> str:
    """Return a user whose list keeps least, and the end of the history."""
    return f"user {found['user']} keeps {found['overlap']:.0%} after {', '.join(found['history'])}"


def tables(found: Mapping[str, Any], budget: float) -> list[str]:
    """Return what the INT8 item tables, which every file has, cost against fp32 tables."""
    lines = [
        f"INT8 tables, {name}: NDCG@10 {share(found[name])} of fp32 tables', overlap "
        f"{found[name]['top10_overlap']['mean']:.3f} (worst: {who(found[name]['top10_overlap']['worst'])})"
        for name in ("plain", "compensated")
    ]
    if found["compensated"]["low"] < 1 - budget:
        lines.append("INT8 tables may cost more than the budget; no precision of the encoder changes that")
    return lines


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw bytes and milliseconds against NDCG@10, a labelled point per candidate.

    Args:
        report: What ``referee.quantize`` returned.
        path: The file, of one of ``FORMATS``.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "figures")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    rows = [row for row in report["rows"] if "bytes" in row]
    axes = figure.subplots(1, 2, sharey=True)
    sizes = [row["bytes"] / 1e6 for row in rows]
    clocks = [row["times"]["encode_one"]["p50_ms"] for row in rows]
    for one, xs, label in zip(axes, (sizes, clocks), ("file, MB", "one title, p50 ms"), strict=True):
        scatter(one, rows, xs, report["chosen"])
        one.set_xlabel(label)
        one.axhline(lowest(rows, report["budget"]), linestyle=":", color="grey", label=f"budget {report['budget']:.0%}")
        one.set_xlim(left=0)
        one.grid(alpha=0.3)
    axes[0].set_ylabel("NDCG@10, re-encoded, validation")
    figure.suptitle(f"{report['chosen']} chosen (red) for {report['goal']}; hollow: refused", fontsize=10)
    axes[0].legend(loc="lower left", fontsize=8)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        figure.savefig(stream, format=path.suffix[1:], dpi=150)


def lowest(rows: Sequence[Mapping[str, Any]], budget: float) -> float:
    """Return the NDCG@10 that the lower end of an interval may reach."""
    fp32 = next(row for row in rows if row["name"] == REFERENCE)["ndcg10"]["re-encoded"]["mean"]
    return float(fp32 * (1 - budget))


def scatter(axes: Any, rows: Sequence[Mapping[str, Any]], xs: Sequence[float], chosen: str) -> None:
    """Draw a point with its interval per candidate, full where it was kept; names stand in a column at the right."""
    order = sorted(range(len(rows)), key=lambda number: rows[number]["ndcg10"]["re-encoded"]["mean"])
    for place, number in enumerate(order):
        row, x, found = rows[number], xs[number], rows[number]["ndcg10"]["re-encoded"]
        whole = found["mean"] / max(found["ratio"], 1e-12)
        ends = [[whole * (found["ratio"] - found["low"])], [whole * (found["high"] - found["ratio"])]]
        colour = "tab:red" if row["name"] == chosen else "tab:blue"
        face = colour if row["kept"] else "white"
        axes.errorbar(x, found["mean"], ends, fmt="o", color=colour, markerfacecolor=face, capsize=2, linewidth=0.8)
        axes.annotate(
            row["name"],
            (x, found["mean"]),
            (1.04, (place + 0.5) / len(rows)),
            textcoords="axes fraction",
            verticalalignment="center",
            color=colour,
            arrowprops={"arrowstyle": "-", "color": "silver", "linewidth": 0.6, "relpos": (0, 0.5)},
        )
