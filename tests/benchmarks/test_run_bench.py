"""What make bench runs: no old result passes for a new one, and a kit is made only where an engine can be."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

import pytest

from edgerec.benchmarks import run_bench


def test_an_old_result_is_not_taken_for_one_of_a_run_that_failed(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    out.write_text("of last week")
    with pytest.raises(click.ClickException, match=r"ended with code 2, and wrote no bench\.json"):
        run_bench.measure(["--device", "nowhere"], out)
    assert out.read_text() == "of last week"


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
