"""The softmax of training: which items compete at a step, what each scores, and the loss of the true next ones.

A target is asked at its *source*: the last event of an earlier step than its own. Events of one basket have no order,
so all of them are asked once, after the basket before. Above ``FULL_LIMIT`` warm items the sum over the catalogue is
estimated: the items of the batch count as themselves, the rest through a uniform sample, each drawn item standing for
``n_warm / sample`` others (importance sampling, "logQ correction"; Bengio & Senecal 2008, Yi et al. 2019).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

PADDING = -1  # row of no item, in training windows only
FULL_LIMIT = 20_000  # warm items up to which all of them compete
SAMPLE = 4_096  # items drawn per step above that


class Candidates(NamedTuple):
    """The items that compete: ``items`` int [C], ``offset`` float [C] on their scores, ``columns`` int [n_items]."""

    items: Tensor
    offset: Tensor
    columns: Tensor  # of each item among the candidates; of another item, any


class Asked(NamedTuple):
    """Where a batch asks for targets: S distinct sources, P targets.

    ``windows`` and ``places`` int [S] say where the sources are; ``rows`` int [P] the source of each target, ``items``
    int [P] the target.
    """

    windows: Tensor
    places: Tensor
    rows: Tensor
    items: Tensor


class Logits(NamedTuple):
    """Scores [S, C] of the candidates at every source, and ``rows``, ``columns`` int [P] of the true next items."""

    scores: Tensor
    rows: Tensor
    columns: Tensor


def asked(targets: Tensor, sources: Tensor) -> Asked:
    """Gather the distinct sources of targets int [B, L] (``PADDING`` where none is asked)."""
    window, column = (targets != PADDING).nonzero(as_tuple=True)
    length = targets.shape[1]
    flat, rows = torch.unique(window * length + sources[window, column], return_inverse=True)
    return Asked(flat // length, flat % length, rows, targets[window, column])


def candidates(warm: Tensor, history: Tensor, targets: Tensor) -> Candidates:
    """Choose the items that compete at a step.

    Args:
        warm: bool [n_items].
        history: int [B, L], all of warm items.
        targets: int [B, L], likewise.
    """
    rows = warm.nonzero()[:, 0]
    offset = torch.zeros(len(rows), device=warm.device)
    if len(rows) > FULL_LIMIT:
        here = torch.cat([history.flatten(), targets.flatten()])
        here = here[here != PADDING].unique()
        drawn = rows[torch.randint(len(rows), (SAMPLE,), device=rows.device)]
        drawn = drawn[~torch.isin(drawn, here)]
        share = torch.full((len(drawn),), math.log(len(rows) / SAMPLE), device=rows.device)
        rows, offset = torch.cat([here, drawn]), torch.cat([torch.zeros(len(here), device=rows.device), share])
    columns = torch.zeros(len(warm), dtype=torch.long, device=rows.device)
    # an item drawn twice has two columns, and is no target; the first columns are those of the batch's own items
    columns[rows.flip(0)] = torch.arange(len(rows), device=rows.device).flip(0)
    return Candidates(rows, offset, columns)


def next_item_loss(logits: Logits) -> Tensor:
    """Return the cross-entropy of the true next items: the mean over a source's targets, then over sources."""
    scores, rows, columns = logits
    each = scores.logsumexp(dim=1)[rows] - scores[rows, columns]
    return (each / rows.bincount()[rows]).sum() / max(len(scores), 1)  # 0 where a batch asks for nothing
