"""Golden requests: real histories with the answers that torch gives, for every device to repeat.

Requests are answered on the tables as they ship (rounded to INT8), so that what is left to differ is arithmetic. Half
of them are spread over the sample of histories, half are those whose tenth and eleventh place are the nearest to a tie.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgerec.distill.towers import EPSILON
from edgerec.runtime.layout import FloatArray, Tower
from edgerec.runtime.reference import dequantized

K = 10
REQUESTS = 24
TEXTS = 16
DIGITS = 6  # of a text vector's coordinates: float32 has little more
TOLERANCE = 3e-4  # of a score's scale: float32 sums in another order, and the user vector's last limb


def torch_scores(tower: Tower, history: Sequence[int]) -> FloatArray:
    """Return torch's scores for a history of rows from 1 (0-free), float32 [N]; the stored popularity for none."""
    if not history:
        return np.asarray(tower.popularity, np.float32)
    item_out = torch.from_numpy(tower.item_out)
    item_in = item_out if tower.item_in is None else torch.from_numpy(tower.item_in)
    events = item_in[torch.tensor(history) - 1]
    ages = torch.arange(len(history) - 1, -1, -1)
    decays, mix = torch.from_numpy(tower.decays)[:, None], torch.from_numpy(tower.mix)[:, None]
    mixed = (mix * decays**ages).sum(0) @ events
    user: Tensor = tower.scale * mixed / mixed.norm().clamp(min=EPSILON)
    return (item_out @ user + torch.from_numpy(tower.bias) + torch_repeats(tower, history)).numpy()


def torch_repeats(tower: Tower, history: Sequence[int]) -> Tensor:
    """Return what the repeat recencies add to every item's score, float32 [N]."""
    ages = torch.arange(len(history) - 1, -1, -1)
    decays = torch.from_numpy(tower.repeat_decays)
    memory = torch.zeros(len(decays), tower.n_items)
    memory.index_add_(1, torch.tensor(history) - 1, decays[:, None] ** ages)
    return torch.from_numpy(tower.repeat_weights) @ memory.log1p()


def ranked(scores: FloatArray, seen: Sequence[int], k: int) -> list[int]:
    """Return the k best rows from 1, without the seen ones."""
    scores = scores.copy()
    scores[[row - 1 for row in seen]] = -np.inf
    order = np.argsort(-scores, kind="stable")[:k]
    return [int(row) + 1 for row in order if scores[row] > -np.inf]


def choose(tower: Tower, histories: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the histories to use: the empty one, some spread over the sample, and the nearest to a tie."""
    gaps = []
    for history in histories:
        best = np.sort(torch_scores(tower, history))[::-1][: K + 1]
        gaps.append(float(best[-2] - best[-1]) if len(best) > 1 else 0.0)
    half = min(REQUESTS // 2, len(histories))
    spread = np.linspace(0, len(histories) - 1, half).astype(int).tolist() if histories else []
    ties = [int(row) for row in np.argsort(gaps, kind="stable") if row not in spread][:half]
    return [[], *(list(histories[row]) for row in [*spread, *ties])]


def goldens(
    tower: Tower, histories: Sequence[Sequence[int]], texts: Sequence[str], vectors: FloatArray, text_tolerance: float
) -> bytes:
    """Return ``goldens.json``.

    Args:
        tower: As trained; it is rounded here as the bundle rounds it.
        histories: Rows from 1, oldest first.
        texts: Texts for the encoder.
        vectors: float32 [len(texts), d], torch's text vectors of them.
        text_tolerance: Cosine distance that the encoder's precision may cost.
    """
    shipped = dequantized(tower)
    requests: list[dict[str, Any]] = []
    for number, history in enumerate(choose(shipped, histories)):
        scores = torch_scores(shipped, history)
        exclude = tower.mask_seen if number % 4 else not tower.mask_seen
        rows = ranked(scores, history if exclude else [], K)
        wanted = [float(scores[row - 1]) for row in rows]
        requests.append({"history": history, "exclude_seen": exclude, "k": K, "items": rows, "scores": wanted})
    largest = max(
        (abs(score) for request in requests if request["history"] for score in request["scores"]), default=1.0
    )
    return json.dumps(
        {
            "tolerance": TOLERANCE * max(largest, 1.0),
            "requests": requests,
            "texts": [
                {"text": t, "text_vector": [round(float(x), DIGITS) for x in v]}
                for t, v in zip(texts, vectors, strict=True)
            ],
            "text_tolerance": text_tolerance,
        },
        ensure_ascii=False,
    ).encode()
