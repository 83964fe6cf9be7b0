"""A BERT student written for its graph: the same numbers from two thirds of the operators.

transformers asks every view for its shape anew, looks position and kind of every token up, and multiplies three times
where one product of three times the columns does. A short title pays for operators, not for arithmetic.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from edgerec.distill.fake_quantization import quantizers
from edgerec.distill.student import StudentEncoder
from edgerec.distill.text_training import mean_pool


class LeanBert(nn.Module):
    """Texts to text parts, as the student gives them.

    Args:
        encoder: A student that ``can_be_lean``.
    """

    def __init__(self, encoder: StudentEncoder) -> None:
        super().__init__()
        embeddings = encoder.bert.embeddings
        self.words, self.norm, self.head = embeddings.word_embeddings, embeddings.LayerNorm, encoder.head
        places = embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
        self.places = nn.Parameter(places.detach(), requires_grad=False)
        self.layers = nn.ModuleList(LeanLayer(layer) for layer in encoder.bert.encoder.layer)
        self.normalised = encoder.normalised

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text parts [B, d] of int [B, L] tokens."""
        batch, length = input_ids.shape
        hidden = self.norm(self.words(input_ids) + self.places[:length])
        additive = (1 - attention_mask[:, None, None, :].to(hidden.dtype)) * torch.finfo(hidden.dtype).min
        for layer in self.layers:
            hidden = layer(hidden, additive, batch, length)
        states = mean_pool(hidden, attention_mask)
        return self.head(nn.functional.normalize(states, dim=-1) if self.normalised else states)


class LeanLayer(nn.Module):
    """A layer whose queries, keys and values are one product."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        of = layer.attention.self
        self.heads, self.width = of.num_attention_heads, of.attention_head_size
        parts = (of.query, of.key, of.value)
        self.project = nn.Linear(of.query.in_features, 3 * of.query.out_features)
        self.project.weight = nn.Parameter(torch.cat([part.weight for part in parts]).detach())
        self.project.bias = nn.Parameter(torch.cat([part.bias for part in parts]).detach())
        self.attended, self.intermediate, self.output = layer.attention.output, layer.intermediate, layer.output

    def forward(self, hidden: Tensor, additive: Tensor, batch: int, length: int) -> Tensor:
        """Return hidden states [B, L, H] of those before and of what is added to the scores, [B, 1, 1, L]."""
        parts = self.project(hidden).view(batch, length, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        scores = parts[0] @ parts[1].transpose(-1, -2) / math.sqrt(self.width) + additive
        context = (scores.softmax(-1) @ parts[2]).transpose(1, 2).reshape(batch, length, self.heads * self.width)
        attended = self.attended(context, hidden)
        found: Tensor = self.output(self.intermediate(attended), attended)
        return found


def lean(encoder: nn.Module) -> nn.Module:
    """Return what gives a text encoder's numbers by a smaller graph, or the encoder itself."""
    return LeanBert(encoder).eval() if isinstance(encoder, StudentEncoder) and can_be_lean(encoder) else encoder


def can_be_lean(encoder: StudentEncoder) -> bool:
    """Tell whether a student is a BERT whose graph does not hold the rounding of INT8."""
    return type(encoder.bert).__name__ == "BertModel" and quantizers(encoder) is None
