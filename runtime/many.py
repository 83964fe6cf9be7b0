"""Many histories at once: one call of the graph for 64 of them, with the answers that each would get alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgerec.errors import UsageError
from edgerec.runtime.contents import is_number
from edgerec.runtime.engine import RowArray
from edgerec.runtime.exact import best
from edgerec.runtime.layout import FloatArray
from edgerec.runtime.ranking import Pool, Request, added_scores, answer, positive, with_added
from edgerec.runtime.session import Session

if TYPE_CHECKING:
    from edgerec.runtime.naming import Recommendation
    from edgerec.runtime.recommender import Recommender

AT_ONCE = 64  # histories per call


def recommend_many(
    recommender: Recommender,
    histories: Sequence[Sequence[str]],
    k: int = 10,
    exclude_seen: bool | None = None,
    skip_unknown: bool = False,
) -> list[list[Recommendation]]:
    """Return an answer per history; the arguments are those of ``Recommender.recommend``.

    Raises:
        UnknownItemError: An id is not in the catalogue.
        UsageError: k is below 1, or the histories are no sequences of ids.
    """
    if isinstance(histories, str) or not isinstance(histories, Sequence):
        raise UsageError(f"got histories of type {type(histories).__name__}; expected a sequence of sequences of ids")
    if exclude_seen is None:
        exclude_seen = recommender.contents.model["mask_seen"]
    k = positive(k, "k")
    rows = [recommender.rows(history, skip_unknown) for history in histories]
    pools = pools_of(recommender, rows, k, exclude_seen)
    return [recommender.named(pool.rows.tolist(), pool.scores.tolist()) for pool in pools]


def pools_of(recommender: Recommender, histories: Sequence[Sequence[int]], k: int, exclude_seen: bool) -> list[Pool]:
    """Return the k best items after each of some histories of rows."""
    request, pools = Request(k, exclude_seen), {}
    together = [place for place, one in enumerate(histories) if in_graph(recommender, one)]
    for place in set(range(len(histories))) - set(together):  # the graph does not know some of their items
        session = Session(recommender)
        session.observe_rows(histories[place])
        pools[place] = answer(recommender, session, request)
    together.sort(key=lambda place: len(histories[place]))  # like lengths share a call: little padding
    for start in range(0, len(together), AT_ONCE):
        places = together[start : start + AT_ONCE]
        found = ranked_together(recommender, [histories[place] for place in places], k, exclude_seen)
        pools.update(zip(places, found, strict=True))
    return [pools[place] for place in range(len(histories))]


def in_graph(recommender: Recommender, rows: Sequence[int]) -> bool:
    """Tell whether the bundle's own tables hold what these items are now."""
    n, places = recommender.contents.n_items, recommender.overlay.places
    return not places or not any(row > n or row in places for row in rows)  # without changes, every row is its own


def ranked_together(
    recommender: Recommender, histories: Sequence[Sequence[int]], k: int, exclude_seen: bool
) -> list[Pool]:
    """Return the best items after each of some histories of the bundle's rows, by one call of the graph."""
    n, overlay, nobody = recommender.contents.n_items, recommender.overlay, Session(recommender).view()
    hidden = overlay.hidden(n).tolist()
    banned = [{*history} if exclude_seen else set() for history in histories]
    exclude = padded([sorted({*hidden, *one}) for one in banned])
    found = recommender.ranker.rank(padded(histories), min(k, n + 1), exclude=exclude)
    pools = []
    for line, items in enumerate(found.items):
        pool = Pool(items[items >= 0], found.scores[line][items >= 0])
        user = found.user[line : line + 1] if found.state[line].any() else None
        more = added_scores(recommender, overlay, user, nobody) if len(overlay) else np.zeros(0, np.float32)
        pools.append(with_added(overlay, pool, more, banned[line], k))
    return pools


def padded(lists: Sequence[Sequence[int]]) -> RowArray:
    """Return lists of rows as one array, 0 where they end."""
    array = np.zeros((len(lists), max(1, *map(len, lists))), np.int64)
    for line, rows in enumerate(lists):
        array[line, : len(rows)] = rows
    return array


def answer_text(
    recommender: Recommender, text: str, history: Sequence[str], k: int, weight: float
) -> tuple[list[int], list[float]]:
    """Return rows and scores of the items that answer a text; see ``Recommender.answer_text``."""
    if not is_number(weight) or not 0 <= weight <= 1:
        raise UsageError(f"got weight = {weight!r}; expected 0 to 1")
    overlay, rows = recommender.overlay, recommender.rows(history)
    scores = recommender.text_scores(overlay, text)
    if rows:
        found = np.full_like(scores, -np.inf)
        (pool,) = pools_of(recommender, [rows], overlay.next_row, exclude_seen=False)
        found[pool.rows[pool.rows < overlay.next_row]] = pool.scores[pool.rows < overlay.next_row]
        joined = np.float32(weight) * standardised(scores) + np.float32(1 - weight) * standardised(found)
        scores = np.where(scores > -np.inf, joined, scores)
    chosen = best(scores, k)
    return chosen, [float(scores[row]) for row in chosen]


def standardised(scores: FloatArray) -> FloatArray:
    """Return scores with mean 0 and deviation 1 over the items there are, those that score above -inf."""
    some = scores > -np.inf
    deviation = float(scores[some].std())
    return np.where(some, (scores - scores[some].mean()) / (deviation if deviation > 0 else 1), 0)
