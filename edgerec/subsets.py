"""Parts of a log over the same catalogue: some of its users, or what had happened by some moment.

Rows stay what they were, those of users without events included, so that a model of a part can be asked about the
whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgerec.errors import UsageError
from edgerec.interactions import Dataset


def some_users(data: Dataset, share: float, seed: int = 0) -> Dataset:
    """Return a data set with the events of a random share of the users.

    Raises:
        UsageError: The share keeps nobody, or everybody.
    """
    count = round(share * len(data.user_ids))
    if not 0 < count < len(data.user_ids):
        raise UsageError(f"a share of {share} keeps {count} of {len(data.user_ids)} users; expected some, not all")
    kept = np.random.default_rng(seed).permutation(len(data.user_ids))[:count]
    return part(data, np.isin(data.users, kept), f"{count}-users-{seed}")


def until(data: Dataset, moment: float) -> Dataset:
    """Return a data set with the events before a moment.

    Raises:
        UsageError: There are none, or no others.
    """
    before = data.timestamps < moment
    if before.all() or not before.any():
        raise UsageError(f"{before.sum()} of {len(before)} events come before {moment}; expected some, not all")
    return part(data, before, f"until-{moment:.0f}")


def part(data: Dataset, kept: NDArray[np.bool_], name: str) -> Dataset:
    """Return a data set with the events of a bool [E] mask; its fingerprint tells the part, which ``name`` does not."""
    digest = hashlib.sha256(data.fingerprint.encode())
    digest.update(np.packbits(kept).tobytes())
    return replace(
        data,
        name=f"{data.name}-{name}",
        users=data.users[kept],
        items=data.items[kept],
        timestamps=data.timestamps[kept],
        weights=data.weights[kept],
        fingerprint=digest.hexdigest(),
    )
