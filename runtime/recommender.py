"""``Recommender``: one bundle, opened, that answers from memory; numpy and onnxruntime are all it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgerec.bundle import Bundle
from edgerec.errors import UnknownItemError, UsageError
from edgerec.runtime.contents import Contents, read
from edgerec.runtime.engine import NOBODY, Answer, Ranker, RowArray
from edgerec.runtime.exact import best, column_cosines, row_products
from edgerec.runtime.layout import FloatArray
from edgerec.runtime.overlay import Overlay
from edgerec.runtime.repeat import repeat_scores
from edgerec.runtime.session import Session
from edgerec.runtime.text import TextEncoder

NAMED = 5  # unknown items that an error names
ROWS_AT_ONCE = 64  # histories per call where every item's score is wanted


class Recommendation(NamedTuple):
    """An item with its title and what it was ranked by; scores compare within one answer only."""

    item: str
    title: str
    score: float


class Recommender:
    """A bundle that recommends, searches, and takes new items; made by ``Recommender.load``.

    Answers may be asked for from several threads; ``add_items`` from one.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.bundle = bundle
        self.contents: Contents = read(bundle)
        self.ranker = Ranker(bundle, self.contents, threads)
        self.encoder = TextEncoder(bundle, self.contents.model, threads)
        self.decays = self.contents.decays
        self.no_state = self.ranker.no_state
        self._overlay = Overlay.empty(self.contents.embedding_size)

    @classmethod
    def load(cls, path: str | Path, threads: int = 1) -> Recommender:
        """Open a bundle.

        Args:
            path: An ``.edgerec`` file.
            threads: Threads for one answer; small catalogues are fastest with one.

        Raises:
            BundleError: The file is not a whole bundle, or onnxruntime cannot open its graphs.
            UsageError: ``threads`` is below 1.
        """
        return cls(Bundle(Path(path)), positive(threads, "threads"))

    def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        exclude_seen: bool | None = None,
        candidates: Sequence[str] | None = None,
        skip_unknown: bool = False,
    ) -> list[Recommendation]:
        """Return the best items after a history, best first; fewer than k where no more can be returned.

        Args:
            history: Item ids, oldest first, of any number. Without any, the answer is the stored popularity order.
            k: How many items.
            exclude_seen: Leave out the history's items. By default as the bundle was exported.
            candidates: Rank these items only.
            skip_unknown: Leave out unknown ids, of history and candidates, instead of raising.

        Raises:
            UnknownItemError: An id is not in the catalogue.
            UsageError: k is below 1, or a string was given instead of a sequence of strings.
        """
        rows = self.rows(history, skip_unknown)
        session = Session(self)
        if max(rows, default=0) > self.contents.n_items:  # the graph knows no added items
            session.observe_rows(rows)
            rows = []
        return self.answer(session, k, exclude_seen, candidates, rows, skip_unknown)

    def session(self) -> Session:
        """Start a session without events."""
        return Session(self)

    def answer(
        self,
        session: Session,
        k: int,
        exclude_seen: bool | None = None,
        candidates: Sequence[str] | None = None,
        rows: Sequence[int] = (),
        skip_unknown: bool = False,
    ) -> list[Recommendation]:
        """Return the best items after a session and then ``rows`` of the bundle; what both ways to ask share."""
        k = positive(k, "k")
        if exclude_seen is None:
            exclude_seen = self.contents.model["mask_seen"]
        banned = session.seen.union(rows) if exclude_seen else set()
        allowed = None if candidates is None else self.rows(candidates, skip_unknown)
        n = self.contents.n_items
        exclude = np.array([[row for row in banned if row <= n]], np.int64)
        offset = None
        if allowed is not None:
            offset = np.full((1, n + 1), -np.inf, np.float32)
            offset[0, [row for row in allowed if row <= n]] = 0
        history = np.array([rows], np.int64) if rows else NOBODY
        taken, left = session.memory.recall()
        memory = taken[taken <= n], left[:, taken <= n]
        answer = self.ranker.rank(history, min(k, n + 1), session.state[None], exclude, offset, memory)
        return self._merge(answer, self._added_scores(answer, session, len(rows)), k, banned, allowed)

    def _added_scores(self, answer: Answer, session: Session, later: int) -> FloatArray:
        """Return the score of every added item after a session and ``later`` events of the bundle's items."""
        if not len(self._overlay) or not answer.state.any():
            # of an added item nobody has seen, nothing is known either: it comes after all that have a popularity
            return np.full(len(self._overlay), self.contents.external["popularity.f32"][1:].min())
        scores = self._overlay.scores(answer.user)[0]
        taken, left = session.memory.recall(later)
        places = taken - self.contents.n_items - 1
        scores[places[places >= 0]] += repeat_scores(self.contents.repeat_weights, left[:, places >= 0])
        return scores

    def _merge(
        self, answer: Answer, more: FloatArray, k: int, banned: set[int], allowed: Sequence[int] | None
    ) -> list[Recommendation]:
        """Join the graph's best items with the added ones, whose scores are ``more``; ties go to the lower row."""
        kept = answer.items[0] >= 0
        rows, scores = answer.items[0][kept], answer.scores[0][kept]
        if len(more):
            places = np.arange(len(more)) + self.contents.n_items + 1
            kept = ~np.isin(places, list(banned))
            if allowed is not None:
                kept &= np.isin(places, allowed)
            rows, scores = np.concatenate([rows, places[kept]]), np.concatenate([scores, more[kept]])
        order = np.argsort(-scores, kind="stable")[:k]
        return [self._named(int(rows[place]), float(scores[place])) for place in order]

    def similar(self, item: str, k: int = 10) -> list[Recommendation]:
        """Return the items nearest to one by the cosine of their vectors as candidates, without itself."""
        row = self.rows([item])[0]
        query = self.vector(row, as_history=False)
        cosines = column_cosines(self.contents.external["item_out.i8"], query)
        if len(self._overlay):
            cosines = np.concatenate([cosines, column_cosines(self._overlay.vectors.item_out.T, query)])
        cosines[[0, row]] = -np.inf
        return self._best(cosines, k)

    def search(self, query: str, k: int = 10) -> list[Recommendation]:
        """Return the items whose text is nearest to a query's, by cosine.

        Raises:
            UsageError: The query is empty, or k is below 1.
            MissingExtraError: ``tokenizers`` is not installed.
        """
        if not isinstance(query, str) or not query.strip():
            raise UsageError(f"got the query {query!r}; expected some text")
        positive(k, "k")
        vector = self.encoder.encode([query]).text[0]
        scores = row_products(self.contents.text_codes, self.contents.text_scale, vector)
        scores = np.concatenate([scores, self._overlay.vectors.text @ vector])
        scores[0] = -np.inf
        return self._best(scores, k)

    def add_items(self, items: Mapping[str, str | tuple[str, str]]) -> None:
        """Add items that the bundle does not know; they can then be observed, recommended and searched.

        Args:
            items: Item id -> its text, or (its title, its text). Without a title, the text serves as one.

        Raises:
            UsageError: An id is taken, or a text is empty. Nothing was added.
            MissingExtraError: ``tokenizers`` is not installed.
        """
        pairs = {item: (text, text) if isinstance(text, str) else text for item, text in items.items()}
        known = self.contents.rows.keys() | self._overlay.rows.keys()
        if taken := [item for item in pairs if item in known]:
            raise UsageError(f"{listing(taken)} are in the catalogue already; expected new ids")
        if empty := [item for item, (_, text) in pairs.items() if not text.strip()]:
            raise UsageError(f"the text of {listing(empty)} is empty; expected some text to tell an item by")
        if pairs:
            vectors = self.encoder.encode([text for _, text in pairs.values()])
            first = self.contents.n_items + 1 + len(self._overlay)
            titles = [title for title, _ in pairs.values()]
            self._overlay = self._overlay.extended(list(pairs), titles, vectors, first)

    def score_rows(self, histories: RowArray) -> FloatArray:
        """Score the bundle's catalogue through the shipped graph, and after it the added items, for evaluation.

        Args:
            histories: int64 [R, L] rows 1 .. n_items, oldest first; 0 is padding, anywhere.

        Returns:
            float32 [R, n_items + added]; column j belongs to row j + 1. Nothing is masked.

        Raises:
            UsageError: A row is outside the catalogue.
        """
        n = self.contents.n_items
        histories = np.asarray(histories, np.int64)
        if histories.size and (histories.min() < 0 or histories.max() > n):
            raise UsageError(f"histories hold rows {histories.min()} to {histories.max()}; expected 0 to {n}")
        scores = np.full((len(histories), n + 1 + len(self._overlay)), -np.inf, np.float32)
        for start in range(0, len(histories), ROWS_AT_ONCE):
            answer, part = self.ranker.rank(histories[start : start + ROWS_AT_ONCE], n + 1), scores[start:]
            # places that are not returned say -1: they go to the padding item's column, which is cut off
            np.put_along_axis(part[:ROWS_AT_ONCE], np.maximum(answer.items, 0), answer.scores, axis=1)
            part[:ROWS_AT_ONCE, n + 1 :] = self._overlay.scores(answer.user)
        return scores[:, 1:]

    def rows(self, items: Sequence[str], skip_unknown: bool = False) -> list[int]:
        """Return the rows of item ids; rows above ``n_items`` are added items.

        Raises:
            UnknownItemError: An id is unknown and ``skip_unknown`` is not set.
            UsageError: ``items`` is one string.
        """
        if isinstance(items, str):
            raise UsageError(f"got the string {items!r}; expected a sequence of item ids, such as [{items!r}]")
        known, added = self.contents.rows, self._overlay.rows
        rows = [known.get(item) or added.get(item) or 0 for item in items]
        unknown = [item for item, row in zip(items, rows, strict=True) if not row]
        if unknown and not skip_unknown:
            raise UnknownItemError(
                f"{len(unknown)} of {len(rows)} items are not in the catalogue: {listing(unknown)}; "
                "expected known ids: add them, or ask to skip unknown ones"
            )
        return [row for row in rows if row]

    def vector(self, row: int, as_history: bool) -> FloatArray:
        """Return an item's vector, float32 [d], as history or as candidate."""
        place = row - self.contents.n_items - 1
        if place < 0:
            return self.contents.column(row, as_history)
        vectors = self._overlay.vectors
        return (vectors.item_in if as_history else vectors.item_out)[place]

    def _best(self, scores: FloatArray, k: int) -> list[Recommendation]:
        return [self._named(row, float(scores[row])) for row in best(scores, positive(k, "k"))]

    def _named(self, row: int, score: float) -> Recommendation:
        place = row - self.contents.n_items - 1
        if place < 0:
            return Recommendation(self.contents.ids[row - 1], self.contents.titles[row - 1], score)
        return Recommendation(list(self._overlay.rows)[place], self._overlay.titles[place], score)


def positive(value: int, name: str) -> int:
    """Return a whole number of at least 1, or refuse it by name."""
    if not isinstance(value, int | np.integer) or value < 1:
        raise UsageError(f"got {name} = {value!r}; expected a whole number of at least 1")
    return int(value)


def listing(items: Sequence[str]) -> str:
    """Return the first few ids, and how many more there are."""
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(repr(item) for item in items[:NAMED]) + more
