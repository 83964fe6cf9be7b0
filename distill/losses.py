"""What an encoder can learn from: named losses, each with a weight.

=============  =====================================================================================================
``vectors``    distance of the text parts to the teacher's (or to where they started: the anchor)
``listwise``   KL from the teacher's distribution over the catalogue
``next-item``  cross-entropy of the true next item (``softmax.next_item_loss``)
``logits``     distance of the centred scores to the teacher's
``hidden``     distance of the token states after each layer to the teacher's, through a projection
``relation``   KL between attention and value relations of the last layers
=============  =====================================================================================================

Here: Q sources (places where a next item is asked for), C candidates, B texts of L tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from edgerec.errors import UsageError

LOSSES = ("vectors", "listwise", "next-item", "logits", "hidden", "relation")


@dataclass(frozen=True)
class LossWeights:
    """What each loss counts; 0 leaves it, and what only it needs, out."""

    next_item: float = 1.0
    vectors: float = 1.0
    listwise: float = 0.0
    logits: float = 0.0
    hidden: float = 0.0
    relation: float = 0.0
    temperature: float = 1.0  # of the listwise distributions
    confidence: float = 0.0  # exponent of the teacher's confidence in a source's next item; 0 counts all alike

    def __post_init__(self) -> None:
        if self.temperature <= 0 or not all(0 <= value < math.inf for value in vars(self).values()):
            raise UsageError(f"got {self}; expected a temperature above 0, and no other number below 0")
        if not any(self[name] for name in LOSSES):
            raise UsageError(f"all losses weigh 0; expected a weight for one of {', '.join(LOSSES)}")

    def __getitem__(self, name: str) -> float:
        return getattr(self, name.replace("-", "_"))

    def with_losses(self, named: Mapping[str, float]) -> LossWeights:
        """Return these weights, those of the named losses replaced.

        Raises:
            UsageError: A name is none of ``LOSSES``, or a weight is negative.
        """
        if unknown := [name for name in named if name not in LOSSES]:
            raise UsageError(f"unknown loss {unknown[0]!r}; expected one of {', '.join(LOSSES)}")
        return replace(self, **{name.replace("-", "_"): weight for name, weight in named.items()})

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of losses by name."""
        return torch.stack([self[name] * term for name, term in terms.items()]).sum()


def vector_distance(vectors: Tensor, goal: Tensor) -> Tensor:
    """Return the mean squared distance per vector, relative to the goal's squared length: 0 is equal, 1 is nothing."""
    return (vectors - goal).square().sum() / goal.square().sum().clamp(min=1e-12)


def listwise(scores: Tensor, taught: Tensor, temperature: float, confidence: Tensor | None = None) -> Tensor:
    """Return KL(teacher || student) over the candidates, times temperature squared (Hinton et al. 2015).

    Args:
        scores: The student's, [Q, C].
        taught: The teacher's distribution at that temperature, [Q, C].
        temperature: Of the student's softmax.
        confidence: What each source counts, [Q]; None counts all alike.
    """
    divergence = torch.xlogy(taught, taught) - taught * functional.log_softmax(scores / temperature, dim=-1)
    weights = torch.ones_like(divergence[:, 0]) if confidence is None else confidence
    return temperature**2 * (weights * divergence.sum(1)).sum() / weights.sum().clamp(min=1e-12)


def confidences(taught: Tensor, rows: Tensor, columns: Tensor, exponent: float) -> Tensor:
    """Return the teacher's probability of the true next item of each source, to a power, [Q].

    Divided by their sum over a batch, they say how much of distillation is a reweighting of examples (Furlanello et al.
    2018, *Born-again neural networks*, section 3.2). Where a source has several targets, it is their mean.

    Args:
        taught: The teacher's distribution, [Q, C].
        rows: Source of each target, int [P].
        columns: Candidate that each target is, int [P].
        exponent: 0 gives ones.
    """
    summed = torch.zeros_like(taught[:, 0]).index_add(0, rows, taught[rows, columns])
    return (summed / rows.bincount(minlength=len(taught)).clamp(min=1)) ** exponent


def score_distance(scores: Tensor, taught: Tensor) -> Tensor:
    """Return the mean squared difference of scores [Q, C], each line centred: a softmax cannot see a line's mean.

    Kim et al. 2021, *Comparing Kullback-Leibler divergence and mean squared error loss in knowledge distillation*: with
    the lines centred, it is twice what the listwise loss tends to as its temperature grows (their equation 5).
    """
    difference = scores - taught
    return (difference - difference.mean(1, keepdim=True)).square().sum() / max(difference.numel(), 1)


def state_distance(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the mean over layers of ``vector_distance`` between projected token states and the teacher's, [T, H] each.

    TinyBERT's hidden loss, MSE(W states, taught) (Jiao et al. 2020, equation 8), relative to the teacher's states so
    that a weight means the same for every teacher. Where states know no context (a static student's rows), the best
    that they can be is the mean of the teacher's states of that token (Bommasani et al. 2020).
    """
    return torch.stack([vector_distance(*pair) for pair in pairs]).mean()


def relation_divergence(asking: Tensor, asked: Tensor, taught: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """Return KL(teacher || student) of attention relations, the mean over real tokens and heads.

    A relation is softmax(a b' / sqrt(width)): queries with keys are the attention of MiniLM, values with values its
    value relation (Wang et al. 2020, equations 6 to 9). Teacher and student may differ in width and in heads: all heads
    are joined and cut anew into as many (MiniLMv2, Wang et al. 2021).

    Args:
        asking: The student's a, [B, R, L, w] for R relation heads.
        asked: The student's b, likewise.
        taught: The teacher's a and b, [B, R, L, W].
        mask: int [B, L].
    """
    student, teacher = relation(asking, asked, mask), relation(*taught, mask)
    divergence = (teacher.exp() * (teacher - student)).sum(-1)  # [B, R, L]
    return (divergence * mask[:, None, :]).sum() / (mask.sum() * asking.shape[1]).clamp(min=1)


def relation(asking: Tensor, asked: Tensor, mask: Tensor) -> Tensor:
    """Return log softmax(a b' / sqrt(w)) over real tokens, [B, R, L, L], of a and b [B, R, L, w]."""
    scores = asking @ asked.transpose(2, 3) / asking.shape[-1] ** 0.5
    scores = scores.masked_fill(~mask.bool()[:, None, None, :], torch.finfo(scores.dtype).min)
    return functional.log_softmax(scores, dim=-1)


def relation_heads(states: Tensor, heads: int) -> Tensor:
    """Cut states [B, L, H] into relation heads [B, R, L, H / R]."""
    return states.unflatten(2, (heads, -1)).transpose(1, 2)
