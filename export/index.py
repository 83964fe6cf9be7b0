"""A finished bundle gets an index of its items, behind a gate: what it finds is compared with the exact answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgerec.benchmarks.accuracy import overlap
from edgerec.bundle import write_bundle
from edgerec.errors import ParityError, require
from edgerec.export.limits import INDEX_RECALL
from edgerec.files import atomic_path
from edgerec.runtime import Recommender
from edgerec.runtime.nearest import INDEX, build
from edgerec.runtime.verify import read_goldens

K = 10
ASKED = 200  # of the golden histories and their beginnings


def add_index(bundle: Path) -> dict[str, Any]:
    """Put an index of the items into a bundle in place, and return the manifest's record of it.

    Raises:
        MissingExtraError: usearch is not installed.
        ParityError: The index misses too many of the best items; the bundle is as it was.
    """
    recommender = Recommender.load(bundle)
    opened = recommender.bundle
    members = {name: bytes(opened[name]) for name in opened.manifest["members"]}
    members[INDEX] = bytes(build(recommender.contents).save())
    record = {"kind": "usearch", "version": require("usearch", "index").__version__, "bytes": len(members[INDEX])}
    with atomic_path(bundle) as temporary:
        write_bundle(temporary, {**opened.manifest, "index": record}, members)
        record["recall10"] = recall(recommender, Recommender.load(temporary, index="usearch"))
        if record["recall10"] < INDEX_RECALL:
            raise ParityError(
                f"the index finds {record['recall10']:.1%} of the exact top {K}; expected at least {INDEX_RECALL:.0%}; "
                "nothing was written: export with --index exact"
            )
        write_bundle(temporary, {**opened.manifest, "index": record}, members)
    return record


def recall(exact: Recommender, indexed: Recommender) -> float:
    """Return the mean share of the exact ten best that the index finds, after golden histories and their beginnings."""
    histories = [[row for row in request["history"] if row] for request in read_goldens(exact)["requests"]]
    lengths = [(history, length) for history in histories for length in range(1, len(history) + 1)]
    answers: list[list[list[str]]] = [[], []]
    for place in np.linspace(0, len(lengths) - 1, min(len(lengths), ASKED)).astype(int):
        history, length = lengths[place]
        ids = [exact.item_id(row) for row in history[:length]]
        for recommender, given in zip((exact, indexed), answers, strict=True):
            given.append([one.item for one in recommender.recommend(ids, K)])
    return overlap(answers[1], answers[0]) if lengths else 1.0
