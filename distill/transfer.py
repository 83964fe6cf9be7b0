"""Starting from another teacher: yesterday's, when a day of log has come, or that of another catalogue.

The text encoder, the projection and the numbers of the user tower are taken over, so that text parts and residuals
live in the same coordinates. An item with the same id and the same text keeps its vectors and its bias. Beside such
items a new one starts as the cold item that it was: at first, the towers score as the other teacher would.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgerec.distill.checkpoint import Checkpoint
from edgerec.distill.towers import ColdMap, TowerConfig, Towers
from edgerec.interactions import Dataset, FloatArray, Split

USER_TOWER = ("decay_logits", "mix", "log_scale", "repeat_logits", "repeat_weights")
OF_ITEMS = ("residual_in", "residual_out", "bias")


def matching(init: Checkpoint, data: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the items with the same id and text, in ``data`` and in ``init``, int64 [m] each."""
    rows = {pair: row for row, pair in enumerate(zip(init.ids, init.texts, strict=True))}
    pairs = list(zip(data.item_ids, data.texts, strict=True))
    new = [row for row, pair in enumerate(pairs) if pair in rows]
    return np.array(new, dtype=np.int64), np.array([rows[pairs[row]] for row in new], dtype=np.int64)


def describe(init: Checkpoint, data: Dataset) -> dict[str, Any]:
    """Say what a model was started from, for its report."""
    of = init.info["data"]
    kept = len(matching(init, data)[0])
    return {"data": of["name"], "fingerprint": of["fingerprint"], "items": len(data.item_ids), "items_kept": kept}


@torch.no_grad()
def started(init: Checkpoint, vectors: FloatArray, data: Dataset, split: Split, config: TowerConfig) -> Towers:
    """Return towers over a catalogue that start from another teacher's.

    Args:
        init: The other teacher.
        vectors: float32 [n_items, T], text vectors of ``init.encoder``.
        data: The catalogue.
        split: Says which items are warm; those that ``init`` learned stay so.
        config: That of ``init``, dropout and the repeat term aside.
    """
    source, (rows, old) = init.towers, matching(init, data)
    learned = source.warm[old].numpy()
    was_cold, cold_before = rows[~learned], old[~learned]
    rows, old = rows[learned], old[learned]
    warm = split.warm.copy()
    warm[rows] = True
    towers = Towers(vectors, warm, config, source.projection.numpy())
    for name in USER_TOWER:
        mine, given = getattr(towers, name), getattr(source, name)
        if mine is not None and given is not None:
            mine.copy_(given)
    if len(rows):
        start_cold(towers, source.cold_map())
        towers.bias[was_cold] += source.bias[cold_before]  # it was of the other's catalogue, and no new item there
        towers.text[rows] = source.text[old]  # equal but for rounding
        for name in OF_ITEMS:
            if getattr(towers, name) is not None:
                getattr(towers, name)[rows] = getattr(source, name)[old]
    return towers


def start_cold(towers: Towers, cold: ColdMap) -> None:
    """Give every item the vectors and the bias of a cold one."""
    towers.set_cold(cold)
    text = towers.text.numpy()
    item_in, item_out, bias = cold.apply(text)
    towers.residual_in.copy_(torch.from_numpy(item_in - text))
    if towers.residual_out is not None:
        towers.residual_out.copy_(torch.from_numpy(item_out - text))
    towers.bias.copy_(torch.from_numpy(bias) * towers.warm)  # a cold item's bias comes on top of the map's
