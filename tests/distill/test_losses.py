"""Each loss is zero at equality, has the value worked out by hand, and moves the student."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

import pytest

from edgerec.distill.commands import LOSSES as OFFERED
from edgerec.distill.losses import (
    LOSSES,
    LossWeights,
    confidences,
    listwise,
    relation_divergence,
    relation_heads,
    score_distance,
    state_distance,
    vector_distance,
)
from edgerec.errors import UsageError

MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])


def relations(states: Tensor, taught: Tensor) -> Tensor:
    """Return the divergence of the relation of states [2, 3, 4] with themselves, two heads."""
    own, other = (relation_heads(one, 2) for one in (states, taught))
    return relation_divergence(own, own, (other, other), MASK)


DISTANCES: list[Callable[[Tensor, Tensor], Tensor]] = [
    vector_distance,
    score_distance,
    lambda own, taught: state_distance([(own, taught), (own, taught)]),
    lambda own, taught: listwise(own, taught.softmax(-1), 1.0),
    lambda own, taught: relations(own.view(2, 3, 4), taught.view(2, 3, 4)),
]


@pytest.mark.parametrize("distance", DISTANCES)
def test_it_is_zero_at_equality_and_descending_it_comes_nearer(distance: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    taught, own = torch.randn(6, 4), torch.randn(6, 4, requires_grad=True)
    assert float(distance(taught, taught)) == pytest.approx(0.0, abs=1e-6)
    before = distance(own, taught)
    before.backward()
    assert own.grad is not None and bool(own.grad.abs().sum() > 0)
    after = distance(own.detach() - 0.01 * own.grad, taught)
    assert 0 < float(after) < float(before.detach())


def test_listwise_is_the_divergence_times_temperature_squared() -> None:
    scores, taught = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.75, 0.25]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(listwise(scores, taught, 2.0)) == pytest.approx(4 * expected)
    assert math.isfinite(float(listwise(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), 1.0)))
    assert float(listwise(torch.zeros(0, 2), torch.zeros(0, 2), 1.0)) == 0.0  # a batch that asks for nothing


def test_confidence_counts_a_source_by_the_probability_of_its_true_next_items() -> None:
    taught = torch.tensor([[0.9, 0.1], [0.4, 0.6]])
    rows, columns = torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1])  # the second source has both as targets
    trust = confidences(taught, rows, columns, 1.0)
    assert trust.tolist() == pytest.approx([0.9, 0.5])
    assert confidences(taught, rows, columns, 2.0).tolist() == pytest.approx([0.81, 0.25])
    assert confidences(taught, rows, columns, 0.0).tolist() == [1.0, 1.0]
    scores = torch.tensor([[0.0, 0.0], [0.4, 0.6]])
    alone = listwise(scores[:1], taught[:1], 1.0)
    second = listwise(scores[1:], taught[1:], 1.0)
    assert float(listwise(scores, taught, 1.0, trust)) == pytest.approx(float((0.9 * alone + 0.5 * second) / 1.4))


def test_scores_are_compared_without_their_mean_and_as_the_limit_of_high_temperatures() -> None:
    scores, taught = torch.tensor([[5.0, 6.0, 7.0]]), torch.tensor([[1.0, 2.0, 6.0]])
    assert float(score_distance(scores, taught)) == pytest.approx((1 + 1 + 4) / 3)  # 4, 4, 1 around their mean
    assert float(score_distance(taught + 9, taught)) == pytest.approx(0.0, abs=1e-9)
    warm = 1e3
    limit = listwise(scores.double(), (taught.double() / warm).softmax(-1), warm)
    assert float(limit) == pytest.approx(float(score_distance(scores, taught)) / 2, rel=1e-2)


def test_a_relation_of_two_tokens_has_the_value_worked_out_by_hand_and_padding_counts_nothing() -> None:
    own = torch.zeros(1, 1, 3, 1)
    asking, asked = torch.tensor([[[[1.0], [1.0], [9.0]]]]), torch.tensor([[[[math.log(3)], [0.0], [9.0]]]])
    mask = torch.tensor([[1, 1, 0]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)  # softmax(log 3, 0) against uniform
    assert float(relation_divergence(own, own, (asking, asked), mask)) == pytest.approx(expected, rel=1e-5)
    wider = (asking.expand(1, 1, 3, 4) / 2, asked.expand(1, 1, 3, 4))  # four directions, over the root of four
    assert float(relation_divergence(own, own, wider, mask)) == pytest.approx(expected, rel=1e-5)


def test_weights_are_chosen_by_name_and_nonsense_is_refused() -> None:
    assert OFFERED == LOSSES
    weights = LossWeights().with_losses({"next-item": 0.5, "hidden": 2.0})
    assert (weights["next-item"], weights["hidden"], weights["vectors"]) == (0.5, 2.0, 1.0)
    terms = {"next-item": torch.tensor(4.0), "hidden": torch.tensor(3.0)}
    assert float(weights.total(terms)) == pytest.approx(8.0)
    with pytest.raises(UsageError, match="unknown loss 'kl'; expected one of vectors"):
        weights.with_losses({"kl": 1.0})
    with pytest.raises(UsageError, match="no other number below 0"):
        weights.with_losses({"hidden": -1.0})
    with pytest.raises(UsageError, match="temperature above 0"):
        LossWeights(temperature=0.0)
    with pytest.raises(UsageError, match="all losses weigh 0"):
        LossWeights(next_item=0.0, vectors=0.0)
