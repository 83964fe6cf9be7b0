"""Full-catalogue ranking and its metrics: the one implementation that every number about quality comes from.

Definitions, per user with targets T and the ranked list r_1 .. r_k (binary relevance):
HR@k = 1 if any r_i is in T; MRR@k = 1 / rank of the first hit, 0 without;
NDCG@k = sum over hits of 1/log2(i + 1), over the same sum for min(|T|, k) hits at the top (Jarvelin & Kekalainen 2002).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgerec.errors import UsageError
from edgerec.interactions import FloatArray, IntArray, Ragged, Requests, Split

METRICS = ("hr", "ndcg", "mrr")


class Scorer(Protocol):
    """Anything that scores the whole catalogue for a batch of histories."""

    def score(self, requests: Requests) -> FloatArray:
        """Return float32 [R, n_items]; it may be overwritten by the caller."""


def rank(scorer: Scorer, requests: Requests, k: int, mask_seen: bool, batch: int = 256) -> IntArray:
    """Rank the full catalogue for every request.

    Returns:
        int32 [R, k]: item rows, best first, ties by the lower row; -1 where fewer than k items can be returned.

    Raises:
        UsageError: k is below 1.
    """
    if k < 1:
        raise UsageError(f"got k = {k}; expected at least 1")
    ranked = np.full((len(requests), k), -1, dtype=np.int32)
    for start in range(0, len(requests), batch):
        part = requests.take(np.arange(start, min(start + batch, len(requests))))
        scores = scorer.score(part)
        if mask_seen:
            rows = np.repeat(np.arange(len(part)), part.histories.lengths)
            scores[rows, part.histories.values] = -np.inf
        top = top_k(scores, k)
        ranked[start : start + len(part), : top.shape[1]] = top
    return ranked


def top_k(scores: FloatArray, k: int) -> IntArray:
    """Return the rows of the k best finite scores of each line, int32 [R, min(k, n)]; ties by the lower row."""
    n_items = scores.shape[1]
    k = min(k, n_items)
    # The k-th best score bounds the candidates; a stable sort among all that reach it keeps ties in row order.
    bound = np.partition(scores, n_items - k, axis=1)[:, n_items - k]
    ranked = np.full((len(scores), k), -1, dtype=np.int32)
    for line, (values, least) in enumerate(zip(scores, bound, strict=True)):
        candidates = np.flatnonzero((values >= least) & (values > -np.inf))
        best = candidates[np.argsort(-values[candidates], kind="stable")[:k]]
        ranked[line, : len(best)] = best
    return ranked


def hits(ranked: IntArray, targets: Ragged) -> NDArray[np.bool_]:
    """Tell for every place of every list whether it holds a target, bool [R, k]."""
    return np.stack([np.isin(line, targets[i]) for i, line in enumerate(ranked)]) if len(ranked) else ranked > 0


def per_user(ranked: IntArray, targets: Ragged, k: int) -> dict[str, NDArray[np.float64]]:
    """Return HR@k, NDCG@k and MRR@k of each request, float64 [R], under the names of ``METRICS``."""
    found = hits(ranked[:, :k], targets)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.minimum(targets.lengths, k) - 1]
    first = found.argmax(axis=1)
    hit = found.any(axis=1)
    return {
        "hr": hit.astype(np.float64),
        "ndcg": found @ discounts[: found.shape[1]] / ideal,
        "mrr": np.where(hit, 1 / (first + 1), 0.0),
    }


def ndcg(ranked: IntArray, requests: Requests, k: int) -> NDArray[np.float64]:
    """Return NDCG@k of each request, float64 [R]."""
    return per_user(ranked, requests.targets, k)["ndcg"]


def validation_ndcg(scorer: Scorer, split: Split, k: int) -> float:
    """Return mean NDCG@k on validation: what models and hyper-parameters are chosen by."""
    return float(ndcg(rank(scorer, split.validation, k, split.mask_seen), split.validation, k).mean())


def coverage(ranked: IntArray, n_items: int) -> float:
    """Return the share of the catalogue that appears in at least one list."""
    return len(np.unique(ranked[ranked >= 0])) / n_items


def cold_hr(ranked: IntArray, targets: Ragged, warm: NDArray[np.bool_], k: int) -> tuple[float | None, int]:
    """Return HR@k over cold target items, and the number of requests that have one; None where none has."""
    cold = Ragged.from_lists([targets[i][~warm[targets[i]]] for i in range(len(targets))])
    rows = np.flatnonzero(cold.lengths)
    if not len(rows):
        return None, 0
    return float(per_user(ranked[rows], cold.take(rows), k)["hr"].mean()), len(rows)


def bootstrap(values: NDArray[np.float64], draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Return the percentile bootstrap 95% interval of a mean over users (Efron & Tibshirani 1993)."""
    rng = np.random.default_rng(seed)
    means = np.array([values[rng.integers(0, len(values), len(values))].mean() for _ in range(draws)])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def paired_bootstrap(a: NDArray[np.float64], b: NDArray[np.float64], seed: int = 0) -> dict[str, float]:
    """Compare two models on the same users: mean difference a - b and its 95% interval.

    Raises:
        UsageError: The two were scored on different numbers of users.
    """
    if len(a) != len(b):
        raise UsageError(f"a paired comparison needs the same users; got {len(a)} and {len(b)}")
    low, high = bootstrap(a - b, seed=seed)
    return {"difference": float((a - b).mean()), "low": low, "high": high}


def to_trec(
    ranked: IntArray, users: IntArray, user_id: Callable[[int], str], item_id: Callable[[int], str], tag: str
) -> str:
    """Return a TREC run: ``user Q0 item rank score tag``, scores falling with rank.

    Fields are parted by tabs, so that an id may hold spaces; trec_eval and its kin would split it there.
    """
    lines = []
    for user, line in zip(users, ranked, strict=True):
        for place, item in enumerate(line[line >= 0]):
            lines.append(f"{user_id(int(user))}\tQ0\t{item_id(int(item))}\t{place + 1}\t{len(line) - place}\t{tag}\n")
    return "".join(lines)


def to_qrels(requests: Requests, user_id: Callable[[int], str], item_id: Callable[[int], str]) -> str:
    """Return TREC qrels: ``user 0 item 1`` per target, parted by tabs."""
    lines = []
    for number, user in enumerate(requests.users):
        lines += [f"{user_id(int(user))}\t0\t{item_id(int(item))}\t1\n" for item in requests.targets[number]]
    return "".join(lines)


def summarise(ranked: IntArray, requests: Requests, warm: NDArray[np.bool_], k: int) -> dict[str, Any]:
    """Return means with intervals, coverage and cold-item HR at one k, as one JSON value."""
    values = per_user(ranked, requests.targets, k)
    cold, cold_users = cold_hr(ranked, requests.targets, warm, k)
    summary: dict[str, Any] = {"k": k, "users": len(requests)}
    for name in METRICS:
        low, high = bootstrap(values[name])
        summary[name] = {"mean": float(values[name].mean()), "low": low, "high": high}
    return {**summary, "coverage": coverage(ranked[:, :k], len(warm)), "cold_hr": cold, "cold_users": cold_users}
