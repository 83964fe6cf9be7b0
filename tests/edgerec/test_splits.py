"""Dividing a log in time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

import pytest

from edgerec.data import Columns, load
from edgerec.errors import DataError, UsageError
from edgerec.splits import split

ITEMS = "item_id,title\n" + "\n".join(f"{name},{name}" for name in "abcdef")


def test_leave_one_out_holds_out_the_last_two_events(cycle: Path) -> None:
    divided = split(load(str(cycle)))
    assert divided.train[0].tolist() == [0, 1, 2, 3]
    assert divided.validation.histories[0].tolist() == [0, 1, 2, 3]
    assert divided.validation.targets[0].tolist() == [4]
    assert divided.test.histories[0].tolist() == [0, 1, 2, 3, 4]
    assert divided.test.targets[0].tolist() == [5]
    assert divided.mask_seen


def test_repeat_purchases_hold_out_the_last_basket_as_a_set(folder: Callable[..., Path]) -> None:
    baskets = ["a1", "b1", "c2", "d2", "a3", "e3", "f3"]
    log = "user_id,item_id,timestamp\n" + "\n".join(f"u,{event[0]},{event[1]}" for event in baskets)
    divided = split(load(str(folder(log, ITEMS)), Columns(repeats=True)))
    assert divided.train[0].tolist() == [0, 1]
    assert divided.validation.targets[0].tolist() == [2, 3]
    assert divided.test.histories[0].tolist() == [0, 1, 2, 3]
    assert divided.test.targets[0].tolist() == [0, 4, 5]
    assert not divided.mask_seen
    assert divided.warm.tolist() == [True, True, False, False, False, False]


def test_temporal_split_never_lets_a_model_see_what_came_later(cycle: Path) -> None:
    data = load(str(cycle))
    divided = split(data, "temporal")
    cut = np.quantile(data.timestamps, 0.8, method="higher")
    seen = sum(int((data.timestamps[data.users == u] < cut).sum()) for u in range(len(data.user_ids)))
    assert len(divided.train.values) == seen
    assert len(divided.test) == 40


def test_temporal_split_needs_a_clock(folder: Callable[..., Path]) -> None:
    log = "user_id,item_id\n" + "\n".join(f"u,{name}" for name in "abcdef")
    with pytest.raises(UsageError, match="use leave-one-out"):
        split(load(str(folder(log, ITEMS))), "temporal")


def test_a_log_too_short_to_score_is_refused(folder: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="at least three events"):
        split(load(str(folder("user_id,item_id\nu,a\nu,b\n", ITEMS))))


def test_one_user_is_enough(folder: Callable[..., Path]) -> None:
    assert len(split(load(str(folder("user_id,item_id\nu,a\nu,b\nu,c\n", ITEMS)))).test) == 1
