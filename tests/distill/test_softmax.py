"""What competes at a step: baskets are asked once, the sampled sum over a catalogue is the full one on average."""

from __future__ import annotations

import numpy as np
import torch

import pytest

from edgerec.distill import softmax
from edgerec.distill.softmax import PADDING, Logits, asked, candidates, next_item_loss
from edgerec.distill.training import Windows
from edgerec.interactions import Ragged


def test_a_baskets_events_are_asked_for_after_the_basket_before() -> None:
    windows = Windows(Ragged.from_lists([[5, 6, 7, 8, 9]]), np.array([0, 0, 1, 1, 2]), window=10)
    batch = windows([0])
    assert batch["history"].tolist() == [[5, 6, 7, 8]]
    assert batch["targets"].tolist() == [[PADDING, 7, 8, 9]]  # the first basket is after nothing
    assert batch["sources"].tolist() == [[-1, 1, 1, 3]]
    places = asked(batch["targets"], batch["sources"])
    assert places.places.tolist() == [1, 3]
    assert places.rows.tolist() == [0, 0, 1]
    assert places.items.tolist() == [7, 8, 9]


def test_a_log_of_one_basket_has_nothing_to_predict_and_a_batch_without_targets_costs_nothing() -> None:
    windows = Windows(Ragged.from_lists([[1, 2, 3], [1, 2]]), np.array([0, 0, 0, 1, 2]), window=10)
    assert windows.users() == [1]
    nothing = Logits(torch.zeros(0, 4, requires_grad=True), torch.zeros(0, dtype=torch.long), torch.zeros(0).long())
    assert next_item_loss(nothing).item() == 0


def test_the_loss_is_the_mean_over_sources_of_the_mean_over_their_targets() -> None:
    scores = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 1.0]])
    loss = next_item_loss(Logits(scores, torch.tensor([0, 0, 1]), torch.tensor([1, 2, 0])))
    chances = scores.softmax(1)
    expected = -((chances[0, 1].log() + chances[0, 2].log()) / 2 + chances[1, 0].log()) / 2
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_up_to_the_limit_all_warm_items_compete() -> None:
    warm = torch.tensor([True, False, True, True])
    chosen = candidates(warm, torch.tensor([[0, 2]]), torch.tensor([[2, 3]]))
    assert chosen.items.tolist() == [0, 2, 3]
    assert not chosen.offset.any()
    assert chosen.columns[torch.tensor([0, 2, 3])].tolist() == [0, 1, 2]


def test_above_the_limit_the_sum_is_unbiased_and_the_batchs_items_count_as_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(softmax, "FULL_LIMIT", 10)
    monkeypatch.setattr(softmax, "SAMPLE", 20)
    torch.manual_seed(0)
    warm, scores = torch.arange(200) % 4 > 0, torch.randn(200)
    history, targets = torch.tensor([[1, 2, PADDING]]), torch.tensor([[2, 3, PADDING]])
    sums = []
    for _ in range(2000):
        chosen = candidates(warm, history, targets)
        assert warm[chosen.items].all()
        assert chosen.items[chosen.columns[torch.tensor([1, 2, 3])]].tolist() == [1, 2, 3]
        assert not chosen.offset[chosen.columns[torch.tensor([1, 2, 3])]].any()
        sums.append((scores[chosen.items] + chosen.offset).exp().sum().item())
    error = np.std(sums) / np.sqrt(len(sums))
    assert np.mean(sums) == pytest.approx(scores[warm].exp().sum().item(), abs=4 * error)
