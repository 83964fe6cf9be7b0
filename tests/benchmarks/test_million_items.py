"""What is compared on a million items finds what it must on a few."""

from __future__ import annotations

import numpy as np

import pytest

from edgerec.benchmarks.environment import has_vnni
from edgerec.benchmarks.million_items import READ, D, best, compare, drawn, exact, integer, recall, table, two_limbs
from edgerec.runtime.layout import LIMB


@pytest.fixture(scope="module")
def items() -> np.ndarray:
    """Two thousand vectors."""
    return np.random.default_rng(0).normal(size=(2000, D)).astype(np.float32)


def test_the_integer_product_finds_the_ten_best_but_for_rounding(items: np.ndarray) -> None:
    queries = np.random.default_rng(1).normal(size=(20, D)).astype(np.float32)
    whole, rounded = exact(items), integer(items)
    shares = [len(set(whole.search(one)) & set(rounded.search(one))) / 10 for one in queries]
    assert np.mean(shares) > 0.95
    assert rounded.bytes == 2000 * (D + 4) and whole.bytes == 2000 * D * 4


def test_two_limbs_sum_up_to_the_query() -> None:
    query = np.random.default_rng(2).normal(size=D).astype(np.float32)
    steps, limbs = two_limbs(query)
    assert limbs.min() >= 1 and limbs.max() <= 2 * LIMB + 1
    np.testing.assert_allclose(steps @ (limbs.astype(np.float32) - LIMB - 1), query[None], atol=1e-3)


def test_rescoring_everything_loses_nothing_but_rounding_and_fewer_lose_more(items: np.ndarray) -> None:
    rows = {row["name"]: row for row in compare(items, items[:5], 2, 0)}
    assert rows["fp32"]["recall10"] == 1
    assert rows[READ]["recall10"] is None and rows[READ]["bytes"] == 2000 * D
    assert rows["binary + rescoring 10,000"]["recall10"] > 0.9 >= rows["binary + rescoring 100"]["recall10"]
    assert rows["INT8, exact"]["latency"]["n"] == 2
    result = {"rows": list(rows.values()), "items": 2000, "threads": 1}
    printed = table({**result, "environment": {"load_average": [1.5], "cpu": "a CPU"}})
    assert "load average 1.5, a CPU" in printed and printed.count("\n| ") == len(rows) + 1


def test_best_is_in_order_and_recall_counts_what_was_found() -> None:
    assert best(np.float32([1, 5, 3, 4, 2]), 3).tolist() == [1, 3, 2]
    assert recall([np.int64([1, 2]), np.int64([5, 6])], [{1, 2}, {6, 7}]) == 0.75


def test_a_catalogue_is_drawn_around_what_is_there_and_again_with_its_seed() -> None:
    centres = np.float32([[0, 0], [100, 0]])
    one, same, other = (drawn(centres, 500, 0.01, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert set(np.round(one[:, 0] / 100).tolist()) == {0, 1}
    assert not one[:, 1].any()  # a dimension without deviation has no noise


@pytest.mark.parametrize(
    ("text", "known"),
    [("flags\t: fpu avx2 avx512_vnni", True), ("Features\t: fp asimddp", True), ("flags\t: avx2", False), (None, None)],
)
def test_whether_a_cpu_has_exact_byte_products_may_be_unknown(text: str | None, known: bool | None) -> None:
    assert has_vnni(text) is known
