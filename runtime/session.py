"""A session: a user's state that follows events in O(d) each, without keeping the history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgerec.runtime.layout import FloatArray
from edgerec.runtime.repeat import RepeatMemory

if TYPE_CHECKING:
    from edgerec.runtime.recommender import Recommendation, Recommender


class Session:
    """One user's running state; made by ``Recommender.session``.

    Attributes:
        state: float32 [K, d], what the observed events left. It, ``seen`` and ``memory`` are all that a session is.
        seen: The rows of the observed items.
        memory: What is left of each of them, where the model has repeat recencies.
    """

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        self.state: FloatArray = recommender.no_state.copy()
        self.seen: set[int] = set()
        self.memory = RepeatMemory(recommender.contents.repeat_decays)

    def fork(self) -> Session:
        """Return a session that starts where this one stands and goes on by itself."""
        made = Session(self._recommender)
        made.state, made.seen, made.memory = self.state.copy(), set(self.seen), self.memory.copy()
        return made

    def observe(self, *items: str) -> None:
        """Take note of events, oldest first; either all of them or, after an error, none.

        Raises:
            UnknownItemError: An item is not in the catalogue.
        """
        self.observe_rows(self._recommender.rows(items))

    def observe_rows(self, rows: Sequence[int]) -> None:
        """Take note of events by the rows of their items."""
        decays = self._recommender.decays[:, None]
        for row in rows:
            self.state = decays * self.state + self._recommender.vector(row, as_history=True)
            self.memory.observe(row)
        self.seen.update(rows)

    def recommend(
        self, k: int = 10, exclude_seen: bool | None = None, candidates: Sequence[str] | None = None
    ) -> list[Recommendation]:
        """Return the k best items for the state; the arguments are those of ``Recommender.recommend``."""
        return self._recommender.answer(self, k, exclude_seen, candidates)
