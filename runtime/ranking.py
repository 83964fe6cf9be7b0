"""From a request to an answer: one graph call, then what the graph knows nothing of.

The order is always the same: filters and freshness are added to every item's score before the graph takes the best;
the added items join; a blend with a server's features orders the candidates; a reranker trades score for diversity.
Equal scores are answered by the lower row, so the same request gives the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypedDict, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgerec.errors import UsageError
from edgerec.runtime.catalogue import Numbers, Where
from edgerec.runtime.contents import is_number
from edgerec.runtime.engine import NOBODY, RowArray
from edgerec.runtime.layout import FloatArray
from edgerec.runtime.overlay import Overlay
from edgerec.runtime.repeat import repeat_scores

if TYPE_CHECKING:
    from edgerec.runtime.recommender import Recommender
    from edgerec.runtime.session import Session, View

LARGEST = 1e30  # of a score: the graph takes what is below -1e38 for masked


class Pool(NamedTuple):
    """Items in the order of an answer: int64 [P] rows and float32 [P] scores."""

    rows: RowArray
    scores: FloatArray

    def ordered(self, scores: FloatArray) -> Pool:
        """Return the pool ordered by other scores, ties by the lower row."""
        order = np.lexsort((self.rows, -scores))
        return Pool(self.rows[order], scores[order])


class Scene(NamedTuple):
    """What a reranker may look at: the open bundle, its overlay at that moment, and the rows the user took."""

    recommender: Recommender
    overlay: Overlay
    taken: set[int]


@runtime_checkable
class Reranker(Protocol):
    """Something that orders the best ``pool`` items of an answer anew."""

    @property
    def pool(self) -> int:
        """How many items it wants to choose from."""

    def check(self) -> None:
        """Raise UsageError where its numbers cannot work."""

    def rerank(self, scene: Scene, pool: Pool, k: int) -> Pool:
        """Return the k best of a pool, in their new order, with the scores they had."""


class Blend(NamedTuple):
    """Scores of candidates as ``score * (model's score) + sum of weights * features``; a missing feature counts 0.

    The model's score is in nats (its softmax was trained), so weights are log odds per unit of a feature.
    """

    weights: Mapping[str, float]
    score: float = 1.0

    def apply(self, scores: FloatArray, features: Sequence[Mapping[str, float]]) -> FloatArray:
        """Return blended scores float32 [P] of the model's scores and of each item's features."""
        table = np.array([[float(one.get(name, 0.0)) for name in self.weights] for one in features], np.float64)
        side = table.reshape(len(features), len(self.weights)) @ np.array([*self.weights.values()], np.float64)
        return as_scores(self.score * scores.astype(np.float64) + side, self)

    def check(self) -> None:
        """Raise UsageError where a weight is no finite number."""
        if not isinstance(self.weights, Mapping) or not all(map(is_number, [self.score, *self.weights.values()])):
            raise UsageError(f"got {self!r}; expected finite numbers as weights")


class Fresh(NamedTuple):
    """A boost for young items: ``weight * 0.5 ** (max(now - value, 0) / half_life)`` is added to an item's score.

    ``value`` is the item's number in ``column`` (a year, a day, seconds: the unit of ``now`` and ``half_life``); an
    item without one gets nothing.
    """

    column: str
    now: float
    half_life: float
    weight: float = 1.0

    def offset(self, values: Numbers) -> FloatArray:
        """Return what is added to the score of each item, float32 [n]."""
        age = np.maximum(self.now - values.values, 0)
        gain = self.weight * 0.5 ** (age / self.half_life)
        return as_scores(np.where(np.isnan(gain), 0, gain), self)

    def check(self) -> None:
        """Raise UsageError where a number is not finite, or the half-life not above 0."""
        if not all(map(is_number, (self.now, self.half_life, self.weight))) or self.half_life <= 0:
            raise UsageError(f"got {self!r}; expected finite numbers, and a half-life above 0")


class Wishes(TypedDict, total=False):
    """What may be asked of an answer beside its length; see ``Recommender.recommend``."""

    where: Where
    fresh: Fresh
    blend: Blend
    diversity: Reranker


class Request(NamedTuple):
    """What is asked, whoever asks; the fields are the arguments of ``Recommender.recommend``."""

    k: int
    exclude_seen: bool
    candidates: Sequence[str] | Mapping[str, Mapping[str, float]] | None = None
    skip_unknown: bool = False
    where: Where | None = None
    fresh: Fresh | None = None
    blend: Blend | None = None
    diversity: Reranker | None = None

    def check(self) -> None:
        """Raise UsageError where the parts do not go together."""
        plain = self.candidates is None and self.where is None and self.fresh is None
        if plain and self.blend is None and self.diversity is None:
            return  # as a rule
        for part, kind in ((self.blend, Blend), (self.fresh, Fresh), (self.diversity, Reranker)):
            if part is not None and not isinstance(part, kind):
                raise UsageError(f"got {part!r}; expected a {kind.__name__}")
            if part is not None:
                part.check()
        if self.where is not None and not isinstance(self.where, Mapping):
            raise UsageError(f"got where = {self.where!r}; expected a mapping from columns to conditions")
        features = self.candidates.values() if isinstance(self.candidates, Mapping) else ()
        if not all(isinstance(one, Mapping) and all(map(is_number, one.values())) for one in features):
            raise UsageError("got features that are no finite numbers; expected item id -> {feature: number}")
        if self.blend is not None and not isinstance(self.candidates, Mapping):
            raise UsageError(
                "a blend needs the features of candidates; expected candidates={item id: {feature: number}}"
            )


def answer(recommender: Recommender, session: Session, request: Request) -> Pool:
    """Return the best items after a session."""
    request.check()
    overlay, view = recommender.overlay, session.view()
    banned = view.seen if request.exclude_seen else set()
    allowed = None if request.candidates is None else recommender.rows(request.candidates, request.skip_unknown)
    size = request.k
    if request.blend is not None:
        size = max(size, len(allowed or ()))
    if request.diversity is not None:
        size = max(size, request.diversity.pool)
    offsets = offsets_of(recommender, overlay, request, allowed)
    pool = best(recommender, overlay, view, size, banned, offsets)
    if request.blend is not None and isinstance(request.candidates, Mapping):
        pairs = request.candidates.items()
        features = {row: side for item, side in pairs for row in recommender.rows([item], skip_unknown=True)}
        pool = pool.ordered(request.blend.apply(pool.scores, [features[row] for row in pool.rows.tolist()]))
    if request.diversity is not None:
        pool = request.diversity.rerank(Scene(recommender, overlay, view.seen), pool, request.k)
    return Pool(pool.rows[: request.k], pool.scores[: request.k])


def offsets_of(
    recommender: Recommender, overlay: Overlay, request: Request, allowed: Sequence[int] | None
) -> tuple[FloatArray | None, FloatArray]:
    """Return what is added to the scores: float32 [N + 1] for the bundle's items (None for 0), [A] for the added."""
    n = recommender.contents.n_items
    added = np.zeros(len(overlay), np.float32)
    if allowed is None and not request.where and request.fresh is None:
        return None, added
    base = np.zeros(n + 1, np.float32)
    if request.fresh is not None:
        values, more = recommender.catalogue.both(request.fresh.column, overlay)
        if not isinstance(values, Numbers) or not isinstance(more, Numbers):
            raise UsageError(f"the column {request.fresh.column!r} holds no numbers; expected one that does")
        base[1:], added = request.fresh.offset(values), request.fresh.offset(more)
    if request.where:
        kept, more_kept = recommender.catalogue.mask(request.where, overlay)
        base[~kept], added[~more_kept] = -np.inf, -np.inf
    if allowed is not None:
        outside = np.ones(n + 1, np.bool_)
        outside[[row for row in allowed if row <= n]] = False
        base[outside] = -np.inf
        added[~np.isin(overlay.rows, allowed)] = -np.inf
    return base, added


def best(
    recommender: Recommender,
    overlay: Overlay,
    view: View,
    size: int,
    banned: set[int],
    offsets: tuple[FloatArray | None, FloatArray],
) -> Pool:
    """Return the best items by the scores of the graph, or of what an index finds, and the added items' own."""
    n = recommender.contents.n_items
    base, added = offsets
    if len(overlay) or overlay.removed:
        banned_here = [*(row for row in banned if row <= n), *overlay.hidden(n).tolist()]
        exclude = np.array([banned_here], np.int64)
        memory = view.taken[view.taken <= n], view.left[:, view.taken <= n]
    else:
        exclude = np.fromiter(banned, np.int64, len(banned))[None]
        memory = view.taken, view.left
    user: FloatArray | None
    if recommender.nearest is not None and base is None and view.state.any():
        near = recommender.nearest.rank(view.state, size, exclude[0], memory)
        pool, user = Pool(near.rows, near.scores), near.user
    else:
        offset = None if base is None else base[None]
        wanted, changed = min(size, n + 1), len(overlay) > 0
        found = recommender.ranker.rank(NOBODY, wanted, view.state[None], exclude, offset, memory, vectors=changed)
        items, scores = found.items[0], found.scores[0]
        if items[-1] < 0:
            items, scores = items[items >= 0], scores[items >= 0]
        pool, user = Pool(items, scores), found.user if changed and found.state.any() else None
    more = added + added_scores(recommender, overlay, user, view) if len(overlay) else added
    return with_added(overlay, pool, more, banned, size)


def with_added(overlay: Overlay, pool: Pool, more: FloatArray, banned: set[int], size: int) -> Pool:
    """Return the ``size`` best of a pool and of the added items, whose scores are ``more``, float32 [A]."""
    if not len(overlay):
        return pool  # in order, ties by the lower row: so the graph's TopK is defined
    kept = overlay.live & ~np.isin(overlay.rows, list(banned)) & (more > -np.inf)
    joined = Pool(np.concatenate([pool.rows, overlay.rows[kept]]), np.concatenate([pool.scores, more[kept]]))
    ordered = joined.ordered(joined.scores)
    return Pool(ordered.rows[:size], ordered.scores[:size])


def added_scores(recommender: Recommender, overlay: Overlay, user: FloatArray | None, view: View) -> FloatArray:
    """Return the score of every added item, float32 [A], for a user vector [1, d], or None for somebody unknown."""
    contents = recommender.contents
    if user is None:
        # of an added item nobody has seen, nothing is known either: it comes after all that have a popularity
        popularity = contents.external["popularity.f32"]
        own = np.where(overlay.rows <= contents.n_items, overlay.rows, 0)
        return np.where(own > 0, popularity[own], popularity[1:].min()).astype(np.float32)
    scores = overlay.scores(user)[0]
    pairs = [(overlay.places[row], place) for place, row in enumerate(view.taken.tolist()) if row in overlay.places]
    if pairs:
        places, columns = np.array(pairs).T
        scores[places] += repeat_scores(contents.repeat_weights, view.left[:, columns])
    return scores


def check_request(options: Mapping[str, Any]) -> None:
    """Raise UsageError for what no request has."""
    if unknown := [name for name in options if name not in Wishes.__annotations__]:
        raise UsageError(f"got the argument {unknown[0]!r}; expected some of {', '.join(Wishes.__annotations__)}")


def as_scores(values: NDArray[np.float64], of: Blend | Fresh) -> FloatArray:
    """Return values as float32, or refuse what is too large for it."""
    if values.size and not float(np.abs(values).max()) < LARGEST:
        raise UsageError(f"got scores up to {np.abs(values).max()} by {of!r}; expected less than {LARGEST:g}")
    return values.astype(np.float32)


def positive(value: int, name: str) -> int:
    """Return a whole number of at least 1, or refuse it by name."""
    if type(value) is int and value > 0:
        return value  # as a rule
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise UsageError(f"got {name} = {value!r}; expected a whole number of at least 1")
    return int(value)
