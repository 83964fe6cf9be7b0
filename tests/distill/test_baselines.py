"""Baselines on a ring of items, where the next item is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import pytest

from edgerec.benchmarks.evaluate import evaluate, table
from edgerec.data import load
from edgerec.distill.baselines import EASE, Blend, ItemKNN, PersonalFrequency, Popularity, Profile, baselines, tfidf
from edgerec.errors import DataError, UsageError
from edgerec.interactions import Ragged, Requests, Split
from edgerec.metrics import rank
from edgerec.splits import split


@pytest.fixture
def ring(cycle: Path) -> Split:
    return split(load(str(cycle)))


def ask(*history: int) -> Requests:
    return Requests(np.zeros(1, np.int32), Ragged.from_lists([history]), Ragged.from_lists([[0]]))


def test_item_knn_prefers_the_neighbours_of_the_newest_event(ring: Split) -> None:
    assert set(rank(ItemKNN(ring, 1, 0.1), ask(9, 5), 2, True)[0]) == {4, 6}


def test_item_knn_window_bounds_what_counts_as_together(ring: Split) -> None:
    similarity = ItemKNN(ring, window=2).similarity.toarray()
    assert similarity[0, 2] > 0
    assert similarity[0, 3] == 0
    assert similarity[0, 1] > similarity[0, 2]


def test_ease_matches_its_definition(ring: Split) -> None:
    model = EASE(ring, reg=2.0)
    x = np.zeros((len(ring.train), 12))
    for user in range(len(x)):
        x[user, ring.train[user]] = 1
    inverse = np.linalg.inv(x.T @ x + 2 * np.eye(12))
    expected = np.eye(12) - inverse / np.diag(inverse)
    assert model.weights == pytest.approx(expected, abs=1e-5)


def test_ease_above_its_limit_scores_the_most_popular_items_only(ring: Split) -> None:
    scores = EASE(ring, limit=5).score(ask(3, 4))
    assert np.count_nonzero(scores) <= 5


def test_popularity_and_personal_frequency_count(ring: Split) -> None:
    assert Popularity(ring).score(ask(1)).sum() == len(ring.train.values)
    assert rank(PersonalFrequency(ring), ask(3, 7, 7), 2, False)[0].tolist() == [7, 3]


def test_profile_ranks_by_text(ring: Split) -> None:
    vectors = tfidf(["red wine", "red wine glass", "garden hose"])
    assert rank(Profile(vectors), ask(0), 1, True)[0, 0] == 1
    dense = Profile(vectors.toarray()).score(ask(0))
    assert dense == pytest.approx(Profile(vectors).score(ask(0)))


def test_an_empty_history_scores_finite(ring: Split) -> None:
    for scorer in baselines(ring, [f"title {n}" for n in range(12)], np.eye(12, dtype=np.float32)).values():
        scores = scorer.score(ask())
        assert scores.shape == (1, 12)
        assert np.isfinite(scores).all()


def test_a_blend_of_one_is_its_first_part(ring: Split) -> None:
    knn, popularity = ItemKNN(ring), Popularity(ring)
    assert rank(Blend(knn, popularity, 1.0), ask(2, 3), 5, True).tolist() == rank(knn, ask(2, 3), 5, True).tolist()
    with pytest.raises(UsageError, match="expected 0 to 1"):
        Blend(knn, popularity, 1.5)


def test_the_table_marks_the_best_on_validation_and_pairs_the_rest_with_it(ring: Split) -> None:
    rows, _ = evaluate({"popularity": Popularity(ring), "ItemKNN": ItemKNN(ring)}, ring)
    assert [row["best_on_validation"] for row in rows] == [False, True]
    assert rows[0]["ndcg_minus_best"]["high"] < 0
    assert "best on validation" in table(rows)


def test_a_catalogue_without_a_word_is_refused_in_one_line() -> None:
    with pytest.raises(DataError, match="none of the 2 item texts holds a word"):
        tfidf(["!!", "..."])
