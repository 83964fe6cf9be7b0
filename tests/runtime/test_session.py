"""A session agrees with the same history at once, and the runtime needs neither torch nor a network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import pytest

from edgerec.runtime import Recommender
from edgerec.runtime.layout import Tower


@pytest.mark.parametrize("shared", [True, False])
def test_a_session_is_the_stateless_answer(
    make_tower: Callable[..., Tower], load: Callable[[Tower], Recommender], shared: bool
) -> None:
    recommender = load(make_tower(shared=shared))
    rows = np.random.default_rng(2).integers(1, 41, 60)
    session = recommender.session()
    for count, row in enumerate(rows, 1):
        session.observe(f"i{row}")
        history = [f"i{seen}" for seen in rows[:count]]
        stateless = recommender.ranker.rank(rows[None, :count], 1)
        assert session.state == pytest.approx(stateless.state[0], abs=1e-5)
        assert [e.item for e in session.recommend()] == [e.item for e in recommender.recommend(history)]


def test_observing_in_one_call_or_several_is_the_same(ring: Tower, load: Callable[[Tower], Recommender]) -> None:
    recommender = load(ring)
    one, several = recommender.session(), recommender.session()
    one.observe("a", "b", "a")
    for item in ("a", "b", "a"):
        several.observe(item)
    assert np.array_equal(one.state, several.state)
    assert one.seen == several.seen == {1, 2}
    assert one.state.shape == (1, 8)
    assert not recommender.session().state.any()  # sessions share nothing


LEAN = """
import socket, sys
for name in ("torch", "transformers", "onnx", "tokenizers", "polars", "scipy"):
    sys.modules[name] = None
def refuse(*args, **kwargs):
    raise OSError("no network here")
socket.socket = refuse
import edgerec.runtime
assert "onnxruntime" not in sys.modules
recommender = edgerec.runtime.Recommender.load(sys.argv[1])
session = recommender.session()
session.observe("c")
assert session.recommend(1)[0].item == recommender.recommend(["c"], 1)[0].item == "d"
from edgerec.runtime.verify import verify
report = verify(sys.argv[1])
assert report["requests"] == 8 and "tokenizers" in report["skipped"], report
from edgerec.errors import MissingExtraError
try:
    recommender.search("red")
except MissingExtraError as error:
    assert "edgerec[text]" in str(error)
else:
    raise AssertionError("searched without tokenizers")
"""


def test_a_device_needs_numpy_and_onnxruntime_only(ring: Tower, write: Callable[[Tower], Path]) -> None:
    result = subprocess.run([sys.executable, "-c", LEAN, str(write(ring))], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
