"""What is drawn: from where, how often, and never what the user took."""

from __future__ import annotations

import torch

import pytest

from edgerec.distill import NEGATIVES
from edgerec.distill.negatives import HARD, Negatives
from edgerec.errors import UsageError

COUNTS = torch.tensor([8, 4, 2, 1, 1, 0, 4])  # item 5 is cold


def draws(
    kinds: tuple[str, ...], positives: list[int], number: int = 1, times: int = 1, **given: object
) -> torch.Tensor:
    """Draw for the same batch many times, int [times * B, number]."""
    torch.manual_seed(0)
    sampler, taken = Negatives(kinds, number, COUNTS), torch.tensor(positives)
    barred = given.get("barred", torch.zeros(len(positives), len(COUNTS), dtype=torch.bool))
    return torch.cat([sampler.draw(taken, barred, given.get("scores")) for _ in range(times)])


def shares(drawn: torch.Tensor) -> torch.Tensor:
    """Return how often each item was drawn."""
    return torch.bincount(drawn.flatten(), minlength=len(COUNTS)) / drawn.numel()


@pytest.mark.parametrize("kind", NEGATIVES)
def test_the_positive_the_barred_and_the_cold_are_never_drawn(kind: str) -> None:
    positives, barred = [0, 1, 6, 2], torch.zeros(4, len(COUNTS), dtype=torch.bool)
    barred[:, 3] = True
    scores = torch.randn(4, len(COUNTS), generator=torch.Generator().manual_seed(0))
    drawn = draws((kind,), positives * 50, 3, 1, barred=barred.repeat(50, 1), scores=scores.repeat(50, 1))
    assert not (drawn == torch.tensor(positives * 50)[:, None]).any()
    assert not torch.isin(drawn, torch.tensor([3, 5])).any()
    assert all(len(line.unique()) == 3 for line in drawn)


def test_popularity_draws_as_often_as_items_were_taken_and_uniform_alike() -> None:
    expected = COUNTS.float().clone()
    expected[1] = 0  # the positive
    torch.testing.assert_close(
        shares(draws(("popularity",), [1] * 20_000)), expected / expected.sum(), atol=0.015, rtol=0
    )
    alike = (expected > 0).float()
    torch.testing.assert_close(shares(draws(("uniform",), [1] * 20_000)), alike / alike.sum(), atol=0.015, rtol=0)


def test_in_batch_draws_what_others_took_and_falls_back_where_all_took_the_same() -> None:
    drawn = draws(("in-batch",), [0, 2, 2, 2], times=200)
    assert set(drawn[::4].flatten().tolist()) == {2}
    assert set(drawn[1::4].flatten().tolist()) == {0}
    assert set(draws(("in-batch",), [2, 2], times=200).flatten().tolist()) == {0, 1, 3, 4, 6}


def test_hard_draws_from_the_best_of_the_scores_and_nothing_else() -> None:
    scores = torch.arange(200.0).repeat(2, 1)
    sampler = Negatives(("hard",), 4, torch.ones(200))
    barred = torch.zeros(2, 200, dtype=torch.bool)
    barred[0, 190:] = True
    drawn = torch.stack([sampler.draw(torch.tensor([189, 0]), barred, scores) for _ in range(200)], dim=1)
    assert set(drawn[0].flatten().tolist()) == set(range(189 - HARD, 189))
    assert set(drawn[1].flatten().tolist()) == set(range(200 - HARD, 200))


def test_kinds_take_turns() -> None:
    scores = torch.zeros(1, 200)
    scores[0, :HARD] = 1
    popular = torch.ones(200)
    popular[199] = 1e9
    torch.manual_seed(0)
    drawn = Negatives(("popularity", "hard"), 2, popular).draw(
        torch.tensor([100]), torch.zeros(1, 200, dtype=torch.bool), scores
    )
    assert drawn[0, 0] == 199
    assert drawn[0, 1] < HARD


def test_a_user_who_took_everything_still_gets_negatives() -> None:
    everything = torch.ones(1, len(COUNTS), dtype=torch.bool)
    drawn = draws(("uniform",), [0], 9, 1, barred=everything)
    assert drawn.shape == (1, 9)
    assert 0 not in drawn and 5 not in drawn


def test_refusals() -> None:
    with pytest.raises(UsageError, match="got negatives random; expected of uniform, popularity, in-batch, hard"):
        Negatives(("uniform", "random"), 1, COUNTS)
    with pytest.raises(UsageError, match="of no kind"):
        Negatives((), 1, COUNTS)
    with pytest.raises(UsageError, match="got 0 negatives"):
        Negatives(("uniform",), 0, COUNTS)
    with pytest.raises(UsageError, match="got 1 items"):
        Negatives(("uniform",), 1, torch.tensor([3, 0]))
    with pytest.raises(UsageError, match="give a teacher"):
        draws(("hard",), [0])
