"""The compression part measures a study's own students once, and says of every candidate whether it was kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgerec.data import load
from edgerec.export import compression_study as module
from edgerec.export import referee, trials
from edgerec.export.compression_study import cells_of, refusals, report, run_compression
from edgerec.export.referee import Terms
from edgerec.export.study import Plan, open_study
from edgerec.splits import split


def test_a_study_has_a_row_per_candidate_and_is_measured_once(
    cycle: Path, small_bert: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = dict.fromkeys(trials.ROUNDS, 3)
    monkeypatch.setattr(referee, "times", lambda bench, made: trials.times(bench, made, rounds))
    monkeypatch.setattr(module, "TERMS", Terms(("fp32", "int8-weights", "qat")))
    monkeypatch.setattr(module, "OPTIONS", replace(module.OPTIONS, steps=2))
    data, said = load(str(cycle)), []
    arguments = (data, split(data), small_bert, tmp_path, said.append, replace(plan, seeds=1))
    result = run_compression(open_study(*arguments))
    rows = {row["name"]: row for row in result["presets"]["tiny"]["rows"]}
    assert rows["fp32"]["re-encoded"]["ratio"] == rows["fp32"]["shipped"]["ratio"] == 1
    assert rows["int8-weights"]["bytes"][0] < rows["fp32"]["bytes"][0]
    assert (
        len({row["bytes"][0] for row in rows.values()}) == len(rows) == 3
    )  # the quantizers of one so small weigh more
    assert rows["qat"]["top10_overlap"][0]["search"]["mean"] <= 1
    text = report(result)
    assert "INT8 item tables, compensated, seed 0" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 2 + len(rows)
    said.clear()
    assert run_compression(open_study(*arguments))["presets"] == result["presets"] and not said


def test_what_was_refused_says_why_once() -> None:
    rows = [{"name": "qat", "reasons": [["none"], ["none"]]}, {"name": "fp32", "reasons": [[], []]}]
    assert refusals(rows) == ["Refused:", "- qat: none"]


def test_a_verdict_counts_seeds() -> None:
    assert cells_of({"name": "fp16", "kept": [True, False, True], "reasons": [[], ["x"], []]})[-1] == "2 of 3"
