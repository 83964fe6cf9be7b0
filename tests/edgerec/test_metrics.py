"""The metrics equal ranx and pytrec_eval on the same run, and their edges are right."""

from __future__ import annotations

import numpy as np
import pytrec_eval
import ranx

import pytest

from edgerec.errors import UsageError
from edgerec.interactions import FloatArray, IntArray, Ragged, Requests
from edgerec.metrics import bootstrap, cold_hr, coverage, paired_bootstrap, per_user, rank, to_qrels, to_trec, top_k

N_ITEMS = 60


class Fixed:
    """Scores given in advance."""

    def __init__(self, scores: FloatArray) -> None:
        self.scores = scores

    def score(self, requests: Requests) -> FloatArray:
        return self.scores[requests.users].copy()


@pytest.fixture
def requests() -> Requests:
    rng = np.random.default_rng(0)
    histories = [rng.choice(20, rng.integers(0, 9), replace=False) for _ in range(50)]
    targets = [20 + rng.choice(40, rng.integers(1, 15), replace=False) for _ in range(50)]
    return Requests(np.arange(50, dtype=np.int32), Ragged.from_lists(histories), Ragged.from_lists(targets))


@pytest.fixture
def ranked(requests: Requests) -> IntArray:
    scores = np.random.default_rng(1).normal(size=(50, N_ITEMS)).astype(np.float32)
    return rank(Fixed(scores), requests, 20, mask_seen=True)


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_metrics_equal_ranx(ranked: IntArray, requests: Requests, k: int) -> None:
    qrels = ranx.Qrels({str(u): {str(i): 1 for i in requests.targets[u]} for u in range(50)})
    run = ranx.Run({str(u): {str(i): float(20 - n) for n, i in enumerate(ranked[u])} for u in range(50)})
    expected = ranx.evaluate(qrels, run, [f"hit_rate@{k}", f"ndcg@{k}", f"mrr@{k}"])
    ours = per_user(ranked, requests.targets, k)
    for name, theirs in (("hr", "hit_rate"), ("ndcg", "ndcg"), ("mrr", "mrr")):
        assert ours[name].mean() == pytest.approx(expected[f"{theirs}@{k}"], abs=1e-9)


def test_metrics_and_trec_files_equal_pytrec_eval(ranked: IntArray, requests: Requests) -> None:
    qrels = pytrec_eval.parse_qrel(to_qrels(requests, str, str).splitlines())
    run = pytrec_eval.parse_run(to_trec(ranked, requests.users, str, str, "ours").splitlines())
    result = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10", "success_10"}).evaluate(run)
    ours = per_user(ranked, requests.targets, 10)
    for user in range(50):
        assert ours["ndcg"][user] == pytest.approx(result[str(user)]["ndcg_cut_10"], abs=1e-9)
        assert ours["hr"][user] == result[str(user)]["success_10"]


def test_seen_items_are_never_ranked_when_masked(ranked: IntArray, requests: Requests) -> None:
    for user in range(50):
        assert not set(ranked[user]) & set(requests.histories[user])


def test_ties_go_to_the_lower_row_and_masked_rows_are_left_out() -> None:
    scores = np.array([[1, 2, 2, 1, 2], [0, -np.inf, 0, -np.inf, -np.inf]], dtype=np.float32)
    assert top_k(scores, 4).tolist() == [[1, 2, 4, 0], [0, 2, -1, -1]]


def test_k_above_the_catalogue_pads_with_minus_one(requests: Requests) -> None:
    lists = rank(Fixed(np.ones((50, N_ITEMS), np.float32)), requests, 100, mask_seen=False)
    assert lists.shape == (50, 100)
    assert lists[0, :60].tolist() == list(range(60))
    assert (lists[:, 60:] == -1).all()


def test_k_below_one_is_refused(requests: Requests) -> None:
    with pytest.raises(UsageError, match="k = 0"):
        rank(Fixed(np.ones((50, N_ITEMS), np.float32)), requests, 0, mask_seen=False)


def test_cold_hr_counts_cold_targets_only() -> None:
    targets = Ragged.from_lists([[0, 5], [1], [6]])
    lists = np.array([[0, 1], [1, 2], [6, 0]], dtype=np.int32)
    warm = np.arange(8) < 5
    assert cold_hr(lists, targets, warm, 2) == (0.5, 2)
    assert cold_hr(lists, targets, np.ones(8, dtype=np.bool_), 2) == (None, 0)


def test_coverage_counts_distinct_items() -> None:
    assert coverage(np.array([[0, 1], [1, -1]], dtype=np.int32), 4) == 0.5


def test_bootstrap_interval_has_the_width_theory_gives() -> None:
    values = np.random.default_rng(2).normal(0, 1, 2000)
    low, high = bootstrap(values)
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(2000), rel=0.15)
    assert low < values.mean() < high


def test_paired_bootstrap_sees_a_small_constant_gain_that_separate_intervals_hide() -> None:
    values = np.random.default_rng(3).normal(0, 1, 500)
    gap = paired_bootstrap(values + 0.01, values)
    assert gap["low"] == pytest.approx(0.01)
    with pytest.raises(UsageError, match="same users"):
        paired_bootstrap(values, values[:-1])
