"""``bench audit``: whether a result can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHARE = 0.05  # of the fastest subject's p50 that the harness itself may take


def checks(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what was checked, and whether it passes. What was not measured is not checked; something must be."""
    cells = [cell for cell in result["cells"] if cell["device"] != "harness"]
    found = [
        {"what": f"{cell['subject']}, {cell['kind']}, {cell['scenario']}: {cell['reason']}", "passes": False}
        for cell in cells
        if cell["status"] == "failed"
    ]
    if not any(cell["status"] == "measured" for cell in cells):
        found.append({"what": "nothing was measured", "passes": False})
    for row in result["audits"]:
        who = f"{row['subject']}, {row['kind']}"
        if (first := row["test01"])["passes"] is not None:
            what = f"{who}: {first['different']} of {first['answers']} answers differ from the accuracy run's"
            found.append({"what": what, "passes": first["passes"]})
        if (second := row["test04"])["status"] == "measured":
            what = f"{who}: a repeated input is faster by {second['faster']:.1%}, at least {second['least']:.1%}"
            found.append({"what": what, "passes": second["passes"]})
    for row in result["accuracy"]:
        if row.get("goldens"):
            what = f"{row['subject']}, {row['kind']}: golden requests of {(row['sha256'] or '')[:12]}"
            found.append({"what": what, "passes": row["goldens"]["passes"]})
    return found + overhead(result)


def overhead(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare the empty subject with the fastest one in the same scenario."""
    measured = [cell for cell in result["cells"] if cell["status"] == "measured"]
    found = []
    for empty in (cell for cell in measured if cell["device"] == "harness"):
        others = [cell for cell in measured if cell["device"] != "harness" and cell["scenario"] == empty["scenario"]]
        if others and empty["scenario"] != "server":  # there, latency is mostly waiting
            own, fastest = (empty["latency_ms"]["p50"]["value"], min(c["latency_ms"]["p50"]["value"] for c in others))
            what = f"{empty['scenario']}: the harness takes {own * 1e3:.2f} us, {own / fastest:.2%} of the fastest p50"
            found.append({"what": what, "passes": own <= SHARE * fastest})
    return found
