"""TensorRT's recommender answers as the reference does, whatever its table lost in the first look."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerec.export import tensorrt_recommender as module
from edgerec.export.qdq_lint import check_qdq
from edgerec.export.tensorrt_ladder import OnnxRuntimeRunner
from edgerec.export.tensorrt_recommender import PRECISIONS, tensorrt_recommender
from edgerec.runtime.layout import Tower
from edgerec.runtime.reference import dequantized, fold, remember, score

N, D, K = 60, 12, 3
REPEATS = {"repeat_decays": np.float32([0.6, 0.97]), "repeat_weights": np.float32([3, -0.8])}


def tower(shared: bool, **repeats: Any) -> Tower:
    """Draw a tower at random; ``repeats`` are its repeat decays and weights."""
    rng = np.random.default_rng(7)

    def normal(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    words = [str(row) for row in range(N)]
    decays, mix = np.float32([0.5, 0.95, 0.99]), np.float32([1, -0.5, 0.3])
    item_in = None if shared else normal(N, D)
    return Tower(decays, mix, 5.0, normal(N, D), item_in, normal(N), normal(N), normal(N, D), words, words, **repeats)


TOWERS = {"shared": tower(True), "separate": tower(False), "repeats": tower(True, **REPEATS)}
CASES = [(name, precision) for name in TOWERS for precision in PRECISIONS]


@pytest.fixture(scope="module", params=CASES, ids=["-".join(one) for one in CASES])
def opened(request: pytest.FixtureRequest) -> tuple[Tower, OnnxRuntimeRunner]:
    name, precision = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CANDIDATES", 30)  # half of the items: the first look has to find the best ones
        graph = tensorrt_recommender(TOWERS[name], precision, 5)
    assert check_qdq(onnx.load_from_string(graph)) == []
    return dequantized(TOWERS[name]), OnnxRuntimeRunner(graph, "CPUExecutionProvider")


def asked(exact: Tower, histories: Any, **more: Any) -> dict[str, Any]:
    """Return the inputs of histories [B, L] without a session."""
    count = len(histories)
    feed = {"history": np.asarray(histories), "state": np.zeros((count, K, D), np.float32)}
    feed["exclude"] = np.zeros((count, 1), np.int64)
    if exact.repeat_decays.size:
        feed["repeat_rows"] = np.zeros((count, 1), np.int64)
        feed["repeat_memory"] = np.zeros((count, 2, 1), np.float32)
    return feed | more


@settings(deadline=None, max_examples=40)
@given(
    histories=st.integers(1, 12).flatmap(
        lambda length: st.lists(st.lists(st.integers(0, N), min_size=length, max_size=length), min_size=1, max_size=4)
    ),
    seed=st.none() | st.integers(0, 99),
)
def test_the_five_best_are_the_references(
    opened: tuple[Tower, OnnxRuntimeRunner], histories: list[list[int]], seed: int | None
) -> None:
    exact, runner = opened
    state = np.zeros((len(histories), K, D), np.float32)
    if seed is not None:
        state = np.random.default_rng(seed).normal(size=state.shape).astype(np.float32)
    answer = runner.run(asked(exact, histories, state=state))
    for line, history in enumerate(histories):
        folded = fold(exact, history, state[line].astype(np.float64))
        assert answer["state_out"][line] == pytest.approx(folded, abs=1e-5)
        wanted = score(exact, folded, remember(exact, history))
        best = np.sort(wanted)[::-1][:5]
        assert answer["scores"][line] == pytest.approx(best, abs=1e-3)
        assert answer["scores"][line] == pytest.approx(wanted[answer["items"][line] - 1], abs=1e-3)


def test_masked_rows_and_padding_are_never_returned(opened: tuple[Tower, OnnxRuntimeRunner]) -> None:
    exact, runner = opened
    plain = runner.run(asked(exact, [[3, 0, 4]]))["items"]
    masked = runner.run(asked(exact, [[3, 0, 4]], exclude=plain[:, :3]))["items"]
    assert not set(masked[0]) & set(plain[0, :3]) and 0 not in masked
    assert masked[0, :2].tolist() == plain[0, 3:].tolist()
    nearly_all = np.arange(3, N + 1)[None]
    answer = runner.run(asked(exact, [[3]], exclude=nearly_all))
    assert sorted(answer["items"][0].tolist()) == [-1, -1, -1, 1, 2]
    assert np.isfinite(answer["scores"]).all()


@pytest.mark.parametrize("opened", [("repeats", one) for one in PRECISIONS], ids=PRECISIONS, indirect=True)
def test_a_session_goes_on_from_what_it_remembers(opened: tuple[Tower, OnnxRuntimeRunner]) -> None:
    exact, runner = opened
    rows, left = np.array([[5, 9, 0]]), np.float32([[[2, 1, 0], [4, 3, 0]]])
    memory = np.zeros((2, N))
    memory[:, [4, 8]] = left[0, :, :2]
    answer = runner.run(asked(exact, [[9, 2, 5, 0]], repeat_rows=rows, repeat_memory=left))
    wanted = score(exact, fold(exact, [9, 2, 5]), remember(exact, [9, 2, 5], memory))
    assert answer["items"][0].tolist() == (np.argsort(-wanted)[:5] + 1).tolist()
    assert answer["scores"][0] == pytest.approx(np.sort(wanted)[::-1][:5], abs=1e-3)


def test_a_catalogue_smaller_than_k_gives_all_of_it() -> None:
    made = tower(True)
    few = Tower(made.decays, made.mix, 5.0, made.item_out[:2], None, made.bias[:2], made.popularity[:2],
                made.text[:2], ["a", "b"], ["a", "b"])  # fmt: skip
    runner = OnnxRuntimeRunner(tensorrt_recommender(few, "fp16", 10), "CPUExecutionProvider")
    items = runner.run(asked(few, [[0]]))["items"]
    assert items.shape == (1, 3) and sorted(items[0].tolist()) == [-1, 1, 2]
