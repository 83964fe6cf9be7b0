"""What the teacher's layers hold for the texts of a step: the ``hidden`` and ``relation`` losses.

The teacher runs without gradient, on a few texts of each step, and only where one of the two losses has a weight.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgerec.distill.losses import LossWeights, relation_divergence, relation_heads, state_distance
from edgerec.distill.projection import every_nth, recorded, require_layers, sampled
from edgerec.distill.student import StudentEncoder
from edgerec.distill.text_student import TextStudent
from edgerec.distill.text_training import run_layers
from edgerec.errors import UsageError

GUIDED = 32  # texts per step: MiniLM-L6 encodes 200 a second on one core


class StateGuide(nn.Module):
    """Losses between a student's states and its teacher's, over tokens that both cut alike.

    Args:
        student: Trained elsewhere; its stages are paired with every n-th layer of the teacher.
        teacher: A Hugging Face BERT-like model.
        kept: int64 [V'], the teacher's id of each of the student's tokens.
        tokens: ``input_ids`` (the student's) and ``attention_mask``, int64 [M, L], of the texts that rows point at.
        fitted: Likewise, texts that the projections are fitted to.
        weights: Say which of the two losses are wanted.
        seed: Of the sample that the projections are fitted to.

    Raises:
        UsageError: Relations are asked of a student without attention, or the teacher is not BERT-like.
    """

    def __init__(
        self,
        student: TextStudent,
        teacher: Any,
        kept: NDArray[Any],
        tokens: dict[str, Tensor],
        fitted: dict[str, Tensor],
        weights: LossWeights,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require_layers(teacher)
        if weights.relation and not isinstance(student, StudentEncoder):
            raise UsageError("a static student has no attention; expected no loss `relation`, or another preset")
        # neither belongs to this module's state: the student is saved elsewhere, the teacher not at all
        self.models = (student, teacher)
        self.tokens, self.kept, self.weights = tokens, torch.from_numpy(kept), weights
        layers = teacher.encoder.layer
        self.layers = [layers[row] for row in every_nth(len(layers), len(student.stages))] if weights.hidden else []
        self.stages = student.stages if weights.hidden else []
        own, taught, mask = self.states(sampled(fitted, seed))
        pairs = zip(own[: len(self.stages)], taught[: len(self.layers)], strict=True)
        self.projections = nn.ModuleList(least_squares(a[mask], b[mask]) for a, b in pairs)

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the wanted losses, by name, of a few of the texts at ``rows``."""
        rows = rows[torch.randperm(len(rows))[:GUIDED]].cpu()
        mask = self.tokens["attention_mask"][rows]
        width = int(mask.sum(1).max())
        own, taught, real = self.states({name: value[rows, :width] for name, value in self.tokens.items()})
        terms = {}
        if self.weights.hidden:
            pairs = zip(self.projections, own, taught, strict=False)  # what comes after the layers is attention
            terms["hidden"] = state_distance([(project(a[real]), b[real]) for project, a, b in pairs])
        if self.weights.relation:
            terms["relation"] = self.relations(own[-3:], taught[-3:], real.long())
        return terms

    def relations(self, own: list[Tensor], taught: list[Tensor], mask: Tensor) -> Tensor:
        """Return the divergence of queries with keys plus that of values with values."""
        student: Any = self.models[0]
        heads = math.gcd(student.student_config.heads, taught[0].shape[-1])
        a, b = ([relation_heads(one, heads) for one in states] for states in (own, taught))
        attention = relation_divergence(a[0], a[1], (b[0], b[1]), mask)
        return attention + relation_divergence(a[2], a[2], (b[2], b[2]), mask)

    def states(self, tokens: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Return the student's and the teacher's states, and which tokens are real, bool [B, L].

        States [B, L, h or H] are those after each stage, then the last layer's queries, keys and values, where wanted.
        """
        student, teacher = self.models
        ids, mask = tokens["input_ids"].to(device(student)), tokens["attention_mask"].to(device(student))
        with recorded([*self.stages, *self.attention(student)]) as own:
            student.pooled(ids, mask)
        with torch.no_grad(), recorded([*self.layers, *self.attention(teacher)]) as taught:
            teacher.to(ids.device)
            embedded = teacher.embeddings(input_ids=self.kept.to(ids.device)[ids])
            run_layers(teacher.encoder.layer, embedded, mask)
        return [only(one) for one in own], [only(one) for one in taught], mask.bool()

    def attention(self, model: Any) -> list[nn.Module]:
        """Return the modules that give the last layer's queries, keys and values, if they are wanted."""
        if not self.weights.relation:
            return []
        last = getattr(model, "bert", model).encoder.layer[-1].attention.self
        return [last.query, last.key, last.value]


def only(outputs: list[Any]) -> Tensor:
    """Return the states that a module gave at its one run."""
    (output,) = outputs
    return output[0] if isinstance(output, tuple) else output  # transformers 5 returns the tensor alone


def device(module: nn.Module) -> torch.device:
    """Return where a module's weights are."""
    return next(module.parameters()).device


@torch.no_grad()
def least_squares(states: Tensor, taught: Tensor) -> nn.Linear:
    """Return the linear map from states [T, h] that comes nearest to others [T, H]: where training starts."""
    fitted = nn.Linear(states.shape[1], taught.shape[1])
    mean, centre = states.mean(0), taught.mean(0)
    fitted.weight.copy_(torch.linalg.lstsq(states - mean, taught - centre, driver="gelsd").solution.T)
    fitted.bias.copy_(centre - fitted.weight @ mean)
    return fitted
