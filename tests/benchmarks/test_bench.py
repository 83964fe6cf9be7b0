"""A result of ``edgerec bench``: its schema, comparison, report and audit, on made-up latencies."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerec.benchmarks import audit, compare, report
from edgerec.benchmarks.bench_commands import bench
from edgerec.benchmarks.percentiles import order_statistics, stability, summarise, windows
from edgerec.benchmarks.schema import NAME, SCHEMA, contradictions, faults
from edgerec.benchmarks.tables import csv_text, markdown


def run(samples: Any, number: int = 0) -> dict[str, Any]:
    return {
        "round": number,
        "latency_ms": summarise(samples),
        "order_statistics_ms": order_statistics(samples),
        "stability": stability(windows(samples)),
        "samples_per_second": 1e3 / float(samples.mean()),
        "energy": {"net_joules_per_sample": None, "reason": "no sensor"},
        "seconds": float(samples.sum()) / 1e3,
        "memory": {"before": {}, "prepared": {}, "after": {"peak_mb": 40.0}},
        "machine": {"affinity": [1], "foreign_cores": 0.1},
    }


def cell(subject: str, level: float, **changed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(int(level * 100))
    runs = [run(level * rng.normal(1, 0.02, 1000), number) for number in range(4)]
    device = "harness" if subject == "empty" else "cpu-ort"
    return {
        "subject": subject, "device": device, "kind": "recommend", "precision": "int8", "threads": 1,
        "scenario": "single-stream", "status": "measured", "reason": None, "runs": runs, "stable": True,
        "latency_ms": runs[0]["latency_ms"], "samples_per_second": 1e3 / level, "peak_mb": 40.0, "rate": None,
        **changed,
    }  # fmt: skip


def result(**levels: float) -> dict[str, Any]:
    head = {"subject": "x", "device": "cpu-ort", "kind": "recommend", "precision": None, "threads": 1}
    first = {"status": "measured", "reason": None, "answers": 9, "different": 0, "passes": True}
    second = {"status": "measured", "reason": None, "faster": 0.02, "least": 0.01, "passes": True}
    machine = {"cpu": "a", "platform": "b", "python": "3", "packages": {"onnxruntime": "1"}, "load_average": [0]}
    length = {"least": 1, "p50": 5, "p90": 9, "most": 20}
    return {
        "schema": NAME,
        "environment": machine,
        "settings": {"plan": {"seconds": 1, "count": 10}, "rounds": 4, "limits": {}},
        "inputs": {"source": "x", "recommend": {"n": 3, "length": length}},
        "cells": [cell(name, level) for name, level in levels.items()],
        "cold": [{**head, "status": "measured", "reason": None, "total_ms": 5.0, "stages_ms": {"import": 5.0}}],
        "audits": [{**head, "test01": first, "test04": second}],
        "accuracy": [
            {**head, "status": "measured", "sha256": "ab", "bytes": 1, "quality": None, "goldens": None, "overlap10": 1}
        ],
    }  # fmt: skip


def test_a_made_up_result_has_no_faults() -> None:
    assert list(faults(result(a=1.0))) == []


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_own_validator_agrees_with_jsonschema(data: st.DataObject) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    changed = result(a=1.0)
    place: Any = changed
    while True:  # walk to a random place, and put something else there, or nothing
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not (isinstance(inner, (dict, list)) and inner) or data.draw(st.booleans()):
            break
        place = inner
    other = data.draw(st.sampled_from([None, -1, 1.5, True, "x", [], {}, [{}]]))
    if isinstance(place, dict) and data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = other
    valid = jsonschema.Draft202012Validator(SCHEMA).is_valid(changed)
    assert (not list(faults(changed))) == valid


def test_what_is_measured_has_figures(tmp_path: Path) -> None:
    made = result(a=1.0)
    made["cells"][0]["latency_ms"], made["audits"][0]["test04"]["faster"] = None, None
    assert list(contradictions(made)) == [
        "the result.cells[0] is measured, and has no latencies",
        "the result.audits[0].test04 is measured, and has no faster",
    ]


def test_comparison_says_slower_faster_or_neither() -> None:
    a, b = result(x=1.0, y=1.0, z=1.0), result(x=1.2, y=0.8, z=1.001)
    rows = {row["subject"]: row for row in compare.pairs(a, b)}
    assert rows["x"]["shows"].startswith("slower by") and rows["y"]["shows"].startswith("faster by")
    assert rows["z"]["shows"] == "no difference shown"
    assert [row["subject"] for row in compare.slower(list(rows.values()), 0.05)] == ["x"]
    assert "no difference shown" in compare.markdown(list(rows.values()))


def test_of_fewer_than_three_rounds_no_difference_is_shown() -> None:
    a, b = result(x=1.0), result(x=2.0)
    b["cells"][0]["runs"] = b["cells"][0]["runs"][:2]
    [row] = compare.pairs(a, b)
    assert "of 2 rounds; expected 3" in row["shows"] and compare.slower([row], 0.05) == []


@pytest.mark.parametrize("limit", ["nan%", "inf%", "-1%"])
def test_a_gate_that_nothing_fails_is_refused(tmp_path: Path, limit: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(result(x=1.0)))
    paths = [str(tmp_path / "a.json")] * 2
    assert CliRunner().invoke(bench, ["compare", *paths, f"--fail-if-slower={limit}"]).exit_code == 2


def test_an_audit_of_nothing_and_of_a_failed_cell_does_not_pass() -> None:
    made = result(x=1.0)
    assert all(row["passes"] for row in audit.checks(made))
    made["cells"][0] |= {"status": "failed", "reason": "boom", "runs": []}
    assert [row["what"] for row in audit.checks(made) if not row["passes"]] == [
        "x, recommend, single-stream: boom",
        "nothing was measured",
    ]


def test_results_of_one_name_are_both_in_the_report(tmp_path: Path) -> None:
    paths = [tmp_path / name / "bench.json" for name in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(json.dumps(result(x=1.0)))
    CliRunner().invoke(bench, ["report", *map(str, paths), "--out", str(tmp_path / "both.md")], catch_exceptions=False)
    assert all(str(path) in (tmp_path / "both.md").read_text() for path in paths)


def test_a_cell_that_was_lost_stops_a_gate() -> None:
    a, b = result(x=1.0), result(x=1.0)
    b["cells"][0] |= {"status": "failed", "reason": "boom", "runs": []}
    assert compare.slower(compare.pairs(a, b), 0.05)[0]["shows"] == "B failed: boom"
    assert compare.slower(compare.pairs(b, a), 0.05) == []


def test_a_gates_exit_code(tmp_path: Path) -> None:
    for name, level in (("a", 1.0), ("b", 1.2)):
        (tmp_path / f"{name}.json").write_text(json.dumps(result(x=level)))
    paths = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    command = [sys.executable, "-m", "edgerec", "bench", "compare", *paths, "--fail-if-slower"]
    codes = {
        limit: subprocess.run([*command, limit], capture_output=True).returncode for limit in ("5%", "30%", "much")
    }
    assert codes == {"5%": 1, "30%": 0, "much": 2}  # of the process, which is what CI sees
    said = CliRunner().invoke(bench, ["compare", *paths, "--json"])
    assert json.loads(said.stdout.splitlines()[-1])["passes"]


def test_a_comparison_is_kept_with_what_was_compared(tmp_path: Path) -> None:
    for name, level in (("a", 1.0), ("b", 1.2)):
        (tmp_path / f"{name}.json").write_text(json.dumps(result(x=level)))
    paths = [str(tmp_path / f"{name}.json") for name in ("a", "b", "c")]
    said = CliRunner().invoke(bench, ["compare", *paths[:2], "--fail-if-slower", "5%", "--out", paths[2], "--json"])
    kept = json.loads(Path(paths[2]).read_text())
    assert said.exit_code == 1 and kept == json.loads(said.stdout.splitlines()[-1]) and not kept["passes"]
    assert kept["b"]["file"] == "b.json" and len(kept["b"]["sha256"]) == 64
    assert "slower by" in (tmp_path / "c.md").read_text()


def test_two_subjects_without_a_common_name_have_no_column_for_it() -> None:
    rows = compare.subjects(result(a=1.0, b=1.2), "a", "b")
    assert compare.markdown(rows).startswith("| request | scenario |")
    assert compare.markdown(compare.pairs(result(a=1.0), result(a=1.0))).startswith("| subject | request |")


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({**result(a=1.0), "schema": "edgerec-bench-2"}))
    with pytest.raises(Exception, match="edgerec-bench-2.*expected one of edgerec-bench-1"):
        CliRunner().invoke(bench, ["audit", str(tmp_path / "x.json")], catch_exceptions=False)


class Page(HTMLParser):
    """Collects what a page would load, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_loads_nothing_and_shows_every_cell() -> None:
    made = result(a=1.0, b=2.0)
    made["cells"][1]["subject"] = "<script>alert(1)</script>"
    text, page = report.page({"one": made}), Page()
    page.feed(text)
    assert page.loads == [] and "url(" not in text.replace("url(#", "") and "@import" not in text
    assert "<script>alert" not in text and page.tags.count("table") == 4
    points = report.ecdf(made["cells"][0])
    assert points[-1][1] == 1 and all(p[0] <= q[0] and p[1] <= q[1] for p, q in zip(points, points[1:], strict=False))


def test_markdown_and_csv_hold_what_failed_too() -> None:
    made = result(a=1.0, b=2.0)
    made["cells"][1] |= {"status": "failed", "reason": "it | broke", "runs": []}
    assert "failed: it \\| broke" in markdown(made)
    assert "failed,it | broke" in csv_text(made)
    assert "one" in report.all_csv({"one": made, "two": made}) and report.all_csv({"one": made}).count("\n") == 3


def test_an_audit_names_what_fails() -> None:
    made = result(empty=0.2, a=1.0)
    made["audits"][0]["test04"] |= {"faster": 0.4, "least": 0.3, "passes": False}
    found = {row["what"]: row["passes"] for row in audit.checks(made)}
    assert [what for what, passes in found.items() if not passes] == [
        "x, recommend: a repeated input is faster by 40.0%, at least 30.0%",
        next(what for what in found if "the harness takes" in what),
    ]


def test_few_samples_show_no_tail() -> None:
    made = result(a=1.0)
    made["cells"][0]["latency_ms"] = summarise(np.ones(100))
    assert "n too small" in markdown(made)


def test_results_are_not_changed_by_comparing() -> None:
    made = result(a=1.0)
    before = copy.deepcopy(made)
    compare.pairs(made, made)
    assert made == before
