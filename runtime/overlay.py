"""Items that were added on the device: a few float vectors beside the bundle's constant tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgerec.runtime.layout import FloatArray
from edgerec.runtime.text import Vectors


@dataclass(frozen=True)
class Overlay:
    """Added items, in order of addition; the first has the row after the bundle's last. Never changed in place."""

    rows: dict[str, int]
    titles: tuple[str, ...]
    vectors: Vectors

    @classmethod
    def empty(cls, embedding_size: int) -> Overlay:
        """Return an overlay without items."""
        return cls({}, (), Vectors.of_no_text(embedding_size))

    def __len__(self) -> int:
        return len(self.titles)

    def extended(self, ids: list[str], titles: list[str], vectors: Vectors, first_row: int) -> Overlay:
        """Return the overlay with more items, whose rows start at ``first_row``."""
        rows = {**self.rows, **{item: first_row + index for index, item in enumerate(ids)}}
        joined = Vectors(*(np.concatenate(pair) for pair in zip(self.vectors, vectors, strict=True)))
        return Overlay(rows, (*self.titles, *titles), joined)

    def scores(self, users: FloatArray) -> FloatArray:
        """Return the score of every added item for user vectors float32 [B, d], float32 [B, added]."""
        return users @ self.vectors.item_out.T + self.vectors.bias
