"""What make bench runs: no old result passes for a new one, and a kit is made only where an engine can be."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
from click.testing import CliRunner

import pytest

from edgerec.benchmarks import run_bench


def test_an_old_result_is_not_taken_for_one_of_a_run_that_failed(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    out.write_text("of last week")
    with pytest.raises(click.ClickException, match=r"ended with code 2, and wrote no bench\.json"):
        run_bench.measure(["--device", "nowhere"], out)
    assert out.read_text() == "of last week"


def test_peers_are_named_with_what_is_measured(tmp_path: Path) -> None:
    (tmp_path / "peer.json").write_text('{"chosen": {"epochs": 7}}')
    options = run_bench.peer_options(Path("/python"), tmp_path) + run_bench.sasrec_options(Path("/python"), tmp_path)
    files = {one.partition("=")[0]: one.rpartition(":file=")[2] for one in options[1::2]}
    assert files["MiniLM-L6 INT8 (optimum)"] == str(tmp_path / "minilm-int8")
    assert files["SASRec (7 epochs), RecTools"] == str(tmp_path / "model.pkl")
    assert files["SASRec (7 epochs), onnxruntime"] == str(tmp_path / "sasrec.onnx")


def test_a_part_that_falls_short_is_told_at_the_end_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tiny.edgerec", "static.edgerec"):
        (tmp_path / name).touch()
    ran = list[str]()

    def lean(job: run_bench.Job) -> None:
        raise click.ClickException("over its budgets")

    monkeypatch.setattr(run_bench.Job, "lean", lean)
    monkeypatch.setattr(run_bench.Job, "threads", lambda job: ran.append("threads"))
    only = ["--only", "lean", "--only", "threads"]
    found = CliRunner().invoke(run_bench.main, ["--study", str(tmp_path), *only])
    assert ran == ["threads"]
    assert found.exit_code == 1 and found.output.endswith("Error: lean: over its budgets\n")


def test_the_committed_duration_prints_its_table() -> None:
    path = run_bench.RESULTS / "make-bench.json"
    result = json.loads(path.read_text("utf-8"))
    assert {*result["seconds"]} <= {*run_bench.PARTS} and min(result["seconds"].values()) > 0
    assert path.with_suffix(".md").read_text("utf-8") == run_bench.report(result)


def test_a_kit_is_named_where_there_is_one_though_a_golden_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit, called = tmp_path / "kit", list[str]()

    def run(command: list[str], **options: Any) -> Any:
        called.append(command[3])
        kit.mkdir(exist_ok=True)
        return SimpleNamespace(returncode=1)  # a golden differs

    assert run_bench.kit_options(tmp_path / "student", kit) == []  # no TensorRT here
    monkeypatch.setattr(run_bench, "no_tensorrt", lambda folder: None)
    monkeypatch.setattr(subprocess, "run", run)
    assert run_bench.kit_options(tmp_path / "student", kit) == ["--kit", str(kit)] and called == ["export", "run-kit"]
    assert run_bench.kit_options(tmp_path / "student", kit) == ["--kit", str(kit)] and called[2:] == ["run-kit"]
