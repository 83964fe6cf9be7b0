"""Further teachers are asked for the history up to each source, and the mixture is a distribution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import pytest

from edgerec.data import load
from edgerec.distill.baselines import standardise
from edgerec.distill.ensemble import Ensemble, FurtherTeacher, best_sharpness, further_teacher
from edgerec.distill.losses import LossWeights
from edgerec.distill.softmax import PADDING, candidates
from edgerec.distill.text_training import TextTraining
from edgerec.distill.towers import TowerConfig, Towers
from edgerec.errors import UsageError
from edgerec.interactions import FloatArray, Requests
from edgerec.splits import split

HISTORY = torch.tensor([[0, 1, 2], [3, PADDING, PADDING]])
TARGETS = torch.tensor([[1, 2, 3], [4, PADDING, PADDING]])
SOURCES = torch.tensor([[0, 1, 2], [0, 0, 0]])


class Follower:
    """Scores the item after the last one in a ring of six, and keeps what it was asked."""

    def score(self, requests: Requests) -> FloatArray:
        """Return 1 for the next item."""
        self.asked = [requests.histories[row].tolist() for row in range(len(requests))]
        return np.eye(6, dtype=np.float32)[[(history[-1] + 1) % 6 for history in self.asked]]


def test_each_source_is_asked_with_its_own_past_and_weights_mix() -> None:
    follower, chosen = Follower(), candidates(torch.ones(6, dtype=torch.bool), HISTORY, TARGETS)
    taught = torch.full((4, 6), 1 / 6)
    ensemble = Ensemble(1.0, [FurtherTeacher("ring", follower, 3.0, 2.0)])
    mixed = ensemble.mixed(taught, HISTORY, TARGETS, SOURCES, chosen, 1.0)
    assert follower.asked == [[0], [0, 1], [0, 1, 2], [3]]
    logits = 2 * torch.from_numpy(standardise(np.eye(6, dtype=np.float32)[[1, 2, 3, 4]]))
    torch.testing.assert_close(mixed, 0.25 * taught + 0.75 * logits.softmax(1))
    assert mixed.argmax(1).tolist() == [1, 2, 3, 4]
    nothing = Ensemble(1.0, [FurtherTeacher("ring", follower, 0.0, 2.0)])
    torch.testing.assert_close(nothing.mixed(taught, HISTORY, TARGETS, SOURCES, chosen, 1.0), taught)
    with pytest.raises(UsageError, match="none below 0"):
        Ensemble(0.0, [])


def test_a_scorer_that_knows_is_sharpened_and_one_that_guesses_is_flattened(cycle: Path) -> None:
    divided = split(load(str(cycle)))

    class Ring:
        def __init__(self, offset: int) -> None:
            self.offset = offset

        def score(self, requests: Requests) -> FloatArray:
            last = np.array([requests.histories[row][-1] for row in range(len(requests))])
            return np.eye(12, dtype=np.float32)[(last + self.offset) % 12]

    assert best_sharpness(Ring(1), divided) == 8.0
    assert best_sharpness(Ring(5), divided) == 0.25


def test_baselines_are_fitted_and_other_folders_must_be_teachers(cycle: Path, tmp_path: Path) -> None:
    data = load(str(cycle))
    knn = further_teacher("itemknn", 0.5, data, split(data))
    assert (knn.name, knn.weight) == ("itemknn", 0.5)
    with pytest.raises(UsageError, match="holds no finished model"):
        further_teacher(str(tmp_path / "nowhere"), 1.0, data, split(data))


def test_training_learns_the_ring_from_a_further_teacher_alone() -> None:
    towers = Towers(np.eye(6, dtype=np.float32), np.ones(6, np.bool_), TowerConfig(6, shared=True)).eval()
    weight = torch.nn.Parameter(torch.eye(6) + 0.1 * torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))
    weights = LossWeights(next_item=0.0, vectors=0.0, listwise=1.0)
    ensemble = Ensemble(0.0, [FurtherTeacher("ring", Follower(), 1.0, 4.0)])
    training = TextTraining(towers, lambda rows: weight[rows], towers.text.clone(), weights, 6, None, None, ensemble)
    optimiser, values = torch.optim.Adam([weight], lr=0.05), []
    for _ in range(60):
        loss = training(HISTORY, TARGETS, SOURCES)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.3 * values[0]
