"""The file that ships as a subject: scored through its own graph, timed through its own runtime (no torch here)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgerec.benchmarks.timer import measure
from edgerec.errors import UsageError
from edgerec.interactions import Dataset, FloatArray, Requests
from edgerec.runtime import Recommender


class BundleScorer:
    """A bundle that scores the rows of the data set that it was made from.

    Raises:
        BundleError: The file cannot be used.
        UsageError: It was made from other data.
    """

    def __init__(self, path: Path, data: Dataset) -> None:
        self.recommender = Recommender.load(path)
        made_from = self.recommender.bundle.manifest.get("data", {})
        if made_from.get("fingerprint") != data.fingerprint:
            raise UsageError(
                f"{path} was made from {made_from.get('name')!r} ({str(made_from.get('fingerprint'))[:12]}), got "
                f"{data.name} ({data.fingerprint[:12]}); give the files that it was trained on"
            )

    def score(self, requests: Requests) -> FloatArray:
        """Return scores of the whole catalogue from the shipped graph, float32 [R, n_items]."""
        histories = np.zeros((len(requests), max(int(requests.histories.lengths.max(initial=1)), 1)), np.int64)
        for row in range(len(requests)):
            history = requests.histories[row]
            histories[row, : len(history)] = history + 1  # row 0 of a bundle is padding
        return self.recommender.score_rows(histories)


def latency(
    path: Path, histories: Sequence[Sequence[str]], queries: Sequence[str], rounds: int = 300
) -> dict[str, Any]:
    """Time a bundle on one thread, its kinds of request interleaved.

    Args:
        path: The bundle.
        histories: Item ids per user, oldest first.
        queries: Search texts; tokenization is inside the time.
        rounds: Calls of each kind.

    Returns:
        Percentiles in ms per kind, and the number of threads.
    """
    recommender = Recommender.load(path)
    session = recommender.session()
    session.observe(*histories[0])

    def observe_and_recommend(number: int) -> None:
        session.observe(histories[number % len(histories)][-1])
        session.recommend()

    subjects: dict[str, Callable[[int], object]] = {
        "recommend, whole history": lambda number: recommender.recommend(histories[number % len(histories)]),
        "session, observe + recommend": observe_and_recommend,
        "search, one query": lambda number: recommender.search(queries[number % len(queries)]),
    }
    return {"threads": 1, **{name: one.summary() for name, one in measure(subjects, rounds).items()}}
