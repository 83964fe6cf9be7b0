"""The pruning part of a study: every way to a student once, at the same size, beside the teacher."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

import pytest

from edgerec.cli import group
from edgerec.data import load
from edgerec.distill import importance
from edgerec.errors import UsageError
from edgerec.export.pruning_study import ROWS, report, run_pruning
from edgerec.export.study import Plan, open_study
from edgerec.splits import split


def test_the_rows_are_made_once_and_those_of_a_size_weigh_the_same(
    cycle: Path, small_bert: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importance, "TEXTS", 128)
    data, said = load(str(cycle)), []
    arguments = (data, split(data), small_bert, tmp_path, said.append, replace(plan, seeds=1))
    result = run_pruning(open_study(*arguments), 6)
    found = {row["name"]: row for row in result["rows"]}
    assert list(found) == list(ROWS)
    facts = {name: row["facts"][0] for name, row in found.items()}
    assert 0.4 < facts["half"]["flops"] / facts["teacher"]["flops"] <= 0.5
    assert facts["distilled"]["parameters"] == facts["from-scratch"]["parameters"]
    assert facts["pruned"]["parameters"] == pytest.approx(facts["distilled"]["parameters"], rel=0.2)  # wider heads
    assert facts["half"]["bytes"] == (tmp_path / "pruning/6-steps/half/seed-0.edgerec").stat().st_size
    assert found["teacher"]["ndcg10"]["mean"] > 0.9 and found["teacher"]["against_teacher"]["difference"] == 0
    recipes = {name: model(tmp_path, name)["recipe"]["from_scratch"] for name in ("distilled", "from-scratch")}
    assert recipes == {"distilled": False, "from-scratch": True}
    assert model(tmp_path, "half")["options"]["steps"] == model(tmp_path, "pruned")["options"]["steps"] == 2
    text = report(json.loads(json.dumps(result)))
    assert text.count("\n| ") == len(found) + 1 and "teacher, pruned to half its FLOPs" in text
    said.clear()
    assert run_pruning(open_study(*arguments), 6)["rows"] == result["rows"] and not said


def model(folder: Path, name: str) -> dict[str, dict[str, object]]:
    """Return the record of a row's model."""
    found: dict[str, dict[str, object]] = json.loads(
        (folder / "pruning" / "6-steps" / name / "seed-0" / "model.json").read_text()
    )
    return found


def test_steps_belong_to_this_part_too_and_other_parts_options_do_not(cycle: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", str(cycle), "--study", str(tmp_path / "s"), "--part", "pruning", "--init-from", "x"]
    with pytest.raises(UsageError, match="--part pruning takes no --init-from"):
        CliRunner().invoke(group, [*arguments, "--steps", "3"], catch_exceptions=False)
