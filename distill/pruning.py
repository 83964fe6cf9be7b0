"""Surgery on students: what is left when tokens, layers, heads, feed-forward units or channels are taken out.

Each function returns a new student with copied weights; nothing is trained here. What had no part in the output goes
without a trace. For channels that takes more than slices, since a LayerNorm's mean and variance run over all of them:
scale and shift of each norm are fitted to what it gave before.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgerec.distill.projection import fit_norms, norm_outputs, norms
from edgerec.distill.shapes import describe, set_heads
from edgerec.distill.static import StaticEncoder
from edgerec.distill.student import StudentEncoder
from edgerec.distill.text_student import TextStudent


def keep_tokens(encoder: TextStudent, kept: Tensor) -> TextStudent:
    """Return a student that knows the tokens int [V'] alone, and no more positions than it ever reads."""
    pruned = copy.deepcopy(encoder)
    if isinstance(pruned, StaticEncoder):
        pruned.table, pruned.log_weights = rows(pruned.table, kept), rows(pruned.log_weights, kept)
        return pruned
    assert isinstance(pruned, StudentEncoder)
    embeddings, config = pruned.bert.embeddings, pruned.bert.config
    old = config.pad_token_id or 0
    padding = min(int(torch.searchsorted(kept, old)), len(kept) - 1)
    embeddings.word_embeddings = rows(embeddings.word_embeddings, kept, padding)
    first, count = 0, pruned.max_tokens
    if getattr(embeddings, "padding_idx", None) is not None:  # RoBERTa counts positions from padding_idx + 1
        first, count = old - padding, pruned.max_tokens + padding + 1
        embeddings.padding_idx = padding
    positions = torch.arange(first, min(first + count, embeddings.position_embeddings.num_embeddings))
    offset = getattr(embeddings, "padding_idx", None)
    embeddings.position_embeddings = rows(embeddings.position_embeddings, positions, offset)
    for name in ("position_ids", "token_type_ids"):
        setattr(embeddings, name, getattr(embeddings, name)[:, : len(positions)])
    config.pad_token_id = padding
    describe(pruned.bert)
    return pruned


def keep_layers(encoder: StudentEncoder, kept: Sequence[int]) -> StudentEncoder:
    """Return a student with these of its layers, in their order."""
    pruned = copy.deepcopy(encoder)
    pruned.bert.encoder.layer = nn.ModuleList(pruned.bert.encoder.layer[place] for place in sorted(kept))
    describe(pruned.bert)
    return pruned


def keep_heads_and_units(encoder: StudentEncoder, heads: Sequence[Tensor], units: Sequence[Tensor]) -> StudentEncoder:
    """Return a student with these attention heads and feed-forward units, ascending int [n] of each layer."""
    pruned = copy.deepcopy(encoder)
    for layer, some_heads, some_units in zip(pruned.bert.encoder.layer, heads, units, strict=True):
        of, width = layer.attention.self, layer.attention.self.attention_head_size
        inner = (some_heads[:, None] * width + torch.arange(width)).flatten()
        for name in ("query", "key", "value"):
            setattr(of, name, sliced(getattr(of, name), outputs=inner))
        set_heads(of, len(some_heads), width)
        layer.attention.output.dense = sliced(layer.attention.output.dense, inputs=inner)
        layer.intermediate.dense = sliced(layer.intermediate.dense, outputs=some_units)
        layer.output.dense = sliced(layer.output.dense, inputs=some_units)
    describe(pruned.bert)
    return pruned


def keep_channels(encoder: TextStudent, kept: Tensor, tokens: dict[str, Tensor]) -> TextStudent:
    """Return a student with these channels int [h], ascending, of its hidden width, the same ones everywhere.

    Args:
        encoder: The student.
        kept: The channels.
        tokens: ``input_ids`` and ``attention_mask``, int64 [n, L], over which the norms are fitted to what they gave.
    """
    pruned = copy.deepcopy(encoder)
    pruned.head = sliced(pruned.head, inputs=kept)
    if isinstance(pruned, StaticEncoder):
        pruned.table = nn.Embedding.from_pretrained(pruned.table.weight.detach()[:, kept].clone(), freeze=False)
        return pruned
    assert isinstance(pruned, StudentEncoder) and isinstance(encoder, StudentEncoder)
    cut_channels(pruned.bert, kept)
    describe(pruned.bert)
    with torch.no_grad():
        fit_norms(pruned, tokens, [states[:, kept] for states in norm_outputs(encoder.bert, tokens)])
    return pruned


def cut_channels(bert: Any, kept: Tensor) -> None:
    """Leave these channels in embeddings, norms, and what reads and writes the residual stream, in place."""
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        table = getattr(bert.embeddings, name)
        weight = table.weight.detach()[:, kept].clone()
        setattr(bert.embeddings, name, nn.Embedding.from_pretrained(weight, False, table.padding_idx))
    for norm in norms(bert):
        norm.weight, norm.bias = (nn.Parameter(one.detach()[kept].clone()) for one in (norm.weight, norm.bias))
        norm.normalized_shape = (len(kept),)
    for layer in bert.encoder.layer:
        of = layer.attention.self
        of.query, of.key, of.value = (sliced(one, inputs=kept) for one in (of.query, of.key, of.value))
        layer.attention.output.dense = sliced(layer.attention.output.dense, outputs=kept)
        layer.intermediate.dense = sliced(layer.intermediate.dense, inputs=kept)
        layer.output.dense = sliced(layer.output.dense, outputs=kept)


def sliced(layer: nn.Linear, outputs: Tensor | None = None, inputs: Tensor | None = None) -> nn.Linear:
    """Return a layer with some of its outputs and inputs."""
    weight, bias = layer.weight.detach(), layer.bias.detach()
    if outputs is not None:
        weight, bias = weight[outputs], bias[outputs]
    if inputs is not None:
        weight = weight[:, inputs]
    smaller = nn.Linear(weight.shape[1], weight.shape[0])
    smaller.weight, smaller.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    return smaller


def rows(table: nn.Embedding, kept: Tensor, padding: int | None = None) -> nn.Embedding:
    """Return a table with some of its rows."""
    return nn.Embedding.from_pretrained(table.weight.detach()[kept].clone(), False, padding)
