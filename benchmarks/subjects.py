"""The shipped file as a subject, on onnxruntime's CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerec.benchmarks.adapters import K, Staged, importing

if TYPE_CHECKING:
    from edgerec.runtime.naming import Recommendation
    from edgerec.runtime.recommender import Recommender
    from edgerec.runtime.session import Session


class BundleSubject(Staged):
    """A bundle behind ``edgerec.runtime``, as an application would use it."""

    recommender: Recommender

    def __init__(self, kind: str, bundle: str, threads: int = 1) -> None:
        self.path, self.threads = Path(bundle), threads
        self.run_one: Callable[[Any], Any] = getattr(self, kind)
        self._ready: dict[tuple[str, ...], Session] = {}

    def stages(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield import, check of the file, and graphs; together they are ``Recommender.load``."""
        yield "import", importing("onnxruntime", "edgerec.runtime")
        yield "open", self._open
        yield "session", self._graphs

    def close(self) -> None:
        """Nothing is held outside the process."""

    def _open(self) -> None:
        from edgerec.bundle import Bundle

        self._bundle = Bundle(self.path)

    def _graphs(self) -> None:
        from edgerec.runtime.recommender import Recommender

        self.recommender = Recommender(self._bundle, self.threads)

    def observe(self, histories: Sequence[Sequence[str]]) -> None:
        """Start a session for each history, and observe all but its last event."""
        for history in histories:
            session = self._ready[tuple(history)] = self.recommender.session()
            session.observe(*history[:-1])

    def goldens(self) -> dict[str, Any] | None:
        """Replay the file's golden requests as this subject answers them.

        Raises:
            ParityError: An answer differs.
        """
        from edgerec.runtime.verify import verify_open

        return {"passes": True, **verify_open(self.recommender)}

    def recommend(self, history: Sequence[str]) -> list[str]:
        """Recommend after a whole history."""
        return ids(self.recommender.recommend(history, K))

    def session(self, history: Sequence[str]) -> list[str]:
        """Observe the last event of a history whose others were observed before, and recommend."""
        session = self._ready[tuple(history)].fork()  # the answer must depend on the request alone
        session.observe(*history[-1:])
        return ids(session.recommend(K))

    def search(self, query: str) -> list[str]:
        """Search; tokenization is inside."""
        return ids(self.recommender.search(query, K))

    def encode(self, text: str) -> Any:
        """Return a text's vector; tokenization is inside."""
        return self.recommender.encoder.encode([text]).text[0]


def ids(found: list[Recommendation]) -> list[str]:
    """Return the item ids of an answer."""
    return [entry.item for entry in found]
