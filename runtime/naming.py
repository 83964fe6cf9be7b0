"""From the rows of an answer to what an application sees."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from edgerec.runtime.contents import Contents
from edgerec.runtime.overlay import Overlay


class Recommendation(NamedTuple):
    """An item with its title and what it was ranked by; scores compare within one answer only."""

    item: str
    title: str
    score: float


FROM_TUPLE = partial(tuple.__new__, Recommendation)  # of three fields, in a fifth of the class's time


def named(contents: Contents, overlay: Overlay, rows: Sequence[int], scores: Sequence[float]) -> list[Recommendation]:
    """Return an answer with ids and titles."""
    places = [row - 1 for row in rows]
    if not (changed := overlay.places):
        ids, titles = contents.ids.some(places), contents.titles.some(places)
        return list(map(FROM_TUPLE, zip(ids, titles, scores, strict=True)))
    items = [overlay.items[changed[row]] if row in changed else None for row in rows]
    pairs = zip(places, items, strict=True)
    texts = [(one.id, one.title) if one else (contents.ids[place], contents.titles[place]) for place, one in pairs]
    return [Recommendation(*text, score) for text, score in zip(texts, scores, strict=True)]
