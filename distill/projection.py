"""A student made out of the teacher's own weights.

Every n-th layer is copied. The residual stream of width H becomes one of width h by one projection W, [H, h] with
orthonormal columns: the PCA of the teacher's hidden states over catalogue tokens. A matrix that reads the stream is
multiplied by W, one that writes it by its transpose, whole heads and feed-forward units are kept by the size of their
weights. LayerNorm does not commute with W, so its scale and shift are fitted to the projected states of the teacher,
one norm after the other. All this is a start for training; it computes no function of the teacher's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgerec.distill.student import StudentConfig, StudentEncoder, batches, random_student
from edgerec.distill.text_student import TextStudent
from edgerec.distill.text_training import run_layers
from edgerec.distill.towers import pca
from edgerec.errors import UsageError

SAMPLED_TOKENS = 8_000  # real tokens that the projection and the norms are fitted to
RIDGE = 1e-3  # of the head's least squares, relative to the mean squared state


def check_teacher(teacher: Any, config: StudentConfig) -> None:
    """Refuse a teacher whose layers cannot be copied, or that is smaller than the student.

    Raises:
        UsageError: As said.
    """
    require_layers(teacher)
    of = teacher.config
    have = StudentConfig(of.num_hidden_layers, of.hidden_size, of.num_attention_heads, of.intermediate_size)
    head = of.hidden_size // of.num_attention_heads
    larger = [name for name, value in asdict(config).items() if value > getattr(have, name)]
    if larger or config.hidden // config.heads > head:
        raise UsageError(
            f"got a student of {config}, with {config.hidden // config.heads} a head; expected none larger than the "
            f"teacher, {have} with {head} a head: choose a smaller one"
        )


def require_layers(teacher: Any) -> None:
    """Refuse a teacher that is not BERT-like.

    Raises:
        UsageError: It has no ``encoder.layer`` with ``attention.self``.
    """
    layers = getattr(getattr(teacher, "encoder", None), "layer", None)
    attention = getattr(getattr(layers[0] if layers else None, "attention", None), "self", None)
    if not all(hasattr(attention, name) for name in ("query", "key", "value")):
        raise UsageError(
            f"got {type(teacher).__name__} as the teacher's encoder; expected a BERT-like one with encoder.layer and "
            "attention.self, such as BERT, RoBERTa or MiniLM"
        )


@torch.no_grad()
def student_from(
    teacher: Any,
    config: StudentConfig,
    kept: NDArray[np.int64],
    tokens: dict[str, Tensor],
    goal: Tensor,
    seed: int = 0,
) -> StudentEncoder:
    """Make a student out of the teacher's weights.

    Args:
        teacher: A Hugging Face BERT-like model.
        config: Sizes.
        kept: int64 [V'], the teacher's id of each of the student's tokens.
        tokens: ``input_ids`` (the student's ids) and ``attention_mask``, int64 [M, L], that it is fitted to.
        goal: [M, d], the text parts to give for them.
        seed: Of the sample of texts that the projection is fitted to.

    Raises:
        UsageError: The teacher is not BERT-like, or smaller than the student.
    """
    check_teacher(teacher, config)
    teacher.eval()
    student = random_student(teacher, config, kept, goal.shape[1], seed)
    assert isinstance(student, StudentEncoder)
    layers = every_nth(len(teacher.encoder.layer), config.layers)
    sample = sampled(tokens, seed)
    outputs = norm_outputs(teacher, sample | {"input_ids": torch.from_numpy(kept)[sample["input_ids"]]})
    stream = torch.cat([outputs[0], *outputs[2::2]])  # after the embeddings and after each layer
    width = torch.from_numpy(pca(stream.numpy(), config.hidden))
    copy_embeddings(teacher.embeddings, student.bert.embeddings, torch.from_numpy(kept), width)
    for source, target in zip(layers, student.bert.encoder.layer, strict=True):
        copy_attention(teacher.encoder.layer[source].attention, target.attention, width)
        copy_feed_forward(teacher.encoder.layer[source], target, width)
    chosen = [outputs[0], *(outputs[1 + 2 * layer + part] for layer in layers for part in (0, 1))]
    fit_norms(student, sample, [states @ width for states in chosen])
    fit_head(student, tokens, goal)
    return student


def every_nth(teacher: int, student: int) -> list[int]:
    """Return the teacher's layers to copy: evenly spaced, the last one among them (6 to 2: the third and the sixth)."""
    return [(place + 1) * teacher // student - 1 for place in range(student)]


def sampled(tokens: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return random texts of about ``SAMPLED_TOKENS`` real tokens together, at least one."""
    order = torch.randperm(len(tokens["input_ids"]), generator=torch.Generator().manual_seed(seed))
    total = tokens["attention_mask"][order].sum(1).cumsum(0)
    rows = order[: int((total <= SAMPLED_TOKENS).sum().clamp(min=1))]
    return {name: value[rows] for name, value in tokens.items()}


def norms(bert: Any) -> list[nn.LayerNorm]:
    """Return the LayerNorms in the order in which they run."""
    layers = [
        norm for layer in bert.encoder.layer for norm in (layer.attention.output.LayerNorm, layer.output.LayerNorm)
    ]
    return [bert.embeddings.LayerNorm, *layers]


@contextmanager
def recorded(modules: Sequence[nn.Module]) -> Iterator[list[list[Tensor]]]:
    """Collect what comes out of modules, one list of tensors each."""
    seen: list[list[Tensor]] = [[] for _ in modules]

    def hook(place: int) -> Any:
        return lambda module, given, output: seen[place].append(output)

    handles = [module.register_forward_hook(hook(place)) for place, module in enumerate(modules)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def norm_outputs(bert: Any, tokens: dict[str, Tensor]) -> list[Tensor]:
    """Return what each LayerNorm gives for the real tokens, [T, H] each."""
    with recorded(norms(bert)) as seen:
        masks = []
        for _, ids, mask in batches(tokens):
            run_layers(bert.encoder.layer, bert.embeddings(input_ids=ids), mask)
            masks.append(mask.bool())
    return [torch.cat([part[mask] for part, mask in zip(parts, masks, strict=True)]) for parts in seen]


def copy_embeddings(teacher: Any, student: Any, kept: Tensor, width: Tensor) -> None:
    """Project the embeddings of the kept tokens, of the positions and of the token types."""
    student.word_embeddings.weight.copy_(teacher.word_embeddings.weight[kept] @ width)
    for name in ("position_embeddings", "token_type_embeddings"):
        rows = getattr(student, name).weight
        rows.copy_(getattr(teacher, name).weight[: len(rows)] @ width)


def copy_attention(teacher: Any, student: Any, width: Tensor) -> None:
    """Copy the heaviest heads, and of each the heaviest directions where the student's heads are narrower."""
    of, to = teacher.self, student.self
    wide, narrow = of.attention_head_size, to.attention_head_size
    heads = of.num_attention_heads
    scores = (of.query.weight.norm(dim=1) * of.key.weight.norm(dim=1)).view(heads, wide)
    values = (of.value.weight.norm(dim=1) * teacher.output.dense.weight.norm(dim=0)).view(heads, wide)
    chosen = values.square().sum(1).topk(to.num_attention_heads).indices.sort().values

    def rows(importance: Tensor) -> Tensor:
        best = importance[chosen].topk(narrow, dim=1).indices.sort(dim=1).values
        return (chosen[:, None] * wide + best).flatten()

    # a score is divided by the root of the head's width: the query makes up for a narrower one
    asked, passed, rescale = rows(scores), rows(values), (narrow / wide) ** 0.5
    read(of.query, to.query, asked, width, rescale)
    read(of.key, to.key, asked, width)
    read(of.value, to.value, passed, width)
    write(teacher.output.dense, student.output.dense, passed, width)


def copy_feed_forward(teacher: Any, student: Any, width: Tensor) -> None:
    """Copy the feed-forward units with the largest weights."""
    inner, outer = teacher.intermediate.dense, teacher.output.dense
    importance = inner.weight.norm(dim=1) * outer.weight.norm(dim=0)
    rows = importance.topk(student.intermediate.dense.out_features).indices.sort().values
    read(inner, student.intermediate.dense, rows, width)
    write(outer, student.output.dense, rows, width)


def read(teacher: nn.Linear, student: nn.Linear, rows: Tensor, width: Tensor, scale: float = 1.0) -> None:
    """Copy chosen outputs of a layer that reads the residual stream."""
    student.weight.copy_(scale * teacher.weight[rows] @ width)
    student.bias.copy_(scale * teacher.bias[rows])


def write(teacher: nn.Linear, student: nn.Linear, columns: Tensor, width: Tensor) -> None:
    """Copy chosen inputs of a layer that writes the residual stream."""
    student.weight.copy_(width.T @ teacher.weight[:, columns])
    student.bias.copy_(teacher.bias @ width)


def fit_norms(student: StudentEncoder, tokens: dict[str, Tensor], targets: list[Tensor]) -> None:
    """Fit each LayerNorm's scale and shift to the teacher's projected states, [T, h] each, in running order."""
    for place, (norm, target) in enumerate(zip(norms(student.bert), targets, strict=True)):
        norm.weight.fill_(1.0)
        norm.bias.zero_()
        given = norm_outputs(student.bert, tokens)[place]
        mean, centre = given.mean(0), target.mean(0)
        spread = given - mean
        scale = (spread * (target - centre)).mean(0) / spread.square().mean(0).clamp(min=1e-12)
        norm.weight.copy_(scale)
        norm.bias.copy_(centre - scale * mean)


def fit_head(student: TextStudent, tokens: dict[str, Tensor], goal: Tensor) -> None:
    """Fit the head from pooled states to the goal by ridge regression around the means."""
    pooled = torch.empty(len(goal), student.head.in_features)
    for rows, ids, mask in batches(tokens):
        pooled[rows] = student.pooled(ids, mask)
    mean, centre = pooled.mean(0), goal.mean(0)
    spread = (pooled - mean).double()
    gram = spread.T @ spread
    gram += RIDGE * gram.diagonal().mean().clamp(min=1e-12) * torch.eye(len(gram), dtype=torch.float64)
    weight = torch.linalg.solve(gram, spread.T @ (goal - centre).double()).T.float()
    student.head.weight.copy_(weight)
    student.head.bias.copy_(centre - weight @ mean)
