"""Further texts from a catalogue's own: the views that a small encoder needs where the catalogue is small.

A view is cut from texts only, with no knowledge of a language: words where there are spaces, characters where there are
none. What it should mean is no question: the teacher is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

FIELDS = re.compile(r"\s*[,.;:|/()]+\s+|\s*[。、，；：｜・（）]\s*|\s+[-–—]\s+")  # what stands between two fields
DROPPED = 0.3  # share of words that a view of `drop` leaves out
TRIES = 4  # draws per view that is asked for, since some repeat

View = Callable[[str, str, np.random.Generator], str]


def units(text: str) -> tuple[list[str], str]:
    """Return words and the space that joins them; characters and nothing where the text has no spaces."""
    words = text.split()
    return (words, " ") if len(words) > 1 else (list(text.strip()), "")


def fields(text: str) -> list[str]:
    """Return the parts between punctuation, such as a title, a year and genres."""
    return [part for part in (one.strip() for one in FIELDS.split(text)) if part]


def drop(text: str, other: str, random: np.random.Generator) -> str:
    """Leave some words out."""
    words, joint = units(text)
    keep = random.random(len(words)) >= DROPPED
    keep[random.integers(len(words))] = True
    return joint.join(word for word, kept in zip(words, keep, strict=True) if kept)


def prefix(text: str, other: str, random: np.random.Generator) -> str:
    """Take the first words: what is typed so far."""
    words, joint = units(text)
    return joint.join(words[: random.integers(1, len(words) + 1)])


def reorder(text: str, other: str, random: np.random.Generator) -> str:
    """Put the fields in another order."""
    parts = fields(text)
    return ". ".join(parts[place] for place in random.permutation(len(parts)))


def field(text: str, other: str, random: np.random.Generator) -> str:
    """Take one field alone: half the time the first, which is most often the title."""
    parts = fields(text) or [text]
    return parts[0 if random.random() < 0.5 else random.integers(len(parts))]


def mix(text: str, other: str, random: np.random.Generator) -> str:
    """Put a stretch of one text before a stretch of another."""
    return " ".join(stretch(one, random) for one in (text, other))


def stretch(text: str, random: np.random.Generator) -> str:
    """Return some consecutive words."""
    words, joint = units(text)
    start = random.integers(len(words))
    return joint.join(words[start : start + random.integers(1, 5)])


VIEWS: tuple[View, ...] = (drop, prefix, reorder, field, mix)


def views(texts: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """Return up to ``count`` distinct texts made from ``texts``, none of them blank or among the given ones.

    The same seed gives the same views. Fewer come back where a small catalogue has no more.
    """
    random = np.random.default_rng(seed)
    sources, given = [text for text in texts if text.strip()], set(texts)
    made: dict[str, None] = {}
    for _ in range(TRIES * count if sources else 0):
        if len(made) == count:
            break
        first, second = (sources[random.integers(len(sources))] for _ in range(2))
        view = VIEWS[random.integers(len(VIEWS))](first, second, random).strip()
        if view and view not in given:
            made[view] = None
    return list(made)
