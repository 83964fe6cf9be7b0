"""Parts of a log keep the rows of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import pytest

from edgerec.data import load
from edgerec.errors import UsageError
from edgerec.splits import split
from edgerec.subsets import some_users, until


def test_some_users_keep_all_their_events_and_the_whole_catalogue(cycle: Path) -> None:
    data = load(str(cycle))
    few, again, others = some_users(data, 0.1), some_users(data, 0.1), some_users(data, 0.1, seed=1)
    kept = np.unique(few.users)
    assert len(kept) == 4 and few.item_ids == data.item_ids and few.user_ids == data.user_ids
    rows = np.isin(data.users, kept)
    assert few.items.tolist() == data.items[rows].tolist()
    assert few.timestamps.tolist() == data.timestamps[rows].tolist()
    assert few.fingerprint == again.fingerprint
    assert len({data.fingerprint, few.fingerprint, others.fingerprint}) == 3
    assert split(few).test.users.tolist() == kept.tolist()


def test_a_log_until_a_moment_holds_what_came_before_it(cycle: Path) -> None:
    data = load(str(cycle))
    before = until(data, 1_600_000_000 + 60 * 5)
    assert len(before.users) == 40 * 5 and before.timestamps.max() == 1_600_000_000 + 60 * 4
    assert split(before).test.targets.values.tolist() == split(data).validation.targets.values.tolist()
    assert before.fingerprint != data.fingerprint


def test_a_part_that_is_nothing_or_everything_is_refused(cycle: Path) -> None:
    data = load(str(cycle))
    for share in (0.001, 1.0):
        with pytest.raises(UsageError, match="of 40 users; expected some, not all"):
            some_users(data, share)
    for moment in (0.0, 2e9):
        with pytest.raises(UsageError, match="of 240 events"):
            until(data, moment)
