"""Rank parity: whether an engine's answers are torch's, over real histories and the whole catalogue's texts.

Scores that differ by rounding say little; what a user sees is a list. So the top 10, the order within it (Kendall's
tau-b), and the pairs that changed places are counted, the latter beside how many of them torch itself could hardly tell
apart. What a precision may cost stands in ``limits.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgerec.errors import ParityError
from edgerec.export.engines import Engine, Feed
from edgerec.export.goldens import torch_scores
from edgerec.export.limits import LIMITS
from edgerec.runtime.layout import FloatArray, Tower
from edgerec.runtime.verify import cosines

K = 10
NEAR = 0.01  # of the spread of a history's top scores: two items nearer than that are a near-tie


@dataclass(frozen=True)
class Reference:
    """What torch answers in fp32, with the tables as trained.

    Attributes:
        histories: Rows from 1, oldest first.
        scores: float32 [n, N], of every item.
        vectors: float32 [T, d], text vectors of ``feeds``.
        feeds: Tokens of texts.
        titles: Of the catalogue.
        texts: What ``feeds`` hold.
    """

    histories: Sequence[Sequence[int]]
    scores: FloatArray
    vectors: FloatArray
    feeds: Sequence[Feed]
    titles: Sequence[str]
    texts: Sequence[str]


def reference(
    tower: Tower, histories: Sequence[Sequence[int]], vectors: FloatArray, feeds: Sequence[Feed], texts: Sequence[str]
) -> Reference:
    """Let torch answer; histories without events are left out, they are answered by popularity alone."""
    asked = [history for history in histories if history]
    return Reference(asked, np.stack([torch_scores(tower, one) for one in asked]), vectors, feeds, tower.titles, texts)


def compare(engine: Engine, wanted: Reference) -> dict[str, Any]:
    """Ask an engine everything.

    Returns:
        A JSON value: ``overlap`` and ``tau`` (means over histories), ``flips`` and ``near_flips`` (pairs of torch's top
        10 in the other order; those of them that are near-ties), ``largest_score_difference``, ``worst_overlap`` with
        ``worst_request``, ``largest_text_distance`` with ``worst_text``.
    """
    found = [ranks(engine, history, scores) for history, scores in zip(wanted.histories, wanted.scores, strict=True)]
    worst = min(range(len(found)), key=lambda one: (found[one]["overlap"], found[one]["tau"]))
    got = np.concatenate([engine.encode(feed) for feed in wanted.feeds])
    distances = 1 - cosines(got, wanted.vectors)
    last = wanted.histories[worst][-1]
    return {
        "engine": engine.name,
        "requests": len(found),
        "texts": len(got),
        **{name: float(np.mean([one[name] for one in found])) for name in ("overlap", "tau")},
        **{name: int(sum(one[name] for one in found)) for name in ("flips", "near_flips")},
        "largest_score_difference": max(one["difference"] for one in found),
        "worst_overlap": found[worst]["overlap"],
        "worst_request": f"{len(wanted.histories[worst])} events, last {wanted.titles[last - 1]!r}",
        "largest_text_distance": float(np.nan_to_num(distances, nan=2.0).max()),
        "worst_text": wanted.texts[int(np.nan_to_num(distances, nan=2.0).argmax())],
    }


def ranks(engine: Engine, history: Sequence[int], scores: FloatArray) -> dict[str, float]:
    """Compare an engine's answer to one history with torch's scores of all items, float32 [N]."""
    from scipy.stats import kendalltau

    items, given = engine.rank(np.array([history], np.int64), len(scores))
    own = np.full(len(scores), -np.inf)
    own[items[items > 0] - 1] = given[items > 0]
    k = min(K, len(scores))
    best, mine = (np.argsort(-values, kind="stable")[:k] for values in (scores, own))
    first, second = np.triu_indices(k, 1)  # pairs, the better one first
    gaps = scores[best[first]] - scores[best[second]]
    flipped = own[best[first]] < own[best[second]]
    near = gaps < NEAR * max(float(scores[best[0]] - scores[best[-1]]), 1e-12)
    tau = float(kendalltau(scores[best], own[best]).statistic) if k > 1 else 1.0
    return {
        "overlap": len(set(best) & set(mine)) / k,
        "tau": 0.0 if np.isnan(tau) else tau,
        "flips": int(flipped.sum()),
        "near_flips": int((flipped & near).sum()),
        "difference": float(np.nan_to_num(np.abs(own - scores), nan=np.inf, posinf=np.inf).max()),
    }


def require_parity(row: dict[str, Any], precision: str) -> None:
    """Refuse an engine that is not as good as its precision should be.

    Raises:
        ParityError: It falls short; the message names each number, its limit, and the worst request.
    """
    limits = LIMITS[precision]
    short = [
        f"{name} {row[name]:.3g} (expected {'at most' if upper else 'at least'} {limit:g})"
        for name, limit, upper in (
            ("overlap", limits.overlap, False),
            ("tau", limits.tau, False),
            ("largest_text_distance", limits.text_distance, True),
        )
        if not (row[name] <= limit if upper else row[name] >= limit)
    ]
    if short:
        raise ParityError(
            f"{row['engine']} does not answer as torch does: {'; '.join(short)}; worst request: "
            f"{row['worst_request']}, worst text: {row['worst_text'][:40]!r}; nothing was "
            "written: choose another precision or target"
        )
