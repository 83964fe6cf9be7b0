"""An ablation changes one thing at a time, takes the study's own models where it can, and says what each change did."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from edgerec.data import load
from edgerec.distill.distillation import RECIPE
from edgerec.distill.ensemble import BASELINES
from edgerec.distill.losses import LOSSES
from edgerec.errors import UsageError
from edgerec.export import ablation as module
from edgerec.export import study
from edgerec.export.ablation import VARIANTS, report, run_ablation
from edgerec.export.study import UNDISTILLED, Plan, open_study
from edgerec.splits import split

BY_NAME = {one.name: one for one in VARIANTS}
ONE_LOSS = {
    **{f"without-{name}": (name, False) for name in ("vectors", "listwise", "next-item")},
    **{f"with-{name}": (name, True) for name in ("logits", "hidden", "relation")},
}
CHANGED = {
    **dict.fromkeys((*ONE_LOSS, "confidence-0.5", "temperature-2"), {"weights"}),
    "default": set(),
    "beside-itemknn": set(),
    "beside-ease": set(),
    "from-scratch": {"from_scratch"},
    "full-vocabulary": {"words"},
    "undistilled": {"weights", "from_scratch"},
}


def test_every_variant_differs_where_its_name_says() -> None:
    assert set(BY_NAME) == set(CHANGED) and len(BY_NAME) == len(VARIANTS)
    assert VARIANTS[0].name == "default"  # what the others are compared with
    default = asdict(RECIPE)
    for name, expected in CHANGED.items():
        recipe = asdict(BY_NAME[name].recipe)
        assert {key for key in default if recipe[key] != default[key]} == expected, name
    for name, (loss, there) in ONE_LOSS.items():
        weights = BY_NAME[name].recipe.weights
        assert [one for one in LOSSES if weights[one] != RECIPE.weights[one]] == [loss]
        assert (weights[loss] > 0) is there and (RECIPE.weights[loss] > 0) is not there
    assert BY_NAME["confidence-0.5"].recipe.weights == replace(RECIPE.weights, confidence=0.5)
    assert BY_NAME["temperature-2"].recipe.weights == replace(RECIPE.weights, temperature=2.0)
    assert BY_NAME["undistilled"].recipe == UNDISTILLED
    further = {one.name: dict(one.further) for one in VARIANTS if one.further}
    assert further == {f"beside-{name}": {name: 0.5} for name in BASELINES}


def test_an_ablation_is_made_once_and_takes_the_studys_own_students(
    cycle: Path, small_bert: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ("default", "without-vectors", "beside-itemknn", "full-vocabulary", "undistilled")
    monkeypatch.setattr(module, "VARIANTS", tuple(BY_NAME[name] for name in chosen))
    monkeypatch.setattr(module, "RECIPE", replace(RECIPE, held_out=0.2))
    monkeypatch.setattr(study, "RECIPE", replace(RECIPE, held_out=0.2))
    data, said = load(str(cycle)), []
    arguments = (data, split(data), small_bert, tmp_path, said.append, replace(plan, seeds=1))
    first = run_ablation(open_study(*arguments))
    found = {row["name"]: row for row in first["rows"]}
    assert list(found) == ["teacher", *chosen]
    assert {line.removeprefix(f"{tmp_path}/") for line in said} == {
        *(f"seed-0/{name}" for name in ("teacher", "tiny", "undistilled")),
        *(f"ablation/30-steps/{name}/seed-0" for name in chosen[1:-1]),
    }
    assert found["teacher"]["re-encoded"]["ndcg10"]["mean"] > 0.9
    assert found["default"]["re-encoded"]["against_default"]["difference"] == 0
    own, teacher = (found[name]["re-encoded"]["ndcg10"]["mean"] for name in ("undistilled", "teacher"))
    assert found["undistilled"]["re-encoded"]["against_teacher"]["ratio"] == pytest.approx(own / teacher)
    facts = {name: row["facts"][0] for name, row in found.items()}
    assert facts["full-vocabulary"]["parameters"] >= facts["default"]["parameters"]
    assert facts["default"]["bytes"] == (tmp_path / "ablation/30-steps/default/seed-0.edgerec").stat().st_size
    assert -1 <= facts["default"]["unseen"] <= 1
    assert found["beside-itemknn"]["differs"]["further"] == [["itemknn", 0.5]]
    text = report(first)
    assert "30 steps;" in text and text.count("\n| ") == len(found) + 1
    said.clear()
    assert run_ablation(open_study(*arguments))["rows"] == first["rows"] and not said


def test_fewer_steps_are_a_training_of_their_own_and_the_report_says_so(
    cycle: Path, small_bert: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VARIANTS", (replace(BY_NAME["default"], exported=False),))
    data, said = load(str(cycle)), []
    divided, one = split(data), replace(plan, seeds=1)
    result = run_ablation(open_study(data, divided, small_bert, tmp_path, said.append, one), 2)
    assert said == [str(tmp_path / "seed-0/teacher"), str(tmp_path / "ablation/2-steps/default/seed-0")]
    assert "2 steps in place of 30" in report(result)
    altered = replace(BY_NAME["without-vectors"], name="default")
    monkeypatch.setattr(module, "VARIANTS", (altered,))
    with pytest.raises(UsageError, match="differs in variant"):
        run_ablation(open_study(data, divided, small_bert, tmp_path, said.append, one), 2)
