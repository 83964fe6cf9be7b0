"""Negatives: the items that a loss holds against the one that a user took next.

``uniform`` draws among warm items; ``popularity`` by how often an item was taken; ``in-batch`` takes what others of the
batch took next, which is popularity too, for no extra encoding; ``hard`` draws from the best of two towers' ranking.
A cold item is nobody's negative, as in the towers' own softmax: it was never offered.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgerec.distill import NEGATIVES
from edgerec.errors import UsageError

HARD = 50  # of the two towers' ranking: what a reranker will be given


class Negatives:
    """A sampler over one catalogue; it draws with torch's own generator, whose state a checkpoint holds.

    Args:
        kinds: Of ``NEGATIVES``; the negatives of an example take them in turn.
        number: Negatives per example.
        counts: [n_items], how often each item was taken in training; one with none is cold.

    Raises:
        UsageError: An unknown kind, no kind, no negative, or fewer than two warm items.
    """

    def __init__(self, kinds: Sequence[str], number: int, counts: Tensor) -> None:
        unknown = [kind for kind in kinds if kind not in NEGATIVES]
        if unknown or not kinds:
            raise UsageError(f"got negatives {', '.join(unknown) or 'of no kind'}; expected of {', '.join(NEGATIVES)}")
        if number < 1:
            raise UsageError(f"got {number} negatives per example; expected at least 1")
        self.kinds, self.number, self.counts = tuple(kinds), number, counts.float()
        self.warm = counts > 0
        if self.warm.sum() < 2:
            raise UsageError(f"got {int(self.warm.sum())} items with training events; expected two, to compare")

    def draw(self, positives: Tensor, barred: Tensor, scores: Tensor | None = None) -> Tensor:
        """Draw negatives, distinct within an example as long as there are enough items.

        Args:
            positives: int [B], the item that each example's user took: never drawn for that example.
            barred: bool [B, n_items], further items not to draw, as long as others are left.
            scores: [B, n_items] of two towers, for ``hard``.

        Returns:
            int64 [B, number].

        Raises:
            UsageError: ``hard`` without scores.
        """
        others = self.warm.repeat(len(positives), 1).scatter(1, positives[:, None], False)
        free = where_any(others & ~barred, others)
        weights = {kind: self.weights(kind, positives, free, scores) for kind in dict.fromkeys(self.kinds)}
        drawn = []
        for slot in range(self.number):
            chance = weights[self.kinds[slot % len(self.kinds)]] * free
            one = torch.multinomial(where_any(chance, free.float()), 1)  # nothing left of that kind: uniform
            free = where_any(free.scatter(1, one, False), others)
            drawn.append(one)
        return torch.cat(drawn, dim=1)

    def weights(self, kind: str, positives: Tensor, free: Tensor, scores: Tensor | None) -> Tensor:
        """Return what each item's chance is proportional to, [B, n_items] or [n_items]."""
        if kind == "uniform":
            return self.warm.float()
        if kind == "popularity":
            return self.counts
        if kind == "in-batch":
            return torch.bincount(positives, minlength=len(self.counts)).float()
        if scores is None:
            raise UsageError("got no scores for hard negatives; expected those of two towers: give a teacher")
        best = scores.masked_fill(~free, -torch.inf).topk(min(HARD, scores.shape[1]), dim=1).indices
        return torch.zeros_like(scores).scatter(1, best, 1.0)


def where_any(wanted: Tensor, otherwise: Tensor) -> Tensor:
    """Return the rows of ``wanted`` that hold anything but zeros, and those of ``otherwise`` in place of the rest."""
    return torch.where(wanted.any(dim=1, keepdim=True), wanted, otherwise)
