"""Scarce data: a few users learn from a teacher that knows the ring, and today from yesterday."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

import pytest

from edgerec.benchmarks.cells import Cell
from edgerec.cli import group
from edgerec.data import load
from edgerec.distill import checkpoint
from edgerec.export import ablation
from edgerec.export import sparsity as module
from edgerec.export.sparsity import AUGMENTED, FROM_ANOTHER, report, rows, run_sparsity
from edgerec.export.study import Plan, open_study, teacher
from edgerec.splits import split


def test_few_users_learn_from_a_teacher_that_knows_the_ring_and_a_day_is_learned_once(
    cycle: Path, small_bert: Path, plan: Plan, tmp_path: Path
) -> None:
    data, said = load(str(cycle)), []
    arguments = (data, split(data), small_bert, tmp_path, said.append, replace(plan, seeds=1))
    ring = teacher(open_study(*arguments), 0).folder
    first = run_sparsity(open_study(*arguments), ring)
    few = {row["name"]: row for row in first["scarce"]}
    assert list(few) == [*AUGMENTED, FROM_ANOTHER]
    assert {row["users"] for row in few.values()} == {4}
    assert few[FROM_ANOTHER]["ndcg10"]["mean"] > 0.9 > few["default"]["ndcg10"]["mean"]
    assert few[FROM_ANOTHER]["against_reference"]["difference"] > 0
    for name, augment in AUGMENTED.items():
        options = checkpoint.load(tmp_path / "sparsity" / name / "seed-0").info["options"]
        assert options["stage_1"]["augment"] == {"mask": augment.mask, "reorder": augment.reorder}
    today = {row["name"]: row for row in first["update"]}
    assert {name: row["users"] for name, row in today.items()} == {"trained-anew": 40, "updated": 40, "left-alone": 40}
    assert min(row["ndcg10"]["mean"] for row in today.values()) > 0.9
    assert checkpoint.load(tmp_path / "sparsity/left-alone/seed-0").info["data"]["name"].startswith("data-until-")
    started = checkpoint.load(tmp_path / "sparsity/updated/seed-0").info
    assert started["data"]["fingerprint"] == data.fingerprint
    assert started["validation_ndcg10"]["init_from"]["items_kept"] == 12
    assert report(first).count("\n| ") == len(few) + len(today) + 2
    said.clear()
    without = run_sparsity(open_study(*arguments))
    assert without["scarce"] == first["scarce"][:-1] and without["update"] == first["update"] and not said


def test_a_log_without_a_clock_has_no_day_that_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    result = {"share": 0.1, "late": 0.05, "init": None, "seeds": 1, "update": None, "data": {"name": "x"}}
    result |= {"split": {"kind": "leave-one-out", "test_users": 3, "items": 9, "seen_masked": True}}
    result["scarce"] = rows({"default": [cell([0, 1], [0.5, 1.0])]}, "default")
    assert "The log has no clock" in report(result) and "1 seed." in report(result)


def cell(users: list[int], values: list[float]) -> Cell:
    """Return what a seed found."""
    return Cell({"users": np.int32(users), "ndcg": np.float64(values)}, {"seconds": 1.0})


def test_a_user_counts_once_however_many_seeds_asked() -> None:
    found = {"default": [cell([0, 2], [1.0, 0.5]), cell([2, 5], [0.0, 0.25])], "b": [cell([0, 2, 5], [1.0, 1.0, 1.0])]}
    first, second = rows(found, "default")
    assert (first["users"], first["seeds"]) == (3, 2)
    assert first["ndcg10"]["mean"] == pytest.approx((1 + 0.25 + 0.25) / 3)
    assert second["against_reference"]["ratio"] == pytest.approx(2)


@pytest.mark.parametrize(
    ("part", "of", "option", "value", "taken"),
    [("ablation", ablation, "--steps", "7", 7), ("sparsity", module, "--init-from", "other", Path("other"))],
)
def test_a_part_gets_what_is_its_own_and_writes_its_own_files(
    cycle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    of: Any,
    option: str,
    value: str,
    taken: Any,
) -> None:
    got: list[Any] = []
    monkeypatch.setattr(of, f"run_{part}", lambda study, *own: got.extend([study.plan, *own]) or {"of": part})
    monkeypatch.setattr(of, "report", lambda result: f"table of {result['of']}")
    command = ["evaluate", cycle, "--encoder", "bert", "--study", tmp_path / "s", "--seeds", 2, option, value]
    command += ["--out", tmp_path / "r.json"]
    result = CliRunner().invoke(group, [str(one) for one in [*command, "--part", part]], catch_exceptions=False)
    assert got == [Plan(2), taken] and "table of" in result.stdout
    assert json.loads((tmp_path / "r.json").read_text()) == {"of": part}
    assert (tmp_path / "r.md").read_text() == f"table of {part}"
    refused = CliRunner().invoke(group, [str(one) for one in command])
    assert refused.exit_code and f"--part main takes no {option}" in str(refused.exception)
    alone = CliRunner().invoke(group, ["evaluate", str(cycle), "--part", part])
    assert alone.exit_code and "expected --study" in str(alone.exception)
