"""New items get from their text what the log taught of items with such a text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import pytest

from edgerec.cold import hide_items
from edgerec.data import load
from edgerec.distill.calibration import (
    among_new,
    as_new,
    calibrate_cold,
    centred,
    errors,
    fit_map,
    lifted,
    lowest,
    new_item_requests,
    without,
)
from edgerec.distill.towers import TowerConfig, Towers
from edgerec.interactions import Ragged, Requests, Split
from edgerec.splits import split


def taught(n: int = 200, size: int = 6, shared: bool = True) -> tuple[Towers, np.ndarray]:
    """Towers whose residuals and biases are an affine function of the text part, and that function's matrix."""
    rng = np.random.default_rng(0)
    text = rng.normal(size=(n, size)).astype(np.float32)
    matrix = rng.normal(size=(size, size)).astype(np.float32)
    towers = Towers(text, np.ones(n, np.bool_), TowerConfig(size, shared=shared), np.eye(size, dtype=np.float32)).eval()
    with torch.no_grad():
        towers.residual_in.copy_(torch.from_numpy(text @ matrix + 0.5))
        if towers.residual_out is not None:
            towers.residual_out.copy_(torch.from_numpy(text @ matrix.T - 0.5))
        towers.bias.copy_(torch.from_numpy(text[:, 0] + 2))
    return towers, matrix


@pytest.mark.parametrize("shared", [True, False])
def test_the_map_finds_an_affine_relation_and_a_large_ridge_leaves_the_text_part(shared: bool) -> None:
    towers, matrix = taught(shared=shared)
    arrays, rows, counts = towers.arrays(), np.arange(200), np.full(200, 3)
    found = fit_map(arrays, rows, counts, 1e-6)
    item_in, item_out, bias = found.apply(arrays.text)
    np.testing.assert_allclose(item_in, arrays.text + arrays.text @ matrix + 0.5, atol=1e-3)
    np.testing.assert_allclose(item_out, arrays.item_out, atol=1e-3)
    np.testing.assert_allclose(bias, arrays.text[:, 0] + 2, atol=1e-3)
    assert lifted(found, 1.5).apply(arrays.text)[2] == pytest.approx(bias + 1.5, abs=1e-5)
    held = fit_map(arrays, rows, counts, 1e9)
    np.testing.assert_allclose(held.item_in[:-1], np.eye(6), atol=1e-3)


def test_played_new_items_take_the_maps_vectors_and_the_others_keep_theirs() -> None:
    towers, _ = taught()
    arrays, rows = towers.arrays(), np.array([3, 7])
    cold = fit_map(arrays, np.arange(100), np.ones(200, np.int64), 1.0)
    played = as_new(arrays, cold, rows)
    assert played.shared
    np.testing.assert_array_equal(played.item_in[rows], cold.apply(arrays.text[rows])[0])
    np.testing.assert_array_equal(np.delete(played.item_in, rows, 0), np.delete(arrays.item_in, rows, 0))


def test_the_ring_foretells_where_an_unseen_item_stands(cycle: Path) -> None:
    """Items on a circle: the text says the angle, the log asks for the next one; a hidden item's text must suffice."""
    data = load(str(cycle))
    divided = split(data)
    angle = 2 * np.pi * np.arange(12) / 12
    text = np.stack([np.cos(angle), np.sin(angle), np.ones(12)], axis=1).astype(np.float32)
    towers = Towers(text, divided.warm, TowerConfig(3, shared=False), np.eye(3, dtype=np.float32)).eval()
    back = np.stack([np.cos(angle - angle[1]), np.sin(angle - angle[1]), np.ones(12)], axis=1).astype(np.float32)
    with torch.no_grad():  # as a candidate, an item lies where the one before it lies as history
        assert towers.residual_out is not None
        towers.residual_out.copy_(torch.from_numpy(back - text))
        towers.mix.copy_(torch.tensor([1.0, 0.0, 0.0]))
    report = calibrate_cold(towers, divided)
    assert report["ridge"] == 0.1  # the relation is exact: the less it is shrunk the better
    new = np.array([4])
    requests = new_item_requests(divided, new)
    assert all(4 not in requests.histories[row] for row in range(len(requests)))
    users = towers.arrays().users(requests)
    assert among_new(users, towers.cold_map(), towers.arrays().text, new, requests).mean() == 1.0
    np.testing.assert_allclose(towers.cold_map().apply(text)[1], back, atol=0.2)


def test_new_items_are_lifted_more_than_old_ones_that_nobody_took() -> None:
    rng = np.random.default_rng(0)
    n, users, never = 120, 150, 40
    text = rng.normal(size=(n, 8)).astype(np.float32)
    near = text @ text[: n - never].T
    taken = [rng.choice(np.argsort(-near[rng.integers(n), :])[:20], 8, False) for _ in range(users)]
    events, then, last = (
        Ragged.from_lists([one[start:end] for one in taken]) for start, end in ((0, 6), (6, 7), (7, 8))
    )
    warm, who = np.bincount(events.values, minlength=n) > 0, np.arange(users, dtype=np.int32)
    asked = Requests(who, events, then), Requests(who, events, last)
    divided = Split("leave-one-out", n, events, np.arange(len(events.values), dtype=np.int32), warm, *asked, True)
    towers = Towers(text, warm, TowerConfig(8), np.eye(8, dtype=np.float32)).eval()
    with torch.no_grad():
        towers.bias[torch.from_numpy(warm)] = 3.0
    report = calibrate_cold(towers, divided)
    assert report["old_lift"] < report["lift"]
    found, mapped = towers.arrays().bias, towers.cold_map().apply(text)[2]
    np.testing.assert_allclose(found[~warm], mapped[~warm] + report["old_lift"] - report["lift"], atol=1e-5)
    np.testing.assert_array_equal(found[warm], 3.0)


