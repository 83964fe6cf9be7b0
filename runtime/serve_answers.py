"""What the server can be asked: a path for each of the runtime's verbs, and the function that answers it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import Struct

from edgerec.runtime.catalogue import Numbers
from edgerec.runtime.explain import Explanation, explain
from edgerec.runtime.naming import Recommendation
from edgerec.runtime.recommender import Recommender
from edgerec.runtime.serve_schema import (
    Answer,
    Asked,
    Explain,
    Items,
    Listed,
    Page,
    Recommend,
    Scored,
    Search,
    Similar,
)


class Operation(NamedTuple):
    """A path, what it takes and gives, and the function between; ``query`` where it is asked by GET."""

    path: str
    asked: type[Asked]
    answered: type
    answer: Callable[[Recommender, Any], Struct | Explanation]
    query: bool = False


def answer_recommend(recommender: Recommender, asked: Recommend) -> Answer:
    """Recommend the best items after a history, oldest first."""
    parts = {"fresh": asked.fresh, "blend": asked.blend, "diversity": asked.diversity}
    wishes: dict[str, Any] = {name: part.wish() for name, part in parts.items() if part is not None}
    if asked.where is not None:
        wishes["where"] = asked.where
    found = recommender.recommend(
        asked.history, asked.k, asked.exclude_seen, asked.candidates, asked.skip_unknown, **wishes
    )
    return scored(found)


def answer_search(recommender: Recommender, asked: Search) -> Answer:
    """Search the catalogue by text."""
    return scored(recommender.search(asked.query, asked.k))


def answer_similar(recommender: Recommender, asked: Similar) -> Answer:
    """Find the items nearest to one."""
    return scored(recommender.similar(asked.item, asked.k))


def answer_explain(recommender: Recommender, asked: Explain) -> Explanation:
    """Explain an item's place after a history, oldest first."""
    return explain(recommender, asked.item, asked.history, asked.k, asked.words)


def answer_items(recommender: Recommender, asked: Items) -> Page:
    """Look items up by id, or list the catalogue page by page."""
    total = recommender.contents.n_items
    end = min(asked.offset + asked.limit, total)
    rows = recommender.rows(asked.id) if asked.id else range(asked.offset + 1, end + 1)
    return Page([listed(recommender, row) for row in rows], total, None if asked.id or end >= total else end)


def listed(recommender: Recommender, row: int) -> Listed:
    """Return what the catalogue holds of a row."""
    values: dict[str, Any] = {}
    for name, column in recommender.catalogue.columns.items():
        if isinstance(column, Numbers):
            value = float(column.values[row - 1])
            values[name] = None if math.isnan(value) else value
        else:
            values[name] = column.of(row - 1)
    return Listed(recommender.contents.ids[row - 1], recommender.contents.titles[row - 1], values)


def scored(found: list[Recommendation]) -> Answer:
    """Return the runtime's answer as the server's."""
    return Answer([Scored(*one) for one in found])


OPERATIONS = (
    Operation("/v1/recommend", Recommend, Answer, answer_recommend),
    Operation("/v1/search", Search, Answer, answer_search),
    Operation("/v1/similar", Similar, Answer, answer_similar),
    Operation("/v1/explain", Explain, Explanation, answer_explain),
    Operation("/v1/items", Items, Page, answer_items, query=True),
)
