"""At full width and untrained, the model is the zero-shot profile; trained, it learns a ring that it was shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import pytest

from edgerec.data import load
from edgerec.distill.baselines import Profile
from edgerec.distill.towers import PADDING, ColdMap, TowerConfig, Towers, pca
from edgerec.distill.training import TrainOptions, Windows, fit
from edgerec.interactions import Ragged, Requests
from edgerec.metrics import rank, validation_ndcg
from edgerec.splits import split

RNG = np.random.default_rng(0)


def unit(n: int, width: int) -> np.ndarray:
    """Draw rows of norm 1."""
    rows = RNG.normal(size=(n, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def asked(histories: list[list[int]]) -> Requests:
    """Return requests without answers."""
    return Requests(np.arange(len(histories), dtype=np.int32), Ragged.from_lists(histories), Ragged.from_lists([]))


def test_untrained_at_full_width_it_is_the_zero_shot_profile() -> None:
    vectors = unit(30, 16)
    towers = Towers(vectors, np.ones(30, np.bool_), TowerConfig(16, half_lives=(3.0,))).eval()
    requests = asked([[0], [3, 4, 5, 4], list(range(30))])
    expected = Profile(vectors, decay=0.5 ** (1 / 3)).score(requests)
    got = towers.score(requests)
    for line, want in zip(got, expected, strict=True):
        np.testing.assert_allclose(line / np.linalg.norm(line), want / np.linalg.norm(want), atol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_training_and_scoring_compute_the_same_users(shared: bool) -> None:
    towers = Towers(unit(20, 8), np.ones(20, np.bool_), TowerConfig(6, shared=shared)).eval()
    with torch.no_grad():
        for residual in (towers.residual_in, towers.residual_out):
            if residual is not None:
                residual.normal_()
        towers.mix.uniform_()
        window = torch.tensor([[4, 1, 9, PADDING], [2, 2, 3, 7]])
        users = towers.user_vectors(towers.item_vectors()[0], window).numpy()
    arrays = towers.arrays()
    assert arrays.shared is shared
    np.testing.assert_allclose(arrays.users(asked([[4, 1, 9], [2, 2, 3, 7]])), users[[0, 1], [2, 3]], atol=1e-5)
    np.testing.assert_allclose(arrays.users(asked([[4]])), users[:1, 0], atol=1e-5)


def test_a_cold_item_has_what_the_map_makes_of_its_text() -> None:
    warm = np.array([True, True, False])
    towers = Towers(unit(3, 4), warm, TowerConfig(4)).eval()
    np.testing.assert_array_equal(towers.arrays().item_out[2], towers.text[2].numpy())  # as it is, until it is set
    with torch.no_grad():
        towers.residual_in.fill_(1)
        towers.bias.fill_(5)
    affine = np.vstack([2 * np.eye(4), np.ones(4)]).astype(np.float32)
    towers.set_cold(ColdMap(affine, affine, np.float32([0, 0, 0, 0, -1])))
    arrays = towers.arrays()
    np.testing.assert_allclose(arrays.item_out[2], 2 * towers.text[2].numpy() + 1)
    assert arrays.bias.tolist() == [5, 5, -1]
    np.testing.assert_allclose(towers.arrays(residuals=False).item_out, 2 * towers.text.numpy() + 1)


def test_pca_keeps_inner_products_at_full_width_and_pads_what_is_not_there() -> None:
    vectors = unit(5, 8)
    full = vectors @ pca(vectors, 8)
    np.testing.assert_allclose(full @ full.T, vectors @ vectors.T, atol=1e-5)
    wider = pca(vectors, 11)
    assert wider.shape == (8, 11)
    assert not wider[:, 8:].any()


def test_windows_are_consecutive_and_longer_histories_give_random_ones() -> None:
    windows = Windows(Ragged.from_lists([range(50), [7], [3, 4]]), np.arange(53), window=5)
    assert windows.users() == [0, 2]
    starts = set()
    for windows.epoch in range(20):
        batch = windows([0, 2])
        history, targets = batch["history"], batch["targets"]
        assert torch.equal(targets[0], history[0] + 1)
        assert history[1].tolist() == [3, *[PADDING] * 4]
        assert targets[1].tolist() == [4, *[PADDING] * 4]
        starts.add(int(history[0, 0]))
    assert len(starts) > 5


def test_the_ring_is_learned_and_a_run_that_is_resumed_goes_on(cycle: Path, tmp_path: Path) -> None:
    divided = split(load(str(cycle)))
    options = TrainOptions(steps=60, batch_size=16, learning_rate=0.05, evaluate_every=20)
    towers = Towers(unit(12, 16), divided.warm, TowerConfig(16, shared=False))
    best = fit(towers, towers.parameter_groups(0.05, 0.01), divided, options, tmp_path / "run", "test")
    assert best > 0.9
    answer = rank(towers, divided.test, 1, divided.mask_seen)[:, 0]
    last = np.array([divided.test.histories[row][-1] for row in range(len(divided.test))])
    assert (answer == (last + 1) % 12).mean() > 0.9
    again = Towers(unit(12, 16), divided.warm, TowerConfig(16, shared=False))
    resumed = fit(again, again.parameter_groups(0.05, 0.01), divided, options, tmp_path / "run", "test", resume=True)
    assert resumed == pytest.approx(best)  # all steps were done: the best checkpoint is loaded, nothing is trained


def test_training_that_makes_it_worse_is_not_kept(cycle: Path, tmp_path: Path) -> None:
    divided = split(load(str(cycle)))
    towers = Towers(unit(12, 16), divided.warm, TowerConfig(16))
    towers.eval()
    before = towers.score(divided.validation)
    options = TrainOptions(steps=1, batch_size=4, learning_rate=1e-12, evaluate_every=1)
    fit(towers, towers.parameter_groups(options.learning_rate, 0.0), divided, options, tmp_path / "run", "test")
    np.testing.assert_allclose(towers.score(divided.validation), before, atol=1e-4)


def test_the_last_step_is_kept_where_that_is_asked_for(cycle: Path, tmp_path: Path) -> None:
    divided = split(load(str(cycle)))
    towers = Towers(unit(12, 16), divided.warm, TowerConfig(16))
    before = towers.residual_in.detach().clone()
    options = TrainOptions(steps=2, batch_size=4, learning_rate=1.0, evaluate_every=1, keep_best=False)
    kept = fit(towers, towers.parameter_groups(options.learning_rate, 0.0), divided, options, tmp_path / "run", "test")
    assert not torch.equal(towers.residual_in, before)
    assert kept == pytest.approx(validation_ndcg(towers, divided, 10))


def test_the_repeat_term_is_the_same_in_training_and_in_scoring() -> None:
    towers = Towers(unit(6, 4), np.ones(6, np.bool_), TowerConfig(4, repeat=True)).eval()
    windows = Windows(Ragged.from_lists([[4, 1, 4, 2, 5], [0, 0, 3]]), np.array([0, 0, 1, 2, 2, 0, 1, 2]), window=9)
    batch = windows([0, 1])
    with torch.no_grad():
        towers.bias.normal_()
        logits = towers.logits(**batch)
    histories = [[4, 1], [4, 1, 4], [0], [0, 0]]  # before each later step
    np.testing.assert_allclose(logits.scores, towers.score(asked(histories)), atol=1e-5)
    assert logits.columns.tolist() == [4, 2, 5, 0, 3]
    assert logits.rows.tolist() == [0, 1, 1, 2, 3]
    without = TowerConfig(4, repeat=False)
    assert Towers(unit(6, 4), np.ones(6, np.bool_), without).arrays().repeat_weights.size == 0


def test_an_item_taken_twice_gains_the_weighted_log_of_its_decayed_count() -> None:
    towers = Towers(np.zeros((3, 4), np.float32), np.ones(3, np.bool_), TowerConfig(4, repeat=True)).eval()
    arrays = towers.arrays()
    ages = np.array([2.0, 0.0])
    counts = (arrays.repeat_decays[:, None] ** ages).sum(1)
    expected = (arrays.repeat_weights * np.log1p(counts)).sum()
    np.testing.assert_allclose(towers.score(asked([[1, 0, 1]]))[0, 1], expected, rtol=1e-5)
