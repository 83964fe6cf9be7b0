"""What the server is asked and what it answers: the one set of types that checks requests and that OpenAPI describes.

A type says what holds for every server; ``limited`` adds what one server was started with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from edgerec.runtime.diversity import MMR, Calibrated
from edgerec.runtime.ranking import Blend, Fresh

PAGE = 1000  # items that one answer lists at most
MOST_EXPLAINED = 100  # events: each is one more ranking of the whole catalogue
Pool = Annotated[int, Meta(ge=1, le=1000)]
Share = Annotated[float, Meta(ge=0, le=1)]
T = TypeVar("T", bound="Asked")


@dataclass(frozen=True)
class Limits:
    """What one server takes on: bytes of a body, the longest answer and history, seconds for a body and an answer."""

    body: int = 1 << 20
    k: int = 100
    history: int = 1000
    seconds: float = 10.0


class Asked(Struct, forbid_unknown_fields=True):
    """Base of what can be asked."""


class ByMMR(Asked, tag_field="by", tag="mmr"):
    """Diversity by maximal marginal relevance."""

    weight: Share = MMR.weight
    pool: Pool = MMR.pool

    def wish(self) -> MMR:
        """Return what the runtime reranks by."""
        return MMR(self.weight, self.pool)


class ByColumn(Asked, tag_field="by", tag="calibrated"):
    """Diversity by calibration to a column."""

    column: str
    weight: Share = Calibrated.weight
    pool: Pool = Calibrated.pool

    def wish(self) -> Calibrated:
        """Return what the runtime reranks by."""
        return Calibrated(self.column, self.weight, self.pool)


class Freshness(Asked):
    """A boost for young items."""

    column: str
    now: float
    half_life: float
    weight: float = 1.0

    def wish(self) -> Fresh:
        """Return what the runtime boosts by."""
        return Fresh(self.column, self.now, self.half_life, self.weight)


class Blending(Asked):
    """Weights of the candidates' features, and of the model's score."""

    weights: dict[str, float]
    score: float = 1.0

    def wish(self) -> Blend:
        """Return what the runtime blends by."""
        return Blend(self.weights, self.score)


class Recommend(Asked):
    """What to recommend after a history, oldest first; the rest as ``Recommender.recommend`` has it."""

    history: list[str] = []
    k: int = 10
    exclude_seen: bool | None = None
    skip_unknown: bool = False
    candidates: list[str] | dict[str, dict[str, float]] | None = None
    where: dict[str, float | str | list[float | str | None]] | None = None
    fresh: Freshness | None = None
    blend: Blending | None = None
    diversity: ByMMR | ByColumn | None = None


class Search(Asked):
    """A text to search the catalogue by."""

    query: Annotated[str, Meta(pattern=r"\S")]
    k: int = 10


class Similar(Asked):
    """An item, whose nearest ones are wanted."""

    item: str
    k: int = 10


class Explain(Asked):
    """An item to explain after a history, oldest first, as one of k."""

    item: str
    history: list[str] = []
    k: int = 10
    words: bool = True


class Items(Asked):
    """Items to look up by their ids, or a page of the catalogue."""

    id: Annotated[list[str], Meta(max_length=PAGE)] = []
    offset: Annotated[int, Meta(ge=0)] = 0
    limit: Annotated[int, Meta(ge=1, le=PAGE)] = 100


class Scored(Struct):
    """An item of an answer; scores compare within one answer only."""

    item: str
    title: str
    score: float


class Answer(Struct):
    """Items, best first."""

    items: list[Scored]


class Listed(Struct):
    """An item of the catalogue, and what it can be filtered by."""

    item: str
    title: str
    columns: dict[str, float | list[str] | None]


class Page(Struct):
    """Items of a catalogue of ``total``; ``next`` is the next page's offset, null after the last."""

    items: list[Listed]
    total: int
    next: int | None


class Problem(Struct):
    """What was wrong with a request: RFC 9457's problem details."""

    title: str
    status: int
    detail: str


class Health(Struct):
    """The file that answers: its sha256, what made it, how many items it holds and since when it is in use."""

    status: str
    sha256: str
    edgerec: str | None
    items: int
    since: str


def limited(kind: type[T], limits: Limits) -> type[T]:
    """Return a type of request with a server's limits in it."""
    history = min(limits.history, MOST_EXPLAINED) if kind is Explain else limits.history
    bounds: dict[str, Any] = {
        "history": Annotated[list[str], Meta(max_length=history)],
        "k": Annotated[int, Meta(ge=1, le=limits.k)],
    }
    defaults = {"history": [], "k": min(10, limits.k)}
    fields = [(name, bounds[name], defaults[name]) for name in kind.__struct_fields__ if name in bounds]
    made: Any = msgspec.defstruct(kind.__name__, fields, bases=(kind,), namespace={"__doc__": kind.__doc__})
    return made
