"""Training a cross-encoder: a few candidates per history, the one that the user took next among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgerec.distill import LOSSES, NEGATIVES, checkpoint
from edgerec.distill.cross_encoder import HISTORY, KIND, CrossEncoder, Reranker, open_cross_encoder
from edgerec.distill.negatives import Negatives
from edgerec.distill.options import TrainOptions
from edgerec.distill.softmax import PADDING
from edgerec.distill.teacher import require_layers
from edgerec.distill.training import fit, users_per_batch
from edgerec.errors import UsageError
from edgerec.files import write_json
from edgerec.interactions import Dataset, FloatArray, IntArray, Ragged, Requests, Split
from edgerec.metrics import Scorer, validation_ndcg

HEAD_FASTER = 3.0  # learning rate of the head, which starts from nothing, against the encoder's
VALIDATION_USERS = 32  # reranked per evaluation: 1,600 pairs, half a minute of MiniLM on one core

# The last step is kept: 32 users say where training goes, not which of two evaluations is the better.
TRAIN = TrainOptions(steps=1250, batch_size=16, learning_rate=5e-5, evaluate_every=250, keep_best=False)


@dataclass(frozen=True)
class CrossOptions:
    """How a cross-encoder is trained."""

    loss: str = LOSSES[0]
    negatives: tuple[str, ...] = (NEGATIVES[0], NEGATIVES[3])
    number: int = 4  # negatives per positive
    history: int = HISTORY  # events that are told
    top_layers: int = 2  # of the encoder, trained with the head
    train: TrainOptions = field(default_factory=lambda: TRAIN)  # its batch is of positives

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UsageError(f"unknown loss {self.loss!r}; expected one of {', '.join(LOSSES)}")
        if self.history < 1:
            raise UsageError(f"got a history of {self.history} events; expected at least 1")


class CrossTraining(nn.Module):
    """A cross-encoder with what it is trained against; it scores requests as a reranker.

    Args:
        cross: To be trained.
        first: Two towers: they choose hard negatives, their scores are the goal of ``mse``, their ranking is reranked.
        split: Of its ``train``, what was taken how often; whether histories are masked.
        options: Loss and negatives.
    """

    def __init__(self, cross: CrossEncoder, first: Scorer, split: Split, options: CrossOptions) -> None:
        super().__init__()
        counts = torch.bincount(torch.from_numpy(split.train.values).long(), minlength=split.n_items)
        self.cross, self.first, self.loss, self.mask_seen = cross, first, options.loss, split.mask_seen
        self.negatives = Negatives(options.negatives, options.number, counts)
        self.reranker = Reranker(cross, first, split.mask_seen)

    def forward(self, history: Tensor, targets: Tensor, sources: Tensor) -> dict[str, Tensor]:
        """Return the loss of one next item per window of [B, L]."""
        histories, positives = examples(history.cpu(), targets.cpu(), sources.cpu())
        if not histories:  # every window lies in one basket
            return {"loss": 0.0 * next(one for one in self.parameters() if one.requires_grad).sum()}
        scores = torch.from_numpy(self.first.score(unanswered(histories)))
        barred = torch.zeros_like(scores, dtype=torch.bool)
        if self.mask_seen:
            for row, events in enumerate(histories):
                barred[row, torch.from_numpy(events).long()] = True
        drawn = self.negatives.draw(positives, barred, scores)
        candidates = torch.cat([positives[:, None], drawn], dim=1)
        interest = self.cross(histories, candidates.numpy())
        return {"loss": pair_loss(interest, scores.gather(1, candidates).to(interest.device), self.loss)}

    def score(self, requests: Requests) -> FloatArray:
        """Return scores of the whole catalogue, the top of the two towers reranked, float32 [R, n_items]."""
        return self.reranker.score(requests)


def examples(history: Tensor, targets: Tensor, sources: Tensor) -> tuple[list[IntArray], Tensor]:
    """Choose one target per window of [B, L] at random, and return its history and itself, int64 [B'].

    A window that asks for nothing has none.
    """
    rows = (targets != PADDING).any(dim=1).nonzero()[:, 0]
    if not len(rows):
        return [], rows
    places = torch.multinomial((targets[rows] != PADDING).float(), 1)[:, 0]
    ends = (sources[rows, places] + 1).tolist()
    lists = [history[row, :end].numpy().astype(np.int32) for row, end in zip(rows.tolist(), ends, strict=True)]
    return lists, targets[rows, places]


def unanswered(histories: Sequence[IntArray]) -> Requests:
    """Return requests of which nobody asks who made them and what the answer was."""
    return Requests(np.zeros(len(histories), np.int32), Ragged.from_lists(histories), Ragged.from_lists([]))


def pair_loss(interest: Tensor, taught: Tensor, loss: str) -> Tensor:
    """Return the loss of groups [B, 1 + N] whose first candidate is the positive.

    ``ce`` is the cross-entropy of the positive in its group, ``bce`` that of every pair by itself. ``mse`` is the
    squared distance to ``taught`` [B, 1 + N], the mean of each group taken off both: a softmax leaves that mean open,
    so that differences alone are learned (MarginMSE, Hofstaetter et al. 2020).
    """
    if loss == "ce":
        return functional.cross_entropy(interest, torch.zeros(len(interest), dtype=torch.long, device=interest.device))
    if loss == "bce":
        taken = torch.zeros_like(interest)
        taken[:, 0] = 1
        return functional.binary_cross_entropy_with_logits(interest, taken)
    return functional.mse_loss(interest - interest.mean(1, keepdim=True), taught - taught.mean(1, keepdim=True))


def fine_tune_cross(
    data: Dataset, split: Split, encoder: Path, first: Scorer, options: CrossOptions, out: Path, resume: bool = False
) -> dict[str, Any]:
    """Train a cross-encoder and write it as a model folder: ``model.json`` and ``encoder/`` with its head.

    Args:
        data: Catalogue and log.
        split: Training happens on its ``train``.
        encoder: Folder of a BERT-like Hugging Face encoder.
        first: Two towers trained on the same data.
        options: Loss, negatives and schedule.
        out: A new folder, or with ``resume`` an unfinished one.
        resume: Go on from the last checkpoint.

    Returns:
        The report: validation NDCG@10 of the reranked list and of the two towers, over how many users, and how many
        examples of the log it was trained on.

    Raises:
        UsageError: ``out`` holds something, or the encoder is not BERT-like.
        InterruptedTraining: Ctrl-C.
    """
    checkpoint.new_folder(out, resume)
    torch.manual_seed(options.train.seed)  # of the new head
    cross = open_cross_encoder(encoder, data.titles, data.texts, options.history)
    groups = trainable(cross.model, options, encoder)
    training = CrossTraining(cross, first, split, options)
    chosen = np.linspace(0, len(split.validation) - 1, min(VALIDATION_USERS, len(split.validation))).astype(int)
    sample = replace(split, validation=split.validation.take(chosen))
    reached = fit(training, groups, sample, options.train, out / "checkpoints", "cross-encoder", resume)
    users = options.train.batch_size or users_per_batch(split, options.train.window)
    report = {
        "reranked": reached,
        "two_towers": validation_ndcg(first, sample, 10),
        "users": f"{len(chosen)} of {len(split.validation)}",
        "examples": f"{options.train.steps * users} drawn of {answerable(split)}",
    }
    cross.model.save_pretrained(out / checkpoint.ENCODER)
    cross.tokenizer.save_pretrained(out / checkpoint.ENCODER)
    info = {"kind": KIND, "validation_ndcg10": report, "options": asdict(options)}
    write_json(out / checkpoint.MODEL, {**checkpoint.origin(data, split), **info})
    return report


def trainable(model: Any, options: CrossOptions, encoder: Path) -> list[dict[str, Any]]:
    """Freeze all but the top layers and the head, and return AdamW's groups."""
    layers = require_layers(model.base_model, options.top_layers, encoder)[-options.top_layers :]
    head = [module for name, module in model.named_children() if module is not model.base_model]
    head += [module for name, module in model.base_model.named_children() if name == "pooler"]
    model.requires_grad_(False)
    rates = ((layers, 1.0), (nn.ModuleList(head), HEAD_FASTER))
    of = options.train
    return [
        {
            "params": list(part.requires_grad_(True).parameters()),
            "lr": faster * of.learning_rate,
            "weight_decay": of.weight_decay,
        }
        for part, faster in rates
    ]


def answerable(split: Split) -> int:
    """Return the number of training events with an earlier step of the same user: what examples are drawn from."""
    some = split.train.lengths > 0
    first = np.repeat(split.train_steps[split.train.offsets[:-1][some]], split.train.lengths[some])
    return int((split.train_steps != first).sum())
