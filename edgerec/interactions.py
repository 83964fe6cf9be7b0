"""The arrays that pass between stages: a data set, its split, and the requests that are scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Ragged:
    """Lists of item rows of different lengths, in one flat array.

    ``values[offsets[i]:offsets[i + 1]]`` is list ``i``; ``values`` is int32 [total], ``offsets`` int64 [n + 1].
    """

    values: IntArray
    offsets: NDArray[np.int64]

    @classmethod
    def from_lists(cls, lists: Iterable[Sequence[int] | IntArray]) -> Ragged:
        """Concatenate lists of item rows."""
        arrays = [np.asarray(one, dtype=np.int32) for one in lists]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(one) for one in arrays], out=offsets[1:])
        return cls(np.concatenate(arrays) if arrays else np.empty(0, np.int32), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> IntArray:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of each list, int64 [n]."""
        return np.diff(self.offsets)

    def take(self, rows: NDArray[np.integer[Any]] | slice) -> Ragged:
        """Return the lists at ``rows``, in that order."""
        return Ragged.from_lists([self[int(row)] for row in np.arange(len(self))[rows]])


@dataclass(frozen=True)
class Requests:
    """What a model is asked and what was the answer: R histories and the target items that followed each.

    ``users`` is int32 [R] (rows of ``Dataset.user_ids``); histories are oldest first; targets hold distinct items.
    """

    users: IntArray
    histories: Ragged
    targets: Ragged

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: NDArray[np.integer[Any]] | slice) -> Requests:
        """Return the requests at ``rows``, in that order."""
        return Requests(self.users[rows], self.histories.take(rows), self.targets.take(rows))

    def sample(self, most: int, seed: int = 0) -> Requests:
        """Return at most so many of the requests, drawn at random, in their order."""
        return self.take(np.sort(np.random.default_rng(seed).permutation(len(self))[:most]))


@dataclass(frozen=True)
class Dataset:
    """A validated log and catalogue.

    Events are sorted by user, then time, then file order. ``users``, ``items`` are int32 [E] (rows of ``user_ids``,
    ``item_ids``), ``timestamps`` float64 [E] (seconds, or a position where the log has no clock), ``weights``
    float32 [E]. ``texts[i]`` is what a text encoder reads of item ``i``; ``titles[i]`` is what a person reads.
    """

    name: str
    user_ids: list[str]
    item_ids: list[str]
    titles: list[str]
    texts: list[str]
    users: IntArray
    items: IntArray
    timestamps: NDArray[np.float64]
    weights: FloatArray
    repeats: bool  # repeat purchases are common: histories are not masked, the last basket is held out
    real_time: bool  # timestamps are a clock, so that a temporal split means something
    fingerprint: str  # sha256 over ids, texts and events
    columns: dict[str, list[Any]] = field(default_factory=dict)  # name -> a number, string or list of strings per item
    report: dict[str, Any] = field(default_factory=dict)  # rows read, rows dropped and why


@dataclass(frozen=True)
class Split:
    """A data set divided in time. A model learns from ``train``, is chosen on ``validation``, reported on ``test``.

    ``train`` holds one history per user of the data set (empty for a user without training events), ``train_steps`` is
    int32 [total]: the number of the step that each of its events belongs to (a basket, or the event alone), and
    ``warm`` is bool [n_items]: seen in ``train``. A test history holds the validation events too.
    """

    name: str
    n_items: int
    train: Ragged
    train_steps: IntArray
    warm: NDArray[np.bool_]
    validation: Requests
    test: Requests
    mask_seen: bool  # whether the items of a history are left out of its ranking
