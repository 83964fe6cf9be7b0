"""Rerankers of the best items: by how unlike each other they are (MMR), or by the mixture of a column (calibration).

Both are greedy and deterministic. Scores are brought to 0 .. 1 within the pool first, so that ``weight``, the share of
diversity, means the same for every model and user: 0 leaves the order as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgerec.errors import UsageError
from edgerec.runtime.catalogue import Words
from edgerec.runtime.contents import is_number
from edgerec.runtime.layout import FloatArray
from edgerec.runtime.ranking import Pool, Scene

SMOOTHING = 0.01  # of the user's mixture in the list's, so that no divergence is infinite (Steck 2018, section 3)


@dataclass(frozen=True)
class MMR:
    """Maximal marginal relevance (Carbonell & Goldstein 1998).

    The next item has the largest ``(1 - weight) * relevance - weight * (largest cosine to an item before it)``; cosines
    are those of the items as candidates.
    """

    weight: float = 0.3
    pool: int = 50

    def check(self) -> None:
        """Raise UsageError where its numbers cannot work."""
        check(self.weight, self.pool)

    def rerank(self, scene: Scene, pool: Pool, k: int) -> Pool:
        """Return the k best of a pool, in their new order, with the scores they had."""
        gain = (1 - self.weight) * relevance(pool.scores)
        vectors = unit(scene.recommender.vectors(pool.rows.tolist(), False))
        nearest = np.zeros(len(gain))
        chosen: list[int] = []
        for _ in range(min(k, len(gain))):
            worth = gain - self.weight * nearest
            worth[chosen] = -np.inf
            chosen.append(int(worth.argmax()))
            cosines = vectors @ vectors[chosen[-1]]
            nearest = cosines if len(chosen) == 1 else np.maximum(nearest, cosines)
        return Pool(pool.rows[chosen], pool.scores[chosen])


@dataclass(frozen=True)
class Calibrated:
    """Calibrated recommendations (Steck 2018): the list's mixture of a column's values follows the user's own.

    The next item has the largest ``(1 - weight) * (sum of relevance) - weight * KL(p || q)``: p is the mixture over the
    items the user took, q that of the list so far, smoothed by 1% of p. An item's values share it evenly. Without an
    item taken that has a value, the order stays.
    """

    column: str
    weight: float = 0.3
    pool: int = 50

    def check(self) -> None:
        """Raise UsageError where its numbers cannot work."""
        check(self.weight, self.pool)

    def rerank(self, scene: Scene, pool: Pool, k: int) -> Pool:
        """Return the k best of a pool, in their new order, with the scores they had."""
        taken, mixtures = self.mixtures(scene, sorted(scene.taken)), self.mixtures(scene, pool.rows.tolist())
        own = taken.sum(axis=0)
        if not own.any():
            return Pool(pool.rows[:k], pool.scores[:k])
        own = own / own.sum()
        gain, total, relevant = relevance(pool.scores), np.zeros(len(own)), 0.0
        chosen: list[int] = []
        for _ in range(min(k, len(gain))):
            lists = total + mixtures
            sums = lists.sum(axis=1, keepdims=True)
            lists = np.divide(lists, sums, out=np.zeros_like(lists), where=sums > 0)
            worth = (1 - self.weight) * (relevant + gain) - self.weight * divergence(own, lists)
            worth[chosen] = -np.inf
            chosen.append(int(worth.argmax()))
            total, relevant = total + mixtures[chosen[-1]], relevant + float(gain[chosen[-1]])
        return Pool(pool.rows[chosen], pool.scores[chosen])

    def mixtures(self, scene: Scene, rows: list[int]) -> NDArray[np.float64]:
        """Return the share of each value in each item, float64 [n, values]."""
        base, added = scene.recommender.catalogue.both(self.column, scene.overlay)
        if not isinstance(base, Words) or not isinstance(added, Words):
            raise UsageError(f"the column {self.column!r} holds numbers; expected one of strings")
        names = {name: place for place, name in enumerate(dict.fromkeys([*base.words, *added.words]))}
        shares = np.zeros((len(rows), len(names)))
        for line, row in enumerate(rows):
            place = scene.overlay.places.get(row)
            values = base.of(row - 1) if place is None else added.of(place)
            for value in values:
                shares[line, names[value]] += 1 / len(values)
        return shares


def check(weight: float, pool: int) -> None:
    """Raise UsageError where a reranker's numbers cannot work."""
    if not is_number(weight) or not 0 <= weight <= 1 or not isinstance(pool, int) or pool < 1:
        raise UsageError(f"got weight = {weight!r} and pool = {pool!r}; expected 0 to 1, and at least 1 item")


def relevance(scores: FloatArray) -> NDArray[np.float64]:
    """Return scores brought to 0 .. 1 within the pool, float64 [P]."""
    values = scores.astype(np.float64)
    span = float(np.ptp(values)) if len(values) else 0.0
    return (values - values.min()) / span if span > 0 else np.ones(len(values))


def unit(vectors: FloatArray) -> NDArray[np.float64]:
    """Return vectors brought to length 1, float64 [P, d]."""
    rows = np.array(vectors, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def divergence(own: NDArray[np.float64], lists: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return KL(own || list) of a mixture [v] and several lists' [P, v], in nats."""
    smoothed = (1 - SMOOTHING) * lists + SMOOTHING * own
    some = own > 0
    return (own[some] * np.log(own[some] / smoothed[:, some])).sum(axis=1)
