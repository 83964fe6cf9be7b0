"""A blend is found again from requests that were drawn by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import pytest

from edgerec.benchmarks.blend import Shown, learn_blend
from edgerec.errors import UsageError
from edgerec.runtime import Recommendation


class Scores:
    """A recommender whose score of an item is its number."""

    def recommend(self, history: Any, k: int, exclude_seen: bool, candidates: list[str]) -> list[Recommendation]:
        assert not exclude_seen and k == len(candidates)
        return [Recommendation(item, item, float(item)) for item in candidates]


def drawn(count: int, weights: dict[str, float], score: float) -> list[Shown]:
    """Draw requests whose taken item follows the conditional logit."""
    rng, shown = np.random.default_rng(0), []
    for _ in range(count):
        items = [f"{value:.9f}" for value in rng.normal(size=8)]
        sides = {item: {"price": float(rng.normal() * 100), "stock": float(rng.integers(2))} for item in items}
        logits = [
            score * float(item) + sum(weights[one] * side[one] for one in weights) for item, side in sides.items()
        ]
        chances = np.exp(np.array(logits) - max(logits))
        shown.append(Shown([], sides, items[rng.choice(len(items), p=chances / chances.sum())]))
    return shown


def test_the_weights_that_drew_the_requests_are_found_again() -> None:
    weights = {"price": -0.01, "stock": 1.5}
    blend = learn_blend(Scores(), drawn(4000, weights, 0.7))  # type: ignore[arg-type]
    assert blend.score == pytest.approx(0.7, abs=0.08)
    assert blend.weights["price"] == pytest.approx(-0.01, abs=0.001)
    assert blend.weights["stock"] == pytest.approx(1.5, abs=0.1)


def test_what_tells_nothing_apart_gets_no_weight() -> None:
    shown = [Shown([], {"1": {"same": 5.0}, "2": {"same": 5.0}}, "2")] * 3
    blend = learn_blend(Scores(), shown)  # type: ignore[arg-type]
    assert blend.weights["same"] == pytest.approx(0, abs=1e-9)
    assert 0 < blend.score < 20  # the ridge bounds what separates perfectly


def test_requests_that_teach_nothing_are_refused(tmp_path: Path) -> None:
    for shown in ([], [Shown([], {"1": {}}, "2")]):
        with pytest.raises(UsageError):
            learn_blend(Scores(), shown)  # type: ignore[arg-type]
