"""The artificial cold split: items that nobody has seen, taken out of the log *and* the catalogue.

What is trained on the rest cannot know them. They come back as a device meets new items: by their text. A request is
a user's training history, its targets are all hidden items that the user ever took, so that every user counts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from edgerec.errors import UsageError
from edgerec.interactions import Dataset, IntArray, Ragged, Requests, Split


@dataclass(frozen=True)
class ColdSplit:
    """``data`` without the hidden items, and the hidden ones: their rows come after those of ``data``.

    ``users`` and ``items`` are int32 [E], the events that were hidden, items counted from ``len(data.item_ids)``.
    """

    data: Dataset
    ids: list[str]
    texts: list[str]
    users: IntArray
    items: IntArray

    def requests(self, split: Split) -> Requests:
        """Return one request per user with a training history in ``split`` (of ``data``) and a hidden item."""
        order = np.argsort(self.users, kind="stable")
        bounds = np.searchsorted(self.users[order], np.arange(len(split.train) + 1))
        users = np.flatnonzero((np.diff(bounds) > 0) & (split.train.lengths > 0)).astype(np.int32)
        taken = self.items[order]
        targets = Ragged.from_lists([np.unique(taken[bounds[user] : bounds[user + 1]]) for user in users])
        return Requests(users, split.train.take(users), targets)


def hide_items(data: Dataset, share: float = 0.1, seed: int = 0) -> ColdSplit:
    """Take a random share of the items out of a data set.

    Raises:
        UsageError: The share leaves nothing to train on, or hides nothing.
    """
    count = round(share * len(data.item_ids))
    if not 0 < count < len(data.item_ids):
        raise UsageError(f"a share of {share} hides {count} of {len(data.item_ids)} items; expected some, not all")
    hidden = np.zeros(len(data.item_ids), dtype=np.bool_)
    hidden[np.random.default_rng(seed).permutation(len(hidden))[:count]] = True
    rows = np.where(hidden, np.cumsum(hidden) - 1 + len(hidden) - count, np.cumsum(~hidden) - 1).astype(np.int32)
    kept, gone = ~hidden[data.items], hidden[data.items]
    known, unknown = np.flatnonzero(~hidden).tolist(), np.flatnonzero(hidden).tolist()
    ids = [data.item_ids[row] for row in unknown]
    rest = replace(
        data,
        name=f"{data.name}-cold-{seed}",
        item_ids=[data.item_ids[row] for row in known],
        titles=[data.titles[row] for row in known],
        texts=[data.texts[row] for row in known],
        columns={name: [values[row] for row in known] for name, values in data.columns.items()},
        users=data.users[kept],
        items=rows[data.items[kept]],
        timestamps=data.timestamps[kept],
        weights=data.weights[kept],
        fingerprint=hashlib.sha256("\0".join([data.fingerprint, *ids]).encode()).hexdigest(),
    )
    return ColdSplit(rest, ids, [data.texts[row] for row in unknown], data.users[gone], rows[data.items[gone]])
