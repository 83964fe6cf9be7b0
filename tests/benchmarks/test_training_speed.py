"""Where training's time goes: every second in one phase, of a process that really ran."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgerec.benchmarks.training_speed import PHASES, REST, measured, phases, report
from edgerec.errors import EdgerecError


def test_every_second_belongs_to_one_phase() -> None:
    taken = {
        ("/a/transformers/trainer.py", 1, "train"): 60.0,
        ("/a/transformers/trainer.py", 2, "training_step"): 40.0,
        ("/a/transformers/trainer.py", 3, "_maybe_log_save_evaluate"): 5.0,
        ("/b/distill/training.py", 4, "compute_loss"): 15.0,
        ("/a/transformers/trainer.py", 5, "compute_loss"): 14.0,  # what the one above calls
        ("/b/distill/encoder.py", 6, "encode"): 20.0,
    }
    profile = SimpleNamespace(stats={name: (1, 1, 0.0, seconds, {}) for name, seconds in taken.items()}, total_tt=100.0)
    found = phases(profile)
    assert set(found) == {*PHASES, REST} and sum(found.values()) == pytest.approx(100)
    assert found["forward"] == 15 and found["backward"] == 25 and found["batches, optimizer"] == 15
    assert found["encoding texts, frozen"] == 20 and found[REST] == 20


def test_a_process_is_measured_and_a_failed_one_is_an_error(tmp_path: Path) -> None:
    row = measured(["doctor"], tmp_path, os.environ)
    assert row["command"] == "doctor" and row["peak_mb"] > 20 and row["processor_seconds"] > 0
    assert row["phases"][REST] == pytest.approx(sum(row["phases"].values()))
    result = {"data": "ring", "threads": 1, "environment": {"cores": 2, "cpu": "a CPU"}, "load": {"foreign_cores": 0.5}}
    assert "ring: " in report({**result, "steps": [row]}) and "| doctor |" in report({**result, "steps": [row]})
    with pytest.raises(EdgerecError, match=r"cannot be started|ended with code"):
        measured(["doctor"], tmp_path / "nowhere", os.environ)
