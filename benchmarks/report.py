"""``bench report``: results as one page that works offline, as Markdown, or as CSV."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgerec.benchmarks.frontier import frontiers
from edgerec.benchmarks.page import COLOURS, DASHES, SCRIPT, STYLE
from edgerec.benchmarks.tables import Row, card, csv_text, markdown, sections

Results = Mapping[str, Mapping[str, Any]]


def page(results: Results) -> str:
    """Return results by name as one HTML page."""
    body = "".join(part(name, result) for name, result in results.items())
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    title = html.escape(", ".join(results))
    return (
        f"{head}<title>edgerec bench: {title}</title><style>{STYLE}</style><body><h1>edgerec bench</h1>{body}"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def part(name: str, result: Mapping[str, Any]) -> str:
    """Return one result: what it was measured on, curves, tables."""
    made = [f"<h2>{html.escape(name)}</h2><p>{html.escape(card(result))}</p>"]
    made.append("<p>Curves: the share of queries that took no longer. Drag to zoom, double-click to reset.</p>")
    made.append(f'<div class="plots">{"".join(plots(result))}</div>')
    for title, (header, rows) in sections(result).items():
        if rows:
            made.append(f"<h3>{html.escape(title)}</h3>{table(header, rows)}")
    return "".join(made)


def plots(result: Mapping[str, Any]) -> list[str]:
    """Return a plot per kind and scenario, a curve per subject, and frontiers; a subject looks the same everywhere."""
    cells = [cell for cell in result["cells"] if cell["status"] == "measured" and cell["device"] != "harness"]
    names = list(dict.fromkeys(cell["subject"] for cell in cells))
    looks = {
        name: {"colour": COLOURS[place % len(COLOURS)], "dash": DASHES[place % len(DASHES)]}
        for place, name in enumerate(names)
    }
    found = []
    for kind, scenario in dict.fromkeys((cell["kind"], cell["scenario"]) for cell in cells):
        shown = [cell for cell in cells if (cell["kind"], cell["scenario"]) == (kind, scenario)]
        curves = [{"name": cell["subject"], **looks[cell["subject"]], "points": ecdf(cell)} for cell in shown]
        title = html.escape(f"{kind}, {scenario}")
        data = json.dumps(curves).replace("<", "\\u003c")
        found.append(
            f'<div><h3>{title}</h3><div class="plot" data-title="{title}">'
            f'<script type="application/json">{data}</script></div>{legend(curves)}</div>'
        )
    for one in frontiers(result, looks):
        names_shown = legend([{"name": name, **looks[name]} for name in one.names])
        found.append(f"<div><h3>{html.escape(one.title)}</h3>{one.svg}{names_shown}</div>")
    return found


def ecdf(cell: Mapping[str, Any]) -> list[list[float]]:
    """Return latency and share of queries that took no longer, over all rounds, each round as heavy as the others."""
    values = np.concatenate([run["order_statistics_ms"] for run in cell["runs"]])
    weights = np.concatenate(
        [np.full(len(r["order_statistics_ms"]), 1 / len(r["order_statistics_ms"])) for r in cell["runs"]]
    )
    order = np.argsort(values, kind="stable")
    shares = np.cumsum(weights[order]) / len(cell["runs"])
    return [[float(f"{value:.4g}"), float(f"{share:.4f}")] for value, share in zip(values[order], shares, strict=True)]


def legend(curves: list[dict[str, Any]]) -> str:
    """Return the curves' names beside their colours and dashes."""
    lines = [
        f'<span><svg viewBox="0 0 34 10"><line x1="0" x2="34" y1="5" y2="5" stroke="{curve["colour"]}" '
        f'stroke-width="2.5" stroke-dasharray="{curve["dash"]}"/></svg> {html.escape(curve["name"])}</span>'
        for curve in curves
    ]
    return f'<div class="legend">{"".join(lines)}</div>'


def table(header: Row, rows: list[Row]) -> str:
    """Return an HTML table."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def all_markdown(results: Results) -> str:
    """Return results by name as Markdown."""
    return "\n".join(f"## {name}\n\n{markdown(result)}" for name, result in results.items())


def all_csv(results: Results) -> str:
    """Return the timed cells of results as CSV; the first column names the result."""
    lines: list[str] = []
    for name, result in results.items():
        header, *rows = csv_text(result).splitlines()
        lines += ([] if lines else [f"result,{header}"]) + [f'"{name}",{row}' for row in rows]
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Results], str]] = {".html": page, ".md": all_markdown, ".csv": all_csv}