@pytest.mark.parametrize(("scale", "centre"), [(1.0, 1.0), (20.0, 0.0)])
def test_a_direction_that_all_users_share_is_taken_out_unless_new_items_then_find_no_place(
    scale: float, centre: float
) -> None:
    """Two kinds of items and of users; a text's share of the common direction says nothing, and is as large.

    The known items are ranked by it too. At a large scale, no lift brings an item without it among them.
    """
    rng = np.random.default_rng(0)
    n, users = 200, 400
    kind, common = np.arange(n) % 2, rng.normal(2, 1, n)
    text = np.stack([kind, 1 - kind, common], axis=1).astype(np.float32)
    taken = [rng.choice(np.flatnonzero(kind == user % 2), 10, False) for user in range(users)]
    events, then, last = (
        Ragged.from_lists([one[start:end] for one in taken]) for start, end in ((0, 8), (8, 9), (9, 10))
    )
    warm, who = np.ones(n, np.bool_), np.arange(users, dtype=np.int32)
    asked = Requests(who, events, then), Requests(who, events, last)
    divided = Split("leave-one-out", n, events, np.arange(len(events.values), dtype=np.int32), warm, *asked, True)
    towers = Towers(text, warm, TowerConfig(3), np.eye(3, dtype=np.float32)).eval()
    with torch.no_grad():
        towers.log_scale.fill_(float(np.log(scale)))
    report = calibrate_cold(towers, divided)
    assert report["centre"] == centre
    arrays, items = towers.arrays(), np.flatnonzero(kind == 0)
    requests = Requests(who[:2], events.take(np.array([0, 1])), then.take(np.array([0, 1])))
    _, item_out, bias = towers.cold_map().apply(text)
    scores = arrays.users(requests) @ item_out.T + bias
    suited = scores[0, items].min() > scores[0, kind == 1].max()  # whatever is common
    assert suited == (centre == 1.0)


def test_a_gain_counts_in_standard_errors() -> None:
    assert errors(np.float64([1, 1, 1, 1])) > 1e9
    assert errors(np.float64([1, -1, 1, -1])) == 0
    assert errors(np.float64([0, 2] * 50)) == pytest.approx(10)


def test_a_centred_map_gives_the_mean_user_the_same_for_every_text() -> None:
    towers, _ = taught(shared=False)
    arrays = towers.arrays()
    found, user = fit_map(arrays, np.arange(200), np.full(200, 3), 1.0), np.arange(6, dtype=np.float32)
    _, item_out, bias = centred(found, user, arrays.text).apply(arrays.text)
    plain = found.apply(arrays.text)[2]
    assert bias.mean() == pytest.approx(plain.mean(), abs=1e-3)
    assert np.ptp(item_out @ user + bias - plain) == pytest.approx(0, abs=1e-3)


def test_nobody_has_taken_a_played_item_yet() -> None:
    requests = Requests(np.int32([0, 1]), *(Ragged.from_lists([np.int32([0, 1]), np.int32([1])]) for _ in range(2)))
    unseen = without(requests, np.array([1]), 3)
    assert [unseen.histories[row].tolist() for row in (0, 1)] == [[0], []] and unseen.targets is requests.targets


def test_the_lowest_lift_is_found_or_the_farthest_given() -> None:
    assert lowest(lambda lift: lift >= 1.3) == pytest.approx(1.3, abs=0.06)
    assert lowest(lambda lift: False) == 8.0


def test_hidden_items_leave_log_and_catalogue_and_come_back_as_targets(cycle: Path) -> None:
    data = load(str(cycle))
    cold = hide_items(data, 0.25, seed=1)
    divided = split(cold.data)
    assert len(cold.data.item_ids) == 9 and len(cold.ids) == 3 and not set(cold.ids) & set(cold.data.item_ids)
    assert len(cold.data.users) + len(cold.users) == len(data.users)
    events = {(data.user_ids[user], data.item_ids[item]) for user, item in zip(data.users, data.items, strict=True)}
    names = cold.data.item_ids + cold.ids
    requests = cold.requests(divided)
    assert requests.histories.values.max() < 9 <= requests.targets.values.min()
    for row, user in enumerate(requests.users):
        taken = {(data.user_ids[user], names[item]) for item in [*requests.histories[row], *requests.targets[row]]}
        assert taken <= events
        assert len(requests.targets[row]) == len(
            {item for u, item in events if u == data.user_ids[user]} & set(cold.ids)
        )
    assert replace(cold.data, fingerprint="") != replace(data, fingerprint="")
    assert hide_items(data, 0.25, seed=1).data.fingerprint == cold.data.fingerprint != data.fingerprint
