"""``Recommender``: one bundle, opened, that answers from memory; numpy and onnxruntime are all it needs.

What a first answer does not need is imported when it is asked for: an app waits for its start.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgerec.bundle import Bundle
from edgerec.errors import UnknownItemError, UsageError
from edgerec.runtime.catalogue import Catalogue
from edgerec.runtime.contents import Contents, read
from edgerec.runtime.engine import Ranker, RowArray
from edgerec.runtime.exact import best, column_cosines, row_products
from edgerec.runtime.layout import FloatArray
from edgerec.runtime.naming import Recommendation, named
from edgerec.runtime.overlay import Overlay, identity, load_overlay
from edgerec.runtime.ranking import Request, Wishes, answer, check_request, positive
from edgerec.runtime.session import BLOCK, Session
from edgerec.runtime.text import TextEncoder
from edgerec.signing import Key

if TYPE_CHECKING:
    from typing import Unpack

    from edgerec.runtime.nearest import Nearest

Candidates = Sequence[str] | Mapping[str, Mapping[str, float]]
TEXT_WEIGHT = 0.7  # of the search in an answer to a text: what is asked counts more than who asks
ROWS_AT_ONCE = 64  # histories per call where every item's score is wanted


class Recommender:
    """A bundle that recommends, searches, and takes new items; made by ``Recommender.load``.

    Answers and changes may be asked for from several threads.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int,
        overlay: str | Path | None = None,
        key: Key | None = None,
        index: str = "exact",
    ) -> None:
        self.bundle = bundle
        self._key = key
        self.contents: Contents = read(bundle)
        self.ranker = Ranker(bundle, self.contents, threads)
        self.nearest: Nearest | None = None
        if index != "exact":
            from edgerec.runtime.nearest import open_index

            self.nearest = open_index(index, bundle, self.contents)
        bundle.release()  # what onnxruntime packed, it does not read again
        self.encoder = TextEncoder(bundle, self.contents.model, threads)
        self.decays = self.contents.decays
        self.no_state = self.ranker.no_state
        ages: FloatArray = np.arange(BLOCK, -1, -1, dtype=np.float32)
        self.powers: FloatArray = np.power(self.decays[:, None], ages)  # [K, BLOCK + 1], the latest event's last
        self.catalogue = Catalogue(bundle, self.contents.n_items)
        self._changing = threading.Lock()
        self.overlay_path = None if overlay is None else Path(overlay)
        self.overlay = Overlay.empty(self.contents.n_items, self.contents.embedding_size)
        if self.overlay_path is not None and self.overlay_path.exists():
            self.overlay = load_overlay(self.overlay_path, identity(bundle), self.contents)

    @classmethod
    def load(
        cls,
        path: str | Path,
        threads: int = 1,
        overlay: str | Path | None = None,
        key: Key | None = None,
        deltas: Sequence[str | Path] = (),
        index: str = "exact",
    ) -> Recommender:
        """Open a bundle.

        Args:
            path: An ``.edgerec`` file.
            threads: Threads for one answer; small catalogues are fastest with one.
            overlay: The ``NAME.overlay`` file that keeps added and removed items; made at the first change.
            key: An Ed25519 public key in PEM, or the name of a file that holds one: the bundle, and all deltas now and
                later, must be signed with it. Without one, signatures are not looked at.
            deltas: The bundle's deltas, in order; those that the overlay holds already are passed over.
            index: ``exact``, or ``usearch`` to find the best items by the bundle's index, where nothing but the history
                decides: see ``docs/runtime.md``.

        Raises:
            BundleError: The file is not a whole bundle, is not signed with the key, or onnxruntime cannot open its
                graphs; or a delta cannot be applied.
            UsageError: ``threads`` is below 1, or the key cannot be used, or the bundle holds no index.
            MissingExtraError: A key was given without ``cryptography`` installed, or an index without ``usearch``.
        """
        recommender = cls(Bundle(Path(path), key), positive(threads, "threads"), overlay, key, index)
        recommender._apply(deltas, recommender.overlay.version)
        return recommender

    def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        exclude_seen: bool | None = None,
        candidates: Candidates | None = None,
        skip_unknown: bool = False,
        **wishes: Unpack[Wishes],
    ) -> list[Recommendation]:
        """Return the best items after a history, best first; fewer than k where no more can be returned.

        Args:
            history: Item ids, oldest first, of any number. Without any, the answer is the stored popularity order.
            k: How many items.
            exclude_seen: Leave out the history's items. By default as the bundle was exported.
            candidates: Rank these items only: ids, or ids with what a server knows of each, for ``blend``.
            skip_unknown: Leave out unknown ids, of history and candidates, instead of raising.
            wishes: ``where`` filters by the catalogue's columns, ``fresh`` boosts young items, ``blend`` joins the
                scores with the candidates' features, ``diversity`` reranks (``MMR``, ``Calibrated``).

        Raises:
            UnknownItemError: An id is not in the catalogue.
            UsageError: k is below 1, or an argument is of another type or does not go with the others.
        """
        session = Session(self)
        session.observe_rows(self.rows(history, skip_unknown))
        return self.answer(session, k, exclude_seen, candidates, skip_unknown, **wishes)

    def recommend_many(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        exclude_seen: bool | None = None,
        skip_unknown: bool = False,
    ) -> list[list[Recommendation]]:
        """Return an answer per history, as ``recommend`` gives it, at one call of the graph for 64 histories.

        Raises:
            UnknownItemError: An id is not in the catalogue.
            UsageError: k is below 1, or the histories are no sequences of ids.
        """
        from edgerec.runtime.many import recommend_many

        return recommend_many(self, histories, k, exclude_seen, skip_unknown)

    def answer_text(
        self, text: str, history: Sequence[str] = (), k: int = 10, weight: float = TEXT_WEIGHT
    ) -> list[Recommendation]:
        """Return the items that answer a text, such as replies to a ticket, and suit what the user took before.

        The score is ``weight * search + (1 - weight) * recommendation``: the cosine to the text, and the score after
        the history, each standardised over the catalogue (mean 0, deviation 1). Without a history it is the search's.

        Raises:
            UnknownItemError: An id is not in the catalogue.
            UsageError: The text is empty, k is below 1, or the weight is outside 0 .. 1.
        """
        from edgerec.runtime.many import answer_text

        return self.named(*answer_text(self, text, history, positive(k, "k"), weight))

    def session(self, keep_history: bool = False, seconds_per_event: float | None = None) -> Session:
        """Start a session without events.

        Args:
            keep_history: Keep the events, so that each can be forgotten exactly.
            seconds_per_event: A gap of so many seconds between timed events counts as one more event.

        Raises:
            UsageError: ``seconds_per_event`` is not above 0.
        """
        return Session(self, keep_history, seconds_per_event)

    def restore(self, saved: bytes | str) -> Session:
        """Return the session that ``Session.export_state`` described.

        Raises:
            UsageError: It is no such description, one of a newer format, or of another bundle.
        """
        from edgerec.runtime.snapshot import restore

        return restore(self, saved)

    def answer(
        self,
        session: Session,
        k: int,
        exclude_seen: bool | None = None,
        candidates: Candidates | None = None,
        skip_unknown: bool = False,
        **wishes: Unpack[Wishes],
    ) -> list[Recommendation]:
        """Return the best items after a session; what both ways to ask share."""
        check_request(wishes)
        if exclude_seen is None:
            exclude_seen = self.contents.model["mask_seen"]
        request = Request(positive(k, "k"), exclude_seen, candidates, skip_unknown, **wishes)
        pool = answer(self, session, request)
        return self.named(pool.rows.tolist(), pool.scores.tolist())

    def similar(self, item: str, k: int = 10) -> list[Recommendation]:
        """Return the items nearest to one by the cosine of their vectors as candidates, without itself."""
        overlay, row = self.overlay, self.rows([item])[0]
        query = self.vector(row, as_history=False)
        cosines = column_cosines(self.contents.external["item_out.i8"], query)
        added = column_cosines(overlay.vectors.item_out.T, query) if len(overlay) else np.zeros(0, np.float32)
        scores = self.by_row(overlay, cosines, added)
        scores[row] = -np.inf
        return self._best(scores, k)

    def search(self, query: str, k: int = 10) -> list[Recommendation]:
        """Return the items whose text is nearest to a query's, by cosine.

        Raises:
            UsageError: The query is empty, or k is below 1.
            MissingExtraError: ``tokenizers`` is not installed.
        """
        positive(k, "k")
        overlay = self.overlay
        return self._best(self.text_scores(overlay, query), k)

    def text_scores(self, overlay: Overlay, query: str) -> FloatArray:
        """Return the cosine of every item's text with a query's, float32 by row; -inf where there is no item."""
        from edgerec.runtime.additions import is_text

        if not is_text(query) or not query.strip():
            raise UsageError(f"got the query {query!r}; expected some text")
        vector = self.encoder.encode([query]).text[0]
        scores = row_products(self.contents.text_codes, self.contents.text_scale, vector)
        return self.by_row(overlay, scores, overlay.vectors.text @ vector)

    def by_row(self, overlay: Overlay, base: FloatArray, added: FloatArray) -> FloatArray:
        """Return scores of the bundle's items [..., N + 1] and of the added ones [..., A] as one array, by row."""
        scores = np.full((*base.shape[:-1], overlay.next_row), -np.inf, np.float32)
        scores[..., 1 : base.shape[-1]] = base[..., 1:]
        scores[..., overlay.hidden(self.contents.n_items)] = -np.inf
        scores[..., overlay.rows] = np.where(overlay.live, added, -np.inf)
        return scores

    def add_items(
        self, items: Mapping[str, str | tuple[str, str]], columns: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Add items, or replace what is known of some: they can then be observed, recommended and searched.

        An item of the bundle keeps what the log taught of it beyond its text. Where an overlay file was named, it holds
        the change before this returns.

        Args:
            items: Item id -> its text, or (its title, its text). Without a title, the text serves as one.
            columns: Item id -> column -> number, string or several strings, for ``where`` and ``fresh``.

        Raises:
            UsageError: A text is empty, or an argument is of another type. Nothing was added.
            BundleError: An item of the bundle is to be replaced, and the bundle holds no texts. Nothing was added.
            MissingExtraError: ``tokenizers`` is not installed.
        """
        with self._changing:
            from edgerec.runtime.additions import with_items

            self._change(with_items(self, items, columns))

    def remove_items(self, items: Sequence[str]) -> None:
        """Take items out of the catalogue, for good: no answer has them, and they can be observed no more.

        Raises:
            UnknownItemError: An id is not in the catalogue. Nothing was removed.
        """
        with self._changing:
            self._change(self.overlay.removing(set(self.rows(items))))

    def apply_delta(self, path: str | Path) -> None:
        """Change the catalogue by a file that ``edgerec delta`` wrote, all of it or, after an error, nothing.

        Raises:
            BundleError: It is no whole delta, is not signed with the key that the bundle was loaded with, is for
                another bundle, or does not follow the delta that was applied last.
        """
        self._apply([path], 0)

    def _apply(self, paths: Sequence[str | Path], held: int) -> None:
        """Apply deltas together, but for those up to the version ``held``."""
        from edgerec.runtime.delta import applied, read_delta

        read = (read_delta(Path(path), self.contents.embedding_size, self._key) for path in paths)
        deltas = [delta for delta in read if not 0 < delta.version <= held]
        with self._changing:
            overlay = self.overlay
            for delta in deltas:
                overlay = applied(overlay, delta, self.contents, identity(self.bundle))
            if deltas:
                self._change(overlay)

    def _change(self, overlay: Overlay) -> None:
        if self.overlay_path is not None:
            overlay.save(self.overlay_path, identity(self.bundle), self.contents.n_items)
        self.overlay = overlay

    def score_rows(self, histories: RowArray) -> FloatArray:
        """Score the bundle's catalogue through the shipped graph, and after it the added items, for evaluation.

        Args:
            histories: int64 [R, L] rows 1 .. n_items, oldest first; 0 is padding, anywhere.

        Returns:
            float32 [R, n_items + added]; column j belongs to row j + 1. Nothing is masked.

        Raises:
            UsageError: A row is outside the catalogue.
        """
        n, overlay = self.contents.n_items, self.overlay
        histories = np.asarray(histories, np.int64)
        if histories.size and (histories.min() < 0 or histories.max() > n):
            raise UsageError(f"histories hold rows {histories.min()} to {histories.max()}; expected 0 to {n}")
        scores = np.full((len(histories), overlay.next_row), -np.inf, np.float32)
        for start in range(0, len(histories), ROWS_AT_ONCE):
            answer = self.ranker.rank(histories[start : start + ROWS_AT_ONCE], n + 1)
            base = np.full((len(answer.items), n + 1), -np.inf, np.float32)
            # places that are not returned say -1: they go to the padding item's column, which is cut off
            np.put_along_axis(base, np.maximum(answer.items, 0), answer.scores, axis=1)
            scores[start : start + ROWS_AT_ONCE] = self.by_row(overlay, base, overlay.scores(answer.user))
        return scores[:, 1:]

    def rows(self, items: Iterable[str], skip_unknown: bool = False) -> list[int]:
        """Return the rows of item ids; rows above ``n_items`` are added items.

        Raises:
            UnknownItemError: An id is unknown and ``skip_unknown`` is not set.
            UsageError: ``items`` is one string.
        """
        if isinstance(items, str) or not isinstance(items, Iterable):
            kind = type(items).__name__.replace("str", "string")
            raise UsageError(f"got the {kind} {items!r}; expected a sequence of item ids, such as [{items!r}]")
        known, overlay, asked = self.contents.rows, self.overlay, list(items)
        if not overlay.places and not overlay.removed:
            try:
                return [known[item] for item in asked]  # as a rule, all of them are known
            except (KeyError, TypeError, AttributeError):
                pass
        items = [item if isinstance(item, str) else "" for item in asked]  # what is no string is no id
        rows = [overlay.by_id[item].row if item in overlay.by_id else known.get(item, 0) for item in items]
        rows = [0 if row in overlay.removed else row for row in rows]
        unknown = [item for item, row in zip(asked, rows, strict=True) if not row]
        if unknown and not skip_unknown:
            from edgerec.runtime.additions import listing

            raise UnknownItemError(
                f"{len(unknown)} of {len(rows)} items are not in the catalogue: {listing(unknown)}; "
                "expected known ids: add them, or ask to skip unknown ones"
            )
        return [row for row in rows if row]

    def vectors(self, rows: Sequence[int], as_history: bool) -> FloatArray:
        """Return items' vectors, float32 [n, d], as history or as candidates."""
        n, overlay = self.contents.n_items, self.overlay
        if not overlay.places:
            return self.contents.columns(rows, as_history)
        found = self.contents.columns([row if row <= n else 0 for row in rows], as_history)
        added = overlay.vectors.item_in if as_history else overlay.vectors.item_out
        for line, row in enumerate(rows):
            if row in overlay.places:
                found[line] = added[overlay.places[row]]
        return found

    def vector(self, row: int, as_history: bool) -> FloatArray:
        """Return an item's vector, float32 [d], as history or as candidate."""
        if not self.overlay.places:
            return self.contents.column(row, as_history)
        return self.vectors([row], as_history)[0]

    def item_id(self, row: int) -> str:
        """Return the id of a row."""
        overlay = self.overlay
        place = overlay.places.get(row)
        return self.contents.ids[row - 1] if place is None else overlay.items[place].id

    def named(self, rows: Sequence[int], scores: Sequence[float]) -> list[Recommendation]:
        """Return an answer with ids and titles."""
        return named(self.contents, self.overlay, rows, scores)

    def _best(self, scores: FloatArray, k: int) -> list[Recommendation]:
        rows = best(scores, positive(k, "k"))
        return self.named(rows, [float(scores[row]) for row in rows])
