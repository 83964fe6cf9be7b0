"""Cold items: from a text part to the vectors and the bias that the log would have taught.

A warm item's residual and bias can be foretold from its text in part. The cold map is the ridge regression of both on
the text part over warm items (attribute-to-factor map; Gantner et al. 2010), shrunk towards the text part as it is.

The texts of a catalogue have a direction in common, and so have its users; along it, a score says how common an item's
text is, not whom it suits. A share of what the mean user gives an item is taken out of a new item's score: what is left
compares users (after the common direction of word vectors; Mu & Viswanath 2018, arXiv:1702.01417). That is affine in
the text part too, and goes into the map's bias.

How much is shrunk and taken out is chosen by playing new items: a tenth of the warm items gets its vectors from the map
that the others give. Nothing is taken out unless that is shown to be better.

A lift in nats is what cold items gain on warm ones (calibrated stacking; Chao et al. 2016), and there are two. An item
that comes after training is *new*: it gets the places of an average item, and more where that costs the known ones
little. An item that was in the catalogue while the log was written, and that nobody took, is not: it gets what costs
validation next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerec.distill.towers import ColdMap, TowerArrays, Towers
from edgerec.interactions import FloatArray, Ragged, Requests, Split
from edgerec.metrics import Scorer, cold_hr, ndcg, rank, top_k

Rows = NDArray[np.int64]
Choice = tuple[float, float]  # a ridge, and a share of the mean user

CENTRES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the mean user, what is taken out of a new item's score
SHOWN = 2.0  # standard errors, paired over requests
RIDGES = (0.1, 1.0, 10.0, 100.0)  # relative to the mean variance of a coordinate of the text part
LIFTS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # of a cold item's score, in nats
FARTHEST, FINEST = 8.0, 0.05  # a lift that no item needs more than, and how near one is looked for
NEW_SHARE = 0.1  # of the warm items, that play new ones
ALLOWANCE = 0.03  # of validation NDCG@10: what lifting so many new items may cost
NATURAL_ALLOWANCE = 0.01  # what lifting the catalogue's own cold items may cost
MOST_REQUESTS = 1000  # that a choice is made on


def calibrate_cold(towers: Towers, split: Split, seed: int = 0) -> dict[str, Any]:
    """Set the cold map of trained towers.

    Returns:
        The ridge, the share of the mean user and the lifts that were chosen, NDCG@10 of played new items among
        themselves (None where no user took one), and cold HR@10 on validation (None without cold targets).
    """
    arrays = towers.eval().arrays()
    counts = np.bincount(split.train.values, minlength=split.n_items)
    cold, order = np.flatnonzero(~split.warm), np.random.default_rng(seed).permutation(np.flatnonzero(split.warm))
    cut = round(NEW_SHARE * len(order))
    new, known = order[:cut], order[cut:]
    requests, validation = (
        one.sample(MOST_REQUESTS, seed) for one in (new_item_requests(split, new), split.validation)
    )

    mean_user = arrays.users(validation).mean(axis=0)

    def mapped(rows: Rows, ridge: float, share: float) -> ColdMap:
        return centred(fit_map(arrays, rows, counts, ridge), share * mean_user)

    def places(cold_map: ColdMap, lift: float) -> float:
        ranked = rank(as_new(arrays, lifted(cold_map, lift), new), unseen, 10, split.mask_seen)
        return float(np.isin(ranked, new).sum() / max((ranked >= 0).sum(), 1))

    def highest_lift(cold_map: ColdMap, rows: Rows, allowance: float) -> float:
        found = [quality(as_new(arrays, lifted(cold_map, lift), rows), validation, split.mask_seen) for lift in LIFTS]
        return max(lift for lift, one in zip(LIFTS, found, strict=True) if one >= (1 - allowance) * max(found))

    choices = [(ridge, share) for ridge in RIDGES for share in CENTRES] if len(requests) else []
    judged = {choice: among_new(arrays, mapped(known, *choice), new, requests) for choice in choices}
    best = most_shown(judged) if judged else (RIDGES[-1], CENTRES[0])
    chosen, lift, old_lift = mapped(order, *best), 0.0, 0.0
    if judged:
        played, unseen = mapped(known, *best), without(validation, new, split.n_items)
        fair = lowest(lambda one: places(played, one) >= len(new) / split.n_items)
        lift = max(fair, highest_lift(played, new, ALLOWANCE))
        old_lift = min(lift, highest_lift(chosen, cold, NATURAL_ALLOWANCE))
    towers.set_cold(lifted(chosen, lift), old_lift - lift)
    ranked = rank(towers, split.validation, 10, split.mask_seen)
    cold_hits, _ = cold_hr(ranked, split.validation.targets, split.warm, 10)
    found = {"ridge": best[0], "centre": best[1], "lift": lift, "old_lift": old_lift}
    among = float(judged[best].mean()) if judged else None
    return {**found, "new_items_ndcg10": among, "validation_cold_hr10": cold_hits}


def fit_map(arrays: TowerArrays, rows: Rows, counts: NDArray[np.int64], ridge: float) -> ColdMap:
    """Fit residuals and biases from text parts by ridge regression around the means.

    Args:
        arrays: Trained.
        rows: int64 [m], the items to fit to, each weighted by the root of its count.
        counts: int64 [n_items], training events.
        ridge: Relative to the mean variance of a coordinate.
    """
    text, weights = arrays.text[rows].astype(np.float64), np.sqrt(np.maximum(counts[rows], 1))[:, None]
    goal = np.hstack([arrays.item_in[rows] - text, arrays.item_out[rows] - text, arrays.bias[rows, None]])
    mean, centre = ((weights * values).sum(0) / weights.sum() for values in (text, goal))
    spread = text - mean
    gram = spread.T @ (weights * spread)
    gram[np.diag_indices_from(gram)] += ridge * max(float(gram.diagonal().mean()), 1e-12)
    slope = np.linalg.solve(gram, spread.T @ (weights * (goal - centre)))
    size = text.shape[1]
    affine = np.vstack([slope, centre - mean @ slope])
    identity = np.vstack([np.eye(size), np.zeros(size)])
    item_in, item_out = (identity + part for part in np.hsplit(affine[:, :-1], 2))
    return ColdMap(*(part.astype(np.float32) for part in (item_in, item_out, affine[:, -1])))


def lowest(reached: Callable[[float], bool]) -> float:
    """Return the lowest lift at which a condition holds that holds from some lift on, or the farthest one."""
    low, high = -FARTHEST, FARTHEST
    while high - low > FINEST:
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def centred(cold_map: ColdMap, user: FloatArray) -> ColdMap:
    """Return the map whose items score nothing for a user vector float32 [d], but for what their biases are."""
    return cold_map._replace(bias=cold_map.bias - cold_map.item_out @ user)


def lifted(cold_map: ColdMap, lift: float) -> ColdMap:
    """Return the map with so much more bias."""
    bias = cold_map.bias.copy()
    bias[-1] += lift
    return cold_map._replace(bias=bias)


def as_new(arrays: TowerArrays, cold_map: ColdMap, rows: Rows) -> TowerArrays:
    """Return towers in which the items at ``rows`` have what the map makes of their text parts."""
    item_in, item_out, bias = (array.copy() for array in (arrays.item_in, arrays.item_out, arrays.bias))
    item_in[rows], item_out[rows], bias[rows] = cold_map.apply(arrays.text[rows])
    return replace(arrays, item_in=item_in, item_out=item_in if arrays.shared else item_out, bias=bias)


def most_shown(judged: Mapping[Choice, NDArray[np.float64]]) -> Choice:
    """Return the best ridge and share; a share above 0 must be better than the best without by ``SHOWN`` errors.

    Args:
        judged: Ridge and share -> NDCG@10 per request, float64 [R].
    """
    best = max(judged, key=lambda one: judged[one].mean())
    plain = max((one for one in judged if one[1] == 0), key=lambda one: judged[one].mean())
    gain = judged[best] - judged[plain]
    return best if gain.mean() > SHOWN * gain.std() / np.sqrt(len(gain)) else plain


def among_new(arrays: TowerArrays, cold_map: ColdMap, rows: Rows, requests: Requests) -> NDArray[np.float64]:
    """Return NDCG@10 of each request, float64 [R], ranking the items at ``rows`` as the map makes them.

    No history may hold one of them.
    """
    _, item_out, bias = cold_map.apply(arrays.text[rows])
    top = top_k(arrays.users(requests) @ item_out.T + bias, 10)
    ranked = np.full((len(requests), 10), -1, np.int32)
    ranked[:, : top.shape[1]] = np.where(top >= 0, rows[top], -1)
    return ndcg(ranked, requests, 10)


def new_item_requests(split: Split, new: Rows) -> Requests:
    """Return a request per user who took some of the new items: the rest of the training history, and those."""
    is_new = np.zeros(split.n_items, np.bool_)
    is_new[new] = True
    pairs = [
        (events[~is_new[events]], np.unique(events[is_new[events]]))
        for events in map(split.train.__getitem__, range(len(split.train)))
    ]
    users = [user for user, (rest, taken) in enumerate(pairs) if len(rest) and len(taken)]
    histories, targets = (Ragged.from_lists([pairs[user][side] for user in users]) for side in (0, 1))
    return Requests(np.array(users, np.int32), histories, targets)


def without(requests: Requests, rows: Rows, n_items: int) -> Requests:
    """Return requests whose histories lack the items at ``rows``: nobody has taken a new item yet."""
    kept = np.ones(n_items, np.bool_)
    kept[rows] = False
    histories = [events[kept[events]] for events in map(requests.histories.__getitem__, range(len(requests)))]
    return replace(requests, histories=Ragged.from_lists(histories))


def quality(scorer: Scorer, requests: Requests, mask_seen: bool) -> float:
    """Return mean NDCG@10."""
    return float(ndcg(rank(scorer, requests, 10, mask_seen), requests, 10).mean())
