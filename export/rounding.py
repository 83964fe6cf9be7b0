"""Item tables to INT8, so that scores move least: what one coordinate's rounding loses, the next ones make up for.

Rounding each number to the nearest step treats all directions alike. User vectors do not: most of their length lies in
few directions. An error e of an item costs e' G e, with G the second moment of what the vector is
multiplied by, and rounding a coordinate at a time while the rest absorbs the error (GPTQ, Frantar et al. 2023, eq. 2
and 3; optimal brain surgeon, Hassibi & Stork 1993) keeps that small. No byte and no instruction more on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgerec.runtime.layout import LIMIT, FloatArray, Tower, smallest_steps
from edgerec.runtime.reference import fold

DAMPING = 0.01  # of the mean of G's diagonal, added to it: GPTQ's own default
AS_HISTORY = 0.1  # weight of what an item meets as history, where one table serves both


def compensated(tower: Tower, histories: Sequence[Sequence[int]]) -> Tower:
    """Return a tower whose item tables lie on their INT8 steps.

    Args:
        tower: As trained.
        histories: Rows from 1, oldest first; what users look like.
    """
    users = user_moment(tower, histories)
    items = moment(tower.item_out)
    if tower.item_in is None:
        item_out, steps = compensated_rows(tower.item_out, users + AS_HISTORY * items)
        return replace(tower, item_out=item_out, steps={"item_out": steps})
    item_out, out_steps = compensated_rows(tower.item_out, users)
    item_in, in_steps = compensated_rows(tower.item_in, items)
    return replace(tower, item_out=item_out, item_in=item_in, steps={"item_out": out_steps, "item_in": in_steps})


def user_moment(tower: Tower, histories: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Return the second moment of the directions of user vectors; the identity's where there is no history."""
    users = [tower.mix @ fold(tower, history) for history in histories if len(history)]
    if not users:
        return np.eye(tower.embedding_size) / tower.embedding_size
    rows = np.stack(users)
    return moment((rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32))


def moment(rows: FloatArray) -> NDArray[np.float64]:
    """Return the second moment of rows float32 [n, d], [d, d], brought to trace 1."""
    found: NDArray[np.float64] = rows.T.astype(np.float64) @ rows
    return found / max(float(np.trace(found)), 1e-30)


def compensated_rows(vectors: FloatArray, weights: NDArray[np.float64]) -> tuple[FloatArray, FloatArray]:
    """Round rows to steps of their own, so that ``e @ weights @ e`` of each row's error e is small.

    Args:
        vectors: float32 [n, d].
        weights: float64 [d, d], symmetric, not negative.

    Returns:
        The rounded rows float32 [n, d], and the steps float32 [n] that they are multiples of.
    """
    d = len(weights)
    order = np.argsort(-weights.diagonal(), kind="stable")  # what costs most is rounded while most can make up for it
    damped = weights[np.ix_(order, order)] + DAMPING * max(float(weights.trace()), 1e-30) / d * np.eye(d)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    steps = smallest_steps(vectors)
    rest, rounded = vectors[:, order].astype(np.float64), np.empty_like(vectors)
    for column in range(d):
        kept = np.clip(np.rint(rest[:, column] / steps), -LIMIT, LIMIT) * steps
        lost = (rest[:, column] - kept) / upper[column, column]
        rest[:, column + 1 :] -= lost[:, None] * upper[column, column + 1 :]
        rounded[:, order[column]] = kept
    return rounded, steps
