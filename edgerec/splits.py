"""Dividing a log in time: ``leave-one-out`` per user, or ``temporal`` with one global cut.

Where repeat purchases are common, one event of a basket has no order: the last *basket* (all events of a user's last
timestamp) is held out, and histories are not masked. Elsewhere the last event is, ties in file order, as the literature
does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgerec.errors import DataError, UsageError
from edgerec.interactions import Dataset, IntArray, Ragged, Requests, Split

SPLITS = ("leave-one-out", "temporal")
TEMPORAL_CUTS = (0.8, 0.9)  # shares of all events before validation and before test


def split(data: Dataset, kind: str = "leave-one-out") -> Split:
    """Divide a data set.

    Args:
        data: The log; events sorted by user and time.
        kind: One of ``SPLITS``.

    Raises:
        UsageError: Unknown kind, or a temporal split of a log without a clock.
        DataError: No user can be scored.
    """
    if kind not in SPLITS:
        raise UsageError(f"unknown split {kind!r}; expected one of {', '.join(SPLITS)}")
    if kind == "temporal" and not data.real_time:
        raise UsageError("a temporal split needs timestamps; this log has positions only: use leave-one-out")
    bounds = np.searchsorted(data.users, np.arange(len(data.user_ids) + 1))
    units = step_numbers(data)
    if kind == "leave-one-out":
        cuts = leave_one_out_cuts(bounds, units)
    else:
        cuts = temporal_cuts(bounds, units, data.timestamps)
    trained = np.arange(len(data.users)) < cuts[data.users, 0]
    lengths = np.bincount(data.users[trained], minlength=len(data.user_ids))
    train = Ragged(data.items[trained], np.concatenate([[0], np.cumsum(lengths)]))
    validation = requests(data.items, bounds, cuts[:, 0], cuts[:, 1])
    test = requests(data.items, bounds, cuts[:, 2], cuts[:, 3])
    if not len(validation) or not len(test):
        raise DataError(
            f"the {kind} split leaves {len(validation)} users for validation and {len(test)} for test; "
            f"each user needs at least three events, and at least one user is needed"
        )
    warm = np.zeros(len(data.item_ids), dtype=np.bool_)
    warm[train.values] = True
    return Split(
        kind,
        len(data.item_ids),
        train,
        units[trained].astype(np.int32),
        warm,
        validation,
        test,
        mask_seen=not data.repeats,
    )


def step_numbers(data: Dataset) -> NDArray[np.int64]:
    """Number the steps of the log: one per event, or one per basket (user and timestamp) in repeat-purchase sets."""
    if not data.repeats:
        return np.arange(len(data.users))
    new = np.ones(len(data.users), dtype=np.int64)
    new[1:] = (np.diff(data.users) != 0) | (np.diff(data.timestamps) != 0)
    return np.cumsum(new)


def leave_one_out_cuts(bounds: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return per user where validation and test start and end, int64 [users, 4]; a short history is all train."""
    cuts = np.repeat(bounds[1:, None], 4, axis=1)
    for user, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        test = start + np.searchsorted(steps[start:end], steps[end - 1])
        if test > start:
            validation = start + np.searchsorted(steps[start:end], steps[test - 1])
            if validation > start:
                cuts[user] = validation, test, test, end
    return cuts


def temporal_cuts(bounds: NDArray[np.int64], steps: NDArray[np.int64], times: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the same for one global cut: a user's first step at or after it is the target, the rest its history."""
    moments = np.quantile(times, TEMPORAL_CUTS, method="higher")
    cuts = np.empty((len(bounds) - 1, 4), dtype=np.int64)
    for user, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        for column, moment, limit in ((0, moments[0], moments[1]), (2, moments[1], np.inf)):
            first = start + np.searchsorted(times[start:end], moment)
            inside = start < first < end and times[first] < limit
            last = start + np.searchsorted(steps[start:end], steps[first], side="right") if inside else first
            cuts[user, column : column + 2] = first, last
    return cuts


def requests(items: IntArray, bounds: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]) -> Requests:
    """Return one request per user whose target range is not empty: the history before it, the distinct items in it."""
    users = np.flatnonzero(last > first).astype(np.int32)
    histories = Ragged.from_lists([items[bounds[u] : first[u]] for u in users])
    targets = Ragged.from_lists([np.unique(items[first[u] : last[u]]) for u in users])
    return Requests(users, histories, targets)
