"""The static student: a table of token vectors and a weighted mean, no layers.

As model2vec's (Tulkens & van Dongen 2024), but fitted: a token's row starts as what the teacher makes of the token
alone, its weight as SIF's (Arora et al. 2017), and a ridge regression bends the rows to the teacher's text parts.
Distillation then trains rows, weights and head together. A token's weight counts in the mean's denominator too, so that
``[CLS]``, ``[SEP]`` and words that say nothing fade out instead of thinning the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgerec.distill.encoder import MAX_TOKENS
from edgerec.distill.text_student import TextStudent
from edgerec.distill.text_training import CHUNK, mean_pool, run_layers
from edgerec.distill.towers import pca
from edgerec.errors import UsageError
from edgerec.interactions import FloatArray

# Chosen on 33 titles of ml-100k kept away from the fit: mean cosine to the teacher's text part 0.92, against 0.84 with
# SIF's usual 0.001, 0.90 without weights, 0.88 with rows held to zero and 0.68 without a fit.
SIF = 0.03  # a token with this share of all tokens weighs a half (Arora et al. 2017)
RIDGE = 0.1  # of the rows' regression, in texts: what holds a token's row to the teacher's vector of that token alone
INITIAL = 0.02  # standard deviation of random rows, as BERT's


@dataclass(frozen=True)
class StaticConfig:
    """The size of a static student."""

    hidden: int  # width of the table; no more than d is used

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise UsageError(f"got a table of width {self.hidden}; expected at least 1")


class StaticEncoder(TextStudent):
    """Texts to text parts by a weighted mean of token vectors.

    Args:
        vocabulary: V', number of tokens.
        hidden: h, width of the table.
        size: d, the towers' embedding size.
        max_tokens: The longest text that it takes.
    """

    texts_per_step, tokens_per_step = 4096, 1 << 16

    def __init__(self, vocabulary: int, hidden: int, size: int, max_tokens: int = MAX_TOKENS) -> None:
        super().__init__()
        self.max_tokens = max_tokens
        self.table, self.log_weights = nn.Embedding(vocabulary, hidden), nn.Embedding(vocabulary, 1)
        self.head = nn.Linear(hidden, size)
        nn.init.normal_(self.table.weight, std=INITIAL)
        nn.init.zeros_(self.log_weights.weight)

    def pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the weighted mean of the rows of int [B, L] tokens, [B, h].

        Weights are made of the whole table, which a graph does once, as it is loaded; the sum over tokens is a product.
        """
        weights = self.log_weights.weight[:, 0].exp()[input_ids] * attention_mask
        shares = weights / weights.sum(1, keepdim=True).clamp(min=1e-12)
        return (shares.unsqueeze(1) @ self.table(input_ids)).squeeze(1)

    @property
    def stages(self) -> list[nn.Module]:
        """The table."""
        return [self.table]

    @property
    def student_config(self) -> StaticConfig:
        """The size, as the table has it."""
        return StaticConfig(self.table.embedding_dim)


@torch.no_grad()
def static_from(config: StaticConfig, prior: Tensor, tokens: dict[str, Tensor], goal: Tensor) -> StaticEncoder:
    """Make a static student out of the teacher's vectors.

    The head is the PCA of the goal. The rows are the least-squares solution of "weighted mean = goal" over the texts,
    in the coordinates of that PCA, under a penalty on their squared distance to the prior: a token that no text holds
    keeps it.

    Args:
        config: Size.
        prior: [V', d], the teacher's text part of each token alone (``token_parts``).
        tokens: ``input_ids`` and ``attention_mask``, int64 [M, L], that it is fitted to.
        goal: [M, d], the text parts to give for them.
    """
    directions = torch.from_numpy(pca(goal.numpy(), min(config.hidden, goal.shape[1])))  # [d, h], orthonormal
    encoder = StaticEncoder(len(prior), directions.shape[1], len(directions))
    counts = tokens["input_ids"][tokens["attention_mask"].bool()].bincount(minlength=len(prior))
    weights = SIF / (SIF + counts / counts.sum())
    means = mean_matrix(tokens, weights)
    rows = (prior @ directions).numpy()
    rows += ridge(means, (goal @ directions).numpy() - means @ rows)
    encoder.table.weight.copy_(torch.from_numpy(rows))
    encoder.log_weights.weight.copy_(weights.log()[:, None])
    encoder.head.weight.copy_(directions)
    encoder.head.bias.zero_()
    return encoder.eval()


def mean_matrix(tokens: dict[str, Tensor], weights: Tensor) -> sp.csr_matrix:
    """Return what each token counts in each text's weighted mean, float32 [M, V'], rows of sum 1."""
    texts, places = tokens["attention_mask"].nonzero(as_tuple=True)
    ids = tokens["input_ids"][texts, places]
    shape = (len(tokens["input_ids"]), len(weights))
    counts = sp.csr_matrix((weights[ids].numpy(), (texts.numpy(), ids.numpy())), shape=shape)
    return sp.diags(1 / np.maximum(np.asarray(counts.sum(1))[:, 0], 1e-12)).astype(np.float32) @ counts


def ridge(means: sp.csr_matrix, goal: FloatArray) -> FloatArray:
    """Return rows [V', h] that minimise ``|means rows - goal|^2 + RIDGE |rows|^2``."""
    from sklearn.linear_model import Ridge

    fitted = Ridge(alpha=RIDGE, fit_intercept=False, solver="lsqr").fit(means, goal)
    return fitted.coef_.reshape(goal.shape[1], -1).T.astype(np.float32)


@torch.no_grad()
def token_parts(teacher: Any, kept: Tensor, around: list[int], projection: Tensor) -> Tensor:
    """Return the teacher's text part of each token alone, [V', d].

    Args:
        teacher: A Hugging Face BERT-like model.
        kept: int64 [V'], the teacher's ids of the tokens.
        around: The teacher's ids of an empty text: what the tokenizer puts around one, such as [CLS] and [SEP].
        projection: [T, d], the towers'.
    """
    parts = []
    for ids in kept.split(CHUNK):
        first, last = (torch.tensor(part).expand(len(ids), -1) for part in (around[:1], around[1:]))
        texts = torch.cat([first, ids[:, None], last], dim=1).long()
        mask = torch.ones_like(texts)
        hidden = run_layers(teacher.encoder.layer, teacher.embeddings(input_ids=texts), mask)
        parts.append(functional.normalize(mean_pool(hidden, mask), dim=-1) @ projection)
    return torch.cat(parts)
