"""An engine that answers as torch does passes; what it gets wrong is counted, named, and refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import pytest

from edgerec.errors import ParityError
from edgerec.export.engines import Feed
from edgerec.export.goldens import torch_scores
from edgerec.export.parity import Reference, compare, reference, require_parity
from edgerec.runtime.engine import RowArray
from edgerec.runtime.layout import FloatArray, Tower

N, D = 40, 8
VECTORS = np.eye(4, D, dtype=np.float32)
FEEDS: list[Feed] = [{"input_ids": np.arange(4)[:, None], "attention_mask": np.ones((4, 1), np.int64)}]


def tower() -> Tower:
    rng = np.random.default_rng(0)
    out, bias = rng.normal(size=(N, D)).astype(np.float32), rng.normal(size=N).astype(np.float32)
    names = [f"item {row}" for row in range(1, N + 1)]
    return Tower(np.float32([0.5, 0.9]), np.float32([1, 1]), 3.0, out, None, bias, bias, out, names, names)


def torch_answers() -> Reference:
    return reference(tower(), [[1, 2, 3], [], [7], [40, 1]], VECTORS, FEEDS, ["a", "b", "c", "d"])


class Twin:
    """Torch under another name, with something done to its scores and vectors."""

    name = "twin"

    def __init__(self, scores: FloatArray | None = None, vectors: FloatArray = VECTORS, last: int = N) -> None:
        self.added, self.vectors, self.last = scores if scores is not None else np.zeros(N, np.float32), vectors, last

    def rank(self, history: RowArray, k: int) -> tuple[RowArray, FloatArray]:
        scores = torch_scores(tower(), history[0].tolist()) + self.added
        order = np.argsort(-scores, kind="stable")[: self.last]
        return order + 1, scores[order]

    def encode(self, feed: Feed) -> FloatArray:
        return self.vectors[feed["input_ids"][:, 0]]


def test_torch_agrees_with_itself_and_empty_histories_are_left_out() -> None:
    row = compare(Twin(), torch_answers())
    assert (row["requests"], row["texts"]) == (3, 4)
    assert (row["overlap"], row["flips"], row["largest_score_difference"]) == (1, 0, 0)
    assert row["tau"] == pytest.approx(1)
    require_parity(row, "fp32")


def test_a_near_tie_may_flip_and_is_counted() -> None:
    wanted = torch_answers()
    scores = np.sort(wanted.scores, axis=1)[:, ::-1].copy()
    order = np.argsort(-wanted.scores, axis=1)
    scores[:, 1] = scores[:, 0] - 1e-6
    np.put_along_axis(wanted.scores, order, scores, axis=1)

    class Swapped(Twin):
        def rank(self, history: RowArray, k: int) -> tuple[RowArray, FloatArray]:
            line = [one for one, asked in enumerate(wanted.histories) if asked == history[0].tolist()][0]
            items, values = order[line].copy() + 1, scores[line].copy()
            items[[0, 1]] = items[[1, 0]]
            return items, values

    row = compare(Swapped(), wanted)
    assert row["overlap"] == 1 and row["flips"] == row["near_flips"] == 3 and 0.9 < row["tau"] < 1


@pytest.mark.parametrize(
    ("engine", "named"),
    [
        (Twin(np.where(np.arange(N) % 2, 5, -5).astype(np.float32)), "overlap"),
        (Twin(vectors=np.roll(VECTORS, 1, axis=0)), "largest_text_distance"),
        (Twin(vectors=np.full_like(VECTORS, np.nan)), "largest_text_distance"),
        (Twin(np.full(N, np.nan, np.float32)), "tau"),
        (Twin(last=3), "tau"),
    ],
)
def test_a_wrong_engine_is_refused_by_name(engine: Twin, named: str) -> None:
    row = compare(engine, torch_answers())
    with pytest.raises(ParityError, match=named) as caught:
        require_parity(row, "int8-dynamic")
    assert "worst request: " in str(caught.value) and "item " in str(caught.value)


def test_the_worst_request_is_named() -> None:
    wanted = torch_answers()
    wanted = replace(wanted, scores=np.where(np.arange(3)[:, None] == 1, -wanted.scores, wanted.scores))
    row = compare(Twin(), wanted)
    assert row["worst_request"] == "1 events, last 'item 7'" and row["worst_overlap"] < 1
