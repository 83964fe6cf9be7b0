"""Cold items: from a text part to the vectors and the bias that the log would have taught.

A warm item's residual and bias can be foretold from its text in part. The cold map is the ridge regression of both on
the text part over warm items (attribute-to-factor map; Gantner et al. 2010), shrunk towards the text part as it is.

The texts of a catalogue have a direction in common, and so have its users; along it, a score says how common an item's
text is, not whom it suits. A share of what the mean user gives an item is taken out of a new item's score: what is left
compares users (after the common direction of word vectors; Mu & Viswanath 2018, arXiv:1702.01417). That is affine in
the text part too, and goes into the map's bias.

How much is shrunk and taken out is chosen by playing new items: a tenth of the warm items gets its vectors from the map
that the others give. Something is taken out only where that is shown to be better among new items, and not to be worse
among all: along the common direction lies also who takes what is new.

A lift in nats is what cold items gain on warm ones (calibrated stacking; Chao et al. 2016), and there are two. An item
that comes after training is *new*: it gets the places of an average item, and more where that costs the known ones
little. An item that was in the catalogue while the log was written, and that nobody took, is not: it gets what costs
validation next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
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
    game = Game.of(towers.eval().arrays(), split, seed)
    choice, lift, old_lift, among = (RIDGES[-1], CENTRES[0]), 0.0, 0.0, None
    if len(game.requests):
        judged = {(ridge, share): game.among_new((ridge, share)) for ridge in RIDGES for share in CENTRES}
        choice, lift = game.best(judged)
        among = float(judged[choice].mean())
    chosen = game.centred(fit_map(game.arrays, game.warm, game.counts, choice[0]), choice[1], game.warm)
    if len(game.requests):
        old_lift = min(lift, game.highest_lift(chosen, np.flatnonzero(~split.warm), NATURAL_ALLOWANCE))
    towers.set_cold(lifted(chosen, lift), old_lift - lift)
    ranked = rank(towers, split.validation, 10, split.mask_seen)
    cold_hits, _ = cold_hr(ranked, split.validation.targets, split.warm, 10)
    found = {"ridge": choice[0], "centre": choice[1], "lift": lift, "old_lift": old_lift}
    return {**found, "new_items_ndcg10": among, "validation_cold_hr10": cold_hits}


@dataclass(frozen=True)
class Game:
    """Warm items that play new ones, and who is asked about them.

    Attributes:
        arrays: Trained.
        split: What they were trained on.
        counts: int64 [n_items], training events.
        new: Rows that play.
        known: The other warm rows.
        requests: Users who took some of the new items, which are their targets.
        validation: Some of the split's.
    """

    arrays: TowerArrays
    split: Split
    counts: NDArray[np.int64]
    new: Rows
    known: Rows
    requests: Requests
    validation: Requests

    @classmethod
    def of(cls, arrays: TowerArrays, split: Split, seed: int) -> Game:
        """Draw who plays."""
        counts = np.bincount(split.train.values, minlength=split.n_items)
        order = np.random.default_rng(seed).permutation(np.flatnonzero(split.warm))
        cut = round(NEW_SHARE * len(order))
        asked = new_item_requests(split, order[:cut]), split.validation
        return cls(arrays, split, counts, order[:cut], order[cut:], *(one.sample(MOST_REQUESTS, seed) for one in asked))

    @property
    def warm(self) -> Rows:
        """All rows that the log has taught."""
        return np.concatenate([self.new, self.known])

    @cached_property
    def users(self) -> FloatArray:
        """The vectors of those who are asked about new items, float32 [R, d]: no history holds one, so they stay."""
        return self.arrays.users(self.requests)

    @cached_property
    def mean_user(self) -> FloatArray:
        """The mean of the users of the split, float32 [d]."""
        return self.arrays.users(self.validation).mean(axis=0)

    @cached_property
    def fitted(self) -> dict[float, ColdMap]:
        """Ridge -> what the known rows foretell, before anything is taken out."""
        return {ridge: fit_map(self.arrays, self.known, self.counts, ridge) for ridge in RIDGES}

    def centred(self, cold_map: ColdMap, share: float, rows: Rows) -> ColdMap:
        """Return a map without a share of the mean user."""
        return centred(cold_map, share * self.mean_user, self.arrays.text[rows])

    def played(self, choice: Choice) -> ColdMap:
        """Return the map that the known rows give for the new ones."""
        return self.centred(self.fitted[choice[0]], choice[1], self.known)

    def among_new(self, choice: Choice) -> NDArray[np.float64]:
        """Return NDCG@10 of each request, float64 [R], the new items ranked among themselves."""
        return among_new(self.users, self.played(choice), self.arrays.text, self.new, self.requests)

    def among_all(self, choice: Choice, lift: float) -> NDArray[np.float64]:
        """Return NDCG@10 of each request, float64 [R], the new items ranked among all."""
        played = as_new(self.arrays, lifted(self.played(choice), lift), self.new)
        return ndcg(rank(played, self.requests, 10, self.split.mask_seen), self.requests, 10)

    def lift(self, choice: Choice) -> float:
        """Return what gives new items the places of average ones, or more where that costs the known ones little."""
        cold_map, unseen = self.played(choice), without(self.validation, self.new, self.split.n_items)

        def places(lift: float) -> float:
            ranked = rank(as_new(self.arrays, lifted(cold_map, lift), self.new), unseen, 10, self.split.mask_seen)
            return float(np.isin(ranked, self.new).sum() / max((ranked >= 0).sum(), 1))

        fair = lowest(lambda one: places(one) >= len(self.new) / self.split.n_items)
        return max(fair, self.highest_lift(cold_map, self.new, ALLOWANCE))

    def highest_lift(self, cold_map: ColdMap, rows: Rows, allowance: float) -> float:
        """Return the highest lift of some rows that costs no more than a share of NDCG@10 on validation."""
        played = {lift: as_new(self.arrays, lifted(cold_map, lift), rows) for lift in LIFTS}
        found = {lift: quality(one, self.validation, self.split.mask_seen) for lift, one in played.items()}
        return max(lift for lift, one in found.items() if one >= (1 - allowance) * max(found.values()))

    def best(self, judged: Mapping[Choice, NDArray[np.float64]]) -> tuple[Choice, float]:
        """Return the best ridge and share, and its lift.

        A share above 0 must be shown to be better among new items than the best without, and not worse among all.

        Args:
            judged: What ``among_new`` says of every ridge and share.
        """
        best = max(judged, key=lambda one: judged[one].mean())
        plain = max((one for one in judged if one[1] == CENTRES[0]), key=lambda one: judged[one].mean())
        lift = self.lift(plain)
        if errors(judged[best] - judged[plain]) > SHOWN:
            higher = self.lift(best)
            if errors(self.among_all(best, higher) - self.among_all(plain, lift)) > -SHOWN:
                return best, higher
        return plain, lift


def errors(gain: NDArray[np.float64]) -> float:
    """Return how many standard errors a mean is above 0."""
    return float(gain.mean() / max(gain.std() / np.sqrt(len(gain)), 1e-12))


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


def centred(cold_map: ColdMap, user: FloatArray, text: FloatArray) -> ColdMap:
    """Return the map whose items score for a user vector float32 [d] what the average of some does, biases aside.

    Args:
        cold_map: A map.
        user: What is taken out.
        text: float32 [n, d], text parts of the items that are averaged over.
    """
    taken = cold_map.item_out @ user
    taken[-1] -= float((text @ taken[:-1] + taken[-1]).mean())  # the bias stays where it was on average
    return cold_map._replace(bias=cold_map.bias - taken)


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


def among_new(
    users: FloatArray, cold_map: ColdMap, text: FloatArray, rows: Rows, requests: Requests
) -> NDArray[np.float64]:
    """Return NDCG@10 of each request, float64 [R], ranking the items at ``rows`` as the map makes them.

    Args:
        users: float32 [R, d], the vectors of the requests' users.
        cold_map: A map.
        text: float32 [n_items, d], text parts.
        rows: The items.
        requests: No history may hold one of them.
    """
    _, item_out, bias = cold_map.apply(text[rows])
    top = top_k(users @ item_out.T + bias, 10)
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
