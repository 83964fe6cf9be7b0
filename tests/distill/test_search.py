"""A search is seeded, goes on where it was stopped, and its best options train the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

import pytest

from edgerec.cli import group
from edgerec.data import load
from edgerec.distill import search as searching
from edgerec.distill.options import TrainOptions
from edgerec.distill.search import SPACE, Pruning, SearchPlan, applied, search
from edgerec.distill.towers import TowerConfig
from edgerec.distill.training import METRIC
from edgerec.errors import InterruptedTraining, UsageError
from edgerec.interactions import Split
from edgerec.splits import split

pytest.importorskip("optuna")
QUICK = TrainOptions(steps=4, evaluate_every=2)


@pytest.fixture
def ring(cycle: Path) -> tuple[np.ndarray, Split]:
    """Random text vectors, and the ring."""
    rows = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), split(load(str(cycle)))


def test_an_interrupted_search_finds_what_it_would_have_found(
    ring: tuple[np.ndarray, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "UNPRUNED", 1)
    plan, ran = SearchPlan(4), []
    towers, training, whole = search(*ring, TowerConfig(), QUICK, plan, tmp_path / "whole")
    assert len(whole) == 4
    assert len({row["learning_rate"] for row in whole}) == 4  # every proposal is another
    assert {"complete"} <= {row["state"] for row in whole} <= {"pruned", "complete"}
    best = max((row for row in whole if row["state"] == "complete"), key=lambda row: row["ndcg10"])
    assert (towers.embedding_size, training.learning_rate) == (best["embedding_size"], best["learning_rate"])

    fit = searching.fit

    def stopped(*arguments: Any, **more: Any) -> float:
        if len(ran) == 2:
            raise InterruptedTraining("as if by Ctrl-C")
        ran.append(arguments[3])
        return fit(*arguments, **more)

    monkeypatch.setattr(searching, "fit", stopped)
    with pytest.raises(InterruptedTraining):
        search(*ring, TowerConfig(), QUICK, plan, tmp_path / "cut")
    monkeypatch.setattr(searching, "fit", lambda *arguments, **more: ran.append(0) or fit(*arguments, **more))
    assert search(*ring, TowerConfig(), QUICK, plan, tmp_path / "cut")[2] == whole
    assert len(ran) == 4  # none ran twice
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["journal.jsonl"]
    other = search(*ring, TowerConfig(), replace(QUICK, seed=1), SearchPlan(1), tmp_path / "other")[2]
    assert other[0] != whole[0]


def test_a_hopeless_trial_is_stopped_early() -> None:
    class Trial:
        seen: list[tuple[float, int]] = []

        def report(self, value: float, step: int) -> None:
            self.seen.append((value, step))

        def should_prune(self) -> bool:
            return self.seen[-1][0] < 0.5

    class Control:
        should_training_stop = False

    class State:
        global_step, max_steps = 7, 8

    pruning, control = Pruning(Trial()), Control()
    for value, stop in ((0.6, False), (0.4, True)):
        pruning.on_evaluate(None, State(), control, metrics={METRIC: value})
        assert (pruning.pruned, control.should_training_stop) == (stop, stop)
    assert Trial.seen == [(0.6, 7), (0.4, 7)]


def test_what_is_given_is_not_searched_and_the_trials_are_listed(cycle: Path, small_bert: Path, tmp_path: Path) -> None:
    options = ["--search", 2, "--steps", 2, "--tie", "separate", "--window", 5, "--top-layers", 0, "--json"]
    command = ["fine-tune", cycle, "--encoder", small_bert, "--out", tmp_path / "teacher", *options]
    result = CliRunner().invoke(group, [str(one) for one in command], catch_exceptions=False)
    trials = json.loads(result.stdout.splitlines()[-1])["search"]
    assert len(trials) == 2
    assert set(trials[0]) == {"ndcg10", "state", "step", *SPACE} - {"shared", "window"}
    model = json.loads((tmp_path / "teacher" / "model.json").read_text())
    assert model["validation_ndcg10"]["search"] == trials
    best = max(trials, key=lambda row: row["ndcg10"])
    assert model["options"]["stage_1"]["learning_rate"] == best["learning_rate"]
    assert model["options"]["stage_1"]["window"] == 5
    assert (model["towers"]["shared"], model["towers"]["embedding_size"]) == (False, best["embedding_size"])


def test_found_values_go_where_they_belong() -> None:
    found = {"learning_rate": 0.5, "shared": False}
    assert applied(TowerConfig(), found) == TowerConfig(shared=False)
    assert applied(TrainOptions(), found) == TrainOptions(learning_rate=0.5)
    for name in SPACE:  # each is a field of one of the two
        assert hasattr(TowerConfig(), name) != hasattr(TrainOptions(), name)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [((0,), "got 0 trials"), ((1, ()), "over 0 options"), ((1, ("colour",)), "no search over colour")],
)
def test_a_plan_that_cannot_work_is_refused(wrong: tuple[Any, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        SearchPlan(*wrong)
