"""Further teachers: their opinion of the whole catalogue, mixed into the distribution that the listwise loss teaches.

A further teacher is anything that scores requests. Its scores have no common scale, so they are brought to a standard
deviation of 1 per request and multiplied by one number, which makes them a distribution: the number under which the
next items of validation are the most likely (temperature scaling; Guo et al. 2017). Distributions are then averaged
with the teachers' weights, as an ensemble's are in Hinton et al. 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgerec.distill import checkpoint
from edgerec.distill.baselines import standardise, tuned_ease, tuned_knn
from edgerec.distill.softmax import Candidates, asked
from edgerec.errors import UsageError
from edgerec.interactions import Dataset, Ragged, Requests, Split
from edgerec.metrics import Scorer

BASELINES = {"itemknn": tuned_knn, "ease": tuned_ease}
SHARPNESS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # factors of standardised scores that are tried
BATCH = 256  # requests scored together


@dataclass(frozen=True)
class FurtherTeacher:
    """A scorer as a teacher: ``sharpness`` times its standardised scores are logits."""

    name: str
    scorer: Scorer
    weight: float
    sharpness: float

    def logits(self, requests: Requests) -> Tensor:
        """Return logits of the whole catalogue, float32 [R, n_items]."""
        return self.sharpness * torch.from_numpy(standardise(self.scorer.score(requests)))


class Ensemble:
    """Further teachers beside the first.

    Args:
        own: The first teacher's weight.
        others: The further ones.

    Raises:
        UsageError: A weight is negative, or all are 0.
    """

    def __init__(self, own: float, others: Sequence[FurtherTeacher]) -> None:
        weights = [own, *(one.weight for one in others)]
        if min(weights) < 0 or not 0 < sum(weights) < float("inf"):
            raise UsageError(f"got teachers' weights {weights}; expected none below 0, and one above it")
        self.own, self.others, self.total = own, others, sum(weights)

    def described(self) -> list[dict[str, Any]]:
        """Return the further teachers as a JSON value."""
        return [{"name": one.name, "weight": one.weight, "sharpness": one.sharpness} for one in self.others]

    def mixed(
        self, taught: Tensor, history: Tensor, targets: Tensor, sources: Tensor, chosen: Candidates, temperature: float
    ) -> Tensor:
        """Return the mean of the teachers' distributions, [Q, C].

        Args:
            taught: The first teacher's distribution, [Q, C].
            history: int [B, L], right-padded; a source's request is its window up to the source.
            targets: int [B, L], as the towers take them.
            sources: int [B, L], likewise.
            chosen: What competes.
            temperature: Of the softmax.
        """
        places, windows = asked(targets, sources), history.cpu().numpy().astype(np.int32)
        ends = zip(places.windows.tolist(), places.places.tolist(), strict=True)
        histories = Ragged.from_lists([windows[window, : place + 1] for window, place in ends])
        requests = Requests(places.windows.cpu().numpy().astype(np.int32), histories, Ragged.from_lists([]))
        mixture = self.own * taught
        for one in self.others:
            logits = one.logits(requests).to(taught.device)[:, chosen.items] + chosen.offset
            mixture = mixture + one.weight * torch.softmax(logits / temperature, dim=-1)
        return mixture / self.total


def further_teacher(name: str, weight: float, data: Dataset, split: Split) -> FurtherTeacher:
    """Open or fit a further teacher.

    Args:
        name: A key of ``BASELINES``, which is fitted and tuned here, or the folder of another teacher of the same data.
        weight: Of its distribution.
        data: What it is to be a teacher of.
        split: Of that data; the scale of its scores is chosen on its validation.

    Raises:
        UsageError: The folder holds no teacher, or one of other data or another split.
    """
    if name in BASELINES:
        scorer: Scorer = BASELINES[name](split)
    else:
        found = checkpoint.load(Path(name))
        found.require_data(data)
        if found.info["kind"] != "teacher" or found.info["split"] != split.name:
            raise UsageError(
                f"{name} is a {found.info['kind']} of split {found.info['split']}; expected a teacher of {split.name}, "
                f"or one of {', '.join(BASELINES)}"
            )
        scorer = found.towers.arrays()
    return FurtherTeacher(name, scorer, weight, best_sharpness(scorer, split))


def best_sharpness(scorer: Scorer, split: Split) -> float:
    """Return the factor of standardised scores that makes the warm targets of validation most likely."""
    plain, totals = FurtherTeacher("", scorer, 1.0, 1.0), torch.zeros(len(SHARPNESS), dtype=torch.float64)
    warm = torch.from_numpy(split.warm)
    for start in range(0, len(split.validation), BATCH):
        requests = split.validation.take(slice(start, start + BATCH))
        logits = plain.logits(requests).masked_fill(~warm, -torch.inf)
        rows = torch.from_numpy(np.repeat(np.arange(len(requests)), requests.targets.lengths))
        items = torch.from_numpy(requests.targets.values).long()
        rows, items = rows[warm[items]], items[warm[items]]
        totals += torch.stack([(factor * logits).log_softmax(1)[rows, items].sum().double() for factor in SHARPNESS])
    return SHARPNESS[int(totals.argmax())]
