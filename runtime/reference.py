"""The tower in plain float64: what the shipped graph is compared with, one event and one item at a time.

It shares no arithmetic with the graph: states are folded event by event instead of in closed form, and scores are
products of dequantized vectors. Give it ``dequantized(tower)`` to expect what a bundle can know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerec.runtime.contents import Contents
from edgerec.runtime.layout import SMALLEST_NORM, FloatArray, Tower, quantize_rows

DoubleArray = NDArray[np.float64]


def tower_of(contents: Contents) -> Tower:
    """Return the tower that a bundle was packed from, as it was rounded."""
    model, external = contents.model, contents.external

    def table(name: str) -> FloatArray:
        return (external[f"{name}.i8"].astype(np.float32) * external[f"{name}.scale"]).T[1:]

    names = ["item_out"] if model["shared"] else ["item_out", "item_in"]
    ids, titles = ([one[place] for place in range(contents.n_items)] for one in (contents.ids, contents.titles))
    return Tower(
        decays=contents.decays,
        mix=np.array(model["mix"], np.float32),
        scale=model["scale"],
        item_out=table("item_out"),
        item_in=None if model["shared"] else table("item_in"),
        bias=external["bias.f32"][1:],
        popularity=external["popularity.f32"][1:],
        text=(contents.text_codes.astype(np.float32) * contents.text_scale[:, None])[1:],
        ids=ids,
        titles=titles,
        mask_seen=model["mask_seen"],
        max_tokens=model["max_tokens"],
        repeat_decays=contents.repeat_decays,
        repeat_weights=contents.repeat_weights,
        steps={name: external[f"{name}.scale"][1:] for name in names},
    )


def dequantized(tower: Tower) -> Tower:
    """Return the tower with the tables that its bundle will hold."""
    tables: dict[str, Any] = {
        name: rounded(vectors, tower.steps.get(name))
        for name in ("item_out", "item_in", "text")
        if (vectors := getattr(tower, name)) is not None
    }
    return replace(tower, **tables)


def rounded(vectors: FloatArray, steps: FloatArray | None = None) -> FloatArray:
    """Return float32 vectors after a round trip through INT8."""
    codes, scale = quantize_rows(vectors, steps)
    return codes.astype(np.float32) * scale[:, None]


def fold(tower: Tower, history: Sequence[int], state: DoubleArray | None = None) -> DoubleArray:
    """Return the state float64 [K, d] after the rows of a history; row 0 is padding and changes nothing."""
    vectors = tower.item_out if tower.item_in is None else tower.item_in
    if state is None:
        state = np.zeros((len(tower.decays), tower.embedding_size))
    for row in history:
        if row:
            state = tower.decays.astype(np.float64)[:, None] * state + vectors[row - 1]
    return state


def remember(tower: Tower, history: Sequence[int], memory: DoubleArray | None = None) -> DoubleArray:
    """Return what a history's events leave of each item, float64 [R, N]; row 0 is padding and changes nothing."""
    if memory is None:
        memory = np.zeros((len(tower.repeat_decays), tower.n_items))
    for row in history:
        if row:
            memory = tower.repeat_decays.astype(np.float64)[:, None] * memory
            memory[:, row - 1] += 1
    return memory


def score(tower: Tower, state: DoubleArray, memory: DoubleArray | None = None) -> DoubleArray:
    """Return the score of every item, float64 [N]; element j belongs to row j + 1.

    Args:
        tower: A tower.
        state: float64 [K, d], as ``fold`` returns it.
        memory: float64 [R, N], as ``remember`` returns it; None for a tower without repeat recencies.
    """
    if not state.any():
        return tower.popularity.astype(np.float64)
    mixed = tower.mix.astype(np.float64) @ state
    user = tower.scale * mixed / max(float(np.linalg.norm(mixed)), SMALLEST_NORM)
    scores = tower.item_out.astype(np.float64) @ user + tower.bias
    if memory is not None:
        for weight, left in zip(tower.repeat_weights, memory, strict=True):
            scores += float(weight) * np.log1p(left)
    return scores


def golden_request(tower: Tower, history: Sequence[int], exclude_seen: bool, k: int = 10) -> dict[str, Any]:
    """Return one entry of ``goldens.json``: a history of rows, and the rows and scores that answer it."""
    scores = score(tower, fold(tower, history), remember(tower, history))
    if exclude_seen:
        scores = scores.copy()
        scores[[row - 1 for row in history if row]] = -np.inf
    best = [int(item) for item in np.argsort(-scores, kind="stable")[:k] if scores[item] > -np.inf]
    return {
        "history": [int(row) for row in history],
        "exclude_seen": exclude_seen,
        "k": k,
        "items": [item + 1 for item in best],
        "scores": [float(scores[item]) for item in best],
    }
