"""Weights for ``recommend(..., candidates=..., blend=...)``, learned from what was shown and taken.

A conditional logit (McFadden 1974): of a request's candidates, item i is taken with a chance proportional to
``exp(score_weight * score_i + weights . features_i)``. Its log-likelihood is concave: Newton's method with a small
ridge finds the one maximum in a few steps, in numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgerec.errors import UsageError
from edgerec.runtime import Blend, Recommender

STEPS = 50
CONVERGED = 1e-10  # of a step's length
RIDGE = 1e-3  # per request, on standardised features: what nothing tells apart stays near 0

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """One request: what the user took before, what was shown with its features, and which of it was taken."""

    history: Sequence[str]
    candidates: Mapping[str, Mapping[str, float]]
    taken: str


def learn_blend(recommender: Recommender, requests: Sequence[Shown]) -> Blend:
    """Return the blend that makes what was taken most likely.

    Raises:
        UnknownItemError: An id is not in the catalogue.
        UsageError: There are no requests, or one took what it was not shown.
    """
    if not requests:
        raise UsageError("got no requests to learn from; expected at least one")
    names = sorted({name for one in requests for features in one.candidates.values() for name in features})
    tables = [table(recommender, one, names) for one in requests]
    everything = np.concatenate([features for features, _ in tables])
    mean, spread = everything.mean(axis=0), everything.std(axis=0)
    spread[spread == 0] = 1  # the same for every candidate
    weights = newton([((features - mean) / spread, taken) for features, taken in tables]) / spread
    return Blend(dict(zip(names, weights[1:].tolist(), strict=True)), float(weights[0]))


def table(recommender: Recommender, one: Shown, names: Sequence[str]) -> tuple[Table, int]:
    """Return score and features of each candidate, float64 [C, 1 + F], and which of them was taken."""
    if one.taken not in one.candidates:
        raise UsageError(f"got {one.taken!r} as taken; expected one of the {len(one.candidates)} candidates shown")
    found = recommender.recommend(one.history, len(one.candidates), False, list(one.candidates))
    scores = {entry.item: entry.score for entry in found}
    lines = [[scores[item], *(side.get(name, 0.0) for name in names)] for item, side in one.candidates.items()]
    return np.array(lines, np.float64), list(one.candidates).index(one.taken)


def newton(tables: Sequence[tuple[Table, int]]) -> Table:
    """Return the weights float64 [1 + F] of the largest log-likelihood, less the ridge."""
    weights = np.zeros(tables[0][0].shape[1])
    ridge = RIDGE * len(tables)
    for _ in range(STEPS):
        slope, curvature = -ridge * weights, ridge * np.eye(len(weights))
        for features, taken in tables:
            logits = features @ weights
            chances = np.exp(logits - logits.max())
            chances /= chances.sum()
            mean = chances @ features
            slope += features[taken] - mean
            curvature += (features * chances[:, None]).T @ features - np.outer(mean, mean)
        step = np.linalg.solve(curvature, slope)
        weights = weights + step
        if float(np.abs(step).max()) < CONVERGED:
            break
    return weights
