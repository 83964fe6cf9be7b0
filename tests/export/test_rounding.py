"""Tables are rounded where users do not look."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import pytest

from edgerec.export.rounding import compensated, compensated_rows, moment
from edgerec.runtime.layout import LIMIT, Tower, quantize_rows
from edgerec.runtime.reference import dequantized, rounded

N, D = 60, 32


def tower(shared: bool) -> Tower:
    """Items as candidates anywhere, as history in a plane: so users lie in that plane."""
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(N, 2)) @ rng.normal(size=(2, D))
    out = rng.normal(size=(N, D)).astype(np.float32)
    words, zeros = [str(row) for row in range(N)], np.zeros(N, np.float32)
    decays, mix = np.float32([0.5, 0.9]), np.float32([1, 1])
    item_in = None if shared else plane.astype(np.float32)
    return Tower(decays, mix, 5.0, out, item_in, zeros, zeros, out, words, words)


HISTORIES = [[row, (row * 7) % N + 1, (row * 11) % N + 1] for row in range(1, N + 1)]


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_packed_is_what_was_rounded(shared: bool) -> None:
    made = compensated(tower(shared), HISTORIES)
    for name, steps in made.steps.items():
        codes, scale = quantize_rows(getattr(made, name), steps)
        assert np.abs(codes).max() <= LIMIT
        np.testing.assert_array_equal(codes * scale[:, None], getattr(made, name))
    np.testing.assert_array_equal(dequantized(made).item_out, made.item_out)
    assert set(made.steps) == ({"item_out"} if shared else {"item_out", "item_in"})


def test_errors_leave_the_plane_of_the_users() -> None:
    made = tower(shared=False)
    assert made.item_in is not None
    weights = moment(made.item_in)
    out, _ = compensated_rows(made.item_out, weights)
    lost = np.abs((out - made.item_out) @ made.item_in.T).mean()
    plain = np.abs((rounded(made.item_out) - made.item_out) @ made.item_in.T).mean()
    assert lost < 0.2 * plain


def test_equal_directions_round_as_ever() -> None:
    rows = tower(shared=True).item_out
    np.testing.assert_array_equal(compensated_rows(rows, np.eye(D))[0], rounded(rows))


@pytest.mark.parametrize("histories", [[], [[]], [[3]]])
def test_no_history_one_item_and_zeros_round_too(histories: list[list[int]]) -> None:
    made = tower(shared=True)
    made = replace(made, item_out=np.where(np.arange(N)[:, None] == 5, 0, made.item_out).astype(np.float32))
    found = compensated(made, histories)
    assert np.isfinite(found.item_out).all() and not found.item_out[5].any()
    assert np.abs(found.item_out - made.item_out).max() < 0.2
