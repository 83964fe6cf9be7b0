"""What an accuracy costs: NDCG@10 against latency, file size and energy, a point per subject, for the report's page."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 330, 58, 12, 10, 40
AXES = {
    "p50, ms (log scale)": "latency",
    "file, MB (log scale)": "size",
    "net energy, mJ a request (log scale)": "energy",
}
MARKS = 4  # numbers along each axis


class Point(NamedTuple):
    """A subject: what it costs, its NDCG@10 with the 95% interval, and how it looks."""

    name: str
    cost: float
    mean: float
    low: float
    high: float
    look: Mapping[str, str]  # ``colour`` and ``dash``, as of its curve


class Drawing(NamedTuple):
    """A title, an SVG, and the names of its subjects."""

    title: str
    svg: str
    names: list[str]


def frontiers(result: Mapping[str, Any], looks: Mapping[str, Mapping[str, str]]) -> list[Drawing]:
    """Return a drawing per kind of request and cost that two subjects at least are known by."""
    quality = {(row["subject"], row["kind"]): row for row in result["accuracy"] if row["quality"]}
    found = []
    for kind in dict.fromkeys(kind for _, kind in quality):
        for axis, cost in AXES.items():
            points = [
                Point(cell["subject"], value, *interval(row), looks[cell["subject"]])
                for cell in result["cells"]
                if cell["kind"] == kind and cell["scenario"] == "single-stream" and cell["status"] == "measured"
                if (row := quality.get((cell["subject"], kind))) and (value := costs(cell, row)[cost])
            ]
            if len(points) > 1:
                title = f"{kind}: NDCG@10 against {axis.split(',')[0]}"
                found.append(Drawing(title, drawing(points, axis), [one.name for one in points]))
    return found


def interval(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return a row's NDCG@10 and the ends of its interval."""
    ndcg = row["quality"]["ndcg"]
    return ndcg["mean"], ndcg["low"], ndcg["high"]


def costs(cell: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, float | None]:
    """Return what a subject costs by each axis, None where nobody knows."""
    joules = [run["energy"]["net_joules_per_sample"] for run in cell["runs"]]
    return {
        "latency": cell["latency_ms"]["p50"]["value"],
        "size": row["bytes"] and row["bytes"] / 1e6,
        "energy": None if None in joules else 1e3 * median(joules),
    }


def drawing(points: Sequence[Point], axis: str) -> str:
    """Return points with their intervals as SVG; a point's name is its tooltip."""
    left, right = (end(one.cost for one in points) * by for end, by in ((min, 0.8), (max, 1.25)))
    bottom, top = min(one.low for one in points), max(one.high for one in points)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(value / left) / math.log(right / left)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - bottom) / max(top - bottom, 1e-12)

    made = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" style="cursor: auto">']
    for step in range(MARKS + 1):
        across, up = left * (right / left) ** (step / MARKS), bottom + (top - bottom) * step / MARKS
        made.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(up):.1f}" y2="{y(up):.1f}" class="grid"/>')
        made.append(f'<text x="{LEFT - 6}" y="{y(up) + 4:.1f}" text-anchor="end">{up:.3f}</text>')
        made.append(f'<text x="{x(across):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{across:.2g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    made.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(axis)}</text>')
    for one in points:
        colour, dash = one.look["colour"], one.look["dash"]
        said = f"{one.name}: {one.mean:.4f} ({one.low:.4f}, {one.high:.4f}) at {one.cost:.3g}"
        ends = f'x1="{x(one.cost):.1f}" x2="{x(one.cost):.1f}" y1="{y(one.low):.1f}" y2="{y(one.high):.1f}"'
        at = f'cx="{x(one.cost):.1f}" cy="{y(one.mean):.1f}" r="5"'
        made.append(f'<g stroke="{colour}" fill="{colour}"><title>{html.escape(said)}</title>')
        made.append(f'<line {ends} stroke-width="2" stroke-dasharray="{dash}"/><circle {at}/></g>')
    return "".join([*made, "</svg>"])
