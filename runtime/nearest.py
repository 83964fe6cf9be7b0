"""The best items by a graph of neighbours (HNSW by usearch) instead of a product with every item of the catalogue.

The index lies in the bundle beside the tables and only finds candidates; what it finds is scored exactly, in INT8, with
what the user took beside it. It is opened only where it is asked for: usearch reads the member with its own code, and a
hostile index is not among what ``docs/security.md`` promises to survive.

An inner product plus a bias is an inner product of one more dimension: an item's vector ends in ``bias / balance``, the
query in ``balance``, which makes the largest of both ends of items alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from edgerec.bundle import Bundle
from edgerec.errors import BundleError, UsageError, require
from edgerec.runtime.contents import Contents
from edgerec.runtime.engine import RowArray
from edgerec.runtime.layout import LIMIT, SMALLEST_NORM, FloatArray
from edgerec.runtime.overlay import as_limbs
from edgerec.runtime.repeat import repeat_scores

INDEX = "item_out.usearch"
CANDIDATES = 64  # found beside those asked for and those excluded; usearch looks at as many on its way
SMALLEST = 1e-12
BLOCK = 1 << 16  # items that are floats at once


class Found(NamedTuple):
    """Rows int64 [P] and scores float32 [P], best first, and the user vector float32 [1, d]."""

    rows: RowArray
    scores: FloatArray
    user: FloatArray


class Nearest:
    """An index of usearch, with the tables that score what it finds."""

    def __init__(self, contents: Contents, index: Any) -> None:
        self._contents, self._index, self._balance = contents, index, balance(contents)

    def rank(self, state: FloatArray, k: int, exclude: RowArray, memory: tuple[RowArray, FloatArray]) -> Found:
        """Return the best items for a state that is not empty; fewer than the graph may find, and in rare cases others.

        Args:
            state: float32 [K, d].
            k: How many items.
            exclude: int64 [E] rows never to return.
            memory: int64 [M] rows and float32 [R, M] what is left of them, for a model with repeat recencies.
        """
        user = user_vector(self._contents, state)
        query = np.append(user, np.float32(self._balance))
        near = self._index.search(query, k + len(exclude) + CANDIDATES, threads=1).keys.astype(np.int64)
        rows = np.union1d(near, memory[0]) if len(self._contents.repeat_decays) else np.sort(near)
        rows = rows[(rows > 0) & (rows <= self._contents.n_items) & ~np.isin(rows, exclude)]
        scores = row_scores(self._contents, rows, as_limbs(user[None])[0])
        if len(self._contents.repeat_decays) and len(memory[0]):
            extra = repeat_scores(self._contents.repeat_weights, memory[1])
            taken = np.isin(memory[0], rows)
            scores[np.searchsorted(rows, memory[0][taken])] += extra[taken]
        order = np.argsort(-scores, kind="stable")[:k]
        return Found(rows[order], scores[order], user[None])


def open_index(kind: str, bundle: Bundle, contents: Contents) -> Nearest:
    """Open a bundle's index in place.

    Raises:
        UsageError: The bundle holds none, or there is no such kind.
        MissingExtraError: usearch is not installed.
        BundleError: It is no index of the bundle's items.
    """
    if kind != "usearch":
        raise UsageError(f"got the index {kind!r}; expected exact or usearch")
    if INDEX not in bundle.manifest["members"]:
        raise UsageError(f"{bundle.path} holds no index; expected one: export it with --index usearch")
    library = require("usearch.index", "index")
    try:
        index = library.Index.restore(bundle[INDEX], view=True)
        shape = len(index), index.ndim
    except Exception as error:  # usearch's errors share no base class below Exception
        raise BundleError(f"{bundle.path}: {INDEX} cannot be opened ({error}); export the bundle again") from error
    if shape != (contents.n_items, contents.embedding_size + 1):
        raise BundleError(
            f"{bundle.path}: {INDEX} holds {shape[0]} vectors of {shape[1]} dimensions; expected "
            f"{contents.n_items} of {contents.embedding_size + 1}: export the bundle again"
        )
    return Nearest(contents, index)


def build(contents: Contents) -> Any:
    """Return a usearch index of all items, float16, keyed by row; the same tables save to the same bytes."""
    index: Any = require("usearch.index", "index").Index(ndim=contents.embedding_size + 1, metric="ip", dtype="f16")
    by, table, external = np.float32(balance(contents)), contents.external["item_out.i8"], contents.external
    for start in range(1, contents.n_items + 1, BLOCK):
        rows = np.arange(start, min(start + BLOCK, contents.n_items + 1))
        vectors = table[:, rows].astype(np.float32) * external["item_out.scale"][rows]
        index.add(rows, np.vstack([vectors, external["bias.f32"][rows] / by]).T, threads=1)
    return index


def user_vector(contents: Contents, state: FloatArray) -> FloatArray:
    """Return the vector that a state float32 [K, d] scores items with, float32 [d], as the graph computes it."""
    mixed = np.array(contents.model["mix"], np.float32) @ state
    return mixed / max(np.linalg.norm(mixed), np.float32(SMALLEST_NORM)) * np.float32(contents.model["scale"])


def row_scores(contents: Contents, rows: RowArray, user: FloatArray) -> FloatArray:
    """Return the scores of some rows, float32 [P], for a user vector float32 [d]."""
    codes = contents.external["item_out.i8"][:, rows].astype(np.float32)
    scores: FloatArray = user @ codes * contents.external["item_out.scale"][rows] + contents.external["bias.f32"][rows]
    return scores


def balance(contents: Contents) -> float:
    """Return what an item's bias is divided by in the index."""
    largest = LIMIT * float(contents.external["item_out.scale"][1:].max())
    return max(float(np.abs(contents.external["bias.f32"][1:]).max()) / max(largest, SMALLEST), SMALLEST)
