"""The graph equals the recurrence in plain float64, for any history, and opens in a stock onnxruntime."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerec.export.goldens import goldens, torch_scores
from edgerec.export.recommender_graph import recommender_graph
from edgerec.runtime.layout import Tower, pack
from edgerec.runtime.reference import dequantized, fold, remember, score
from edgerec.runtime.verify import disagreement

N, D, K = 30, 12, 3
REPEATS = {"repeat_decays": np.float32([0.6, 0.97]), "repeat_weights": np.float32([3, -0.8])}


def tower(shared: bool, **repeats: Any) -> Tower:
    """Draw a tower at random; ``repeats`` are its repeat decays and weights."""
    rng = np.random.default_rng(7)

    def normal(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    item_in = None if shared else normal(N, D)
    words = [str(row) for row in range(N)]
    decays, mix = np.float32([0.5, 0.95, 0.99]), np.float32([1, -0.5, 0.3])
    return Tower(decays, mix, 5.0, normal(N, D), item_in, normal(N), normal(N), normal(N, D), words, words, **repeats)


def extracted(made: Tower, folder: Path) -> Any:
    """Open the graph the way an application without edgerec does: from the folder that a bundle extracts to."""
    for name, content in pack(made)[0].items():
        (folder / name).write_bytes(content)
    onnx.save(recommender_graph(made), folder / "recommender.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(folder / "recommender.onnx", options, providers=["CPUExecutionProvider"])


TOWERS: dict[str, Any] = {"shared": tower(True), "separate": tower(False), "repeats": tower(True, **REPEATS)}


@pytest.fixture(scope="module", params=TOWERS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tower, Any]:
    made = TOWERS[request.param]
    return dequantized(made), extracted(made, tmp_path_factory.mktemp("bundle"))


@settings(deadline=None, max_examples=60)
@given(
    histories=st.integers(1, 20).flatmap(
        lambda length: st.lists(st.lists(st.integers(0, N), min_size=length, max_size=length), min_size=1, max_size=5)
    ),
    seed=st.none() | st.integers(0, 99),
)
def test_the_graph_is_the_recurrence(pair: tuple[Tower, Any], histories: list[list[int]], seed: int | None) -> None:
    exact, session = pair
    state = np.zeros((len(histories), K, D), np.float32)
    if seed is not None:
        state = np.random.default_rng(seed).normal(size=state.shape).astype(np.float32)
    feed = {"history": np.array(histories), "state": state, "k": np.array([99])}
    items, scores, state_out, user = session.run(None, feed)
    assert items.shape == scores.shape == (len(histories), N + 1)
    assert user.shape == (len(histories), D)
    for line, history in enumerate(histories):
        folded = fold(exact, history, state[line].astype(np.float64))
        assert state_out[line] == pytest.approx(folded, abs=1e-5)
        wanted = score(exact, folded, remember(exact, history))
        assert items[line, -1] == -1  # the padding item
        assert sorted(items[line, :-1]) == list(range(1, N + 1))
        assert scores[line, :-1] == pytest.approx(wanted[items[line, :-1] - 1], abs=2e-3)
        assert (np.diff(scores[line]) <= 0).all()


def test_masks_offsets_and_k(pair: tuple[Tower, Any]) -> None:
    _, session = pair
    feed = {"history": np.array([[3, 0, 4], [5, 6, 7]]), "state": np.zeros((2, K, D), np.float32)}
    plain = session.run(["items"], feed)[0]
    assert plain.shape == (2, 10)
    for exclude in (plain[:, :3], plain[:1, :3]):  # one list for each, and one for all
        masked = session.run(["items"], {**feed, "exclude": exclude, "k": np.array([N])})[0]
        for line in range(2):
            assert not set(masked[line]) & set(exclude[line % len(exclude)])
            assert (masked[line] == -1).sum() == 3
    offset = np.full((1, N + 1), -np.inf, np.float32)
    offset[0, [0, 2, 9]] = 0
    items, scores = session.run(["items", "scores"], {**feed, "score_offset": offset, "k": np.array([4])})
    assert [sorted(line) for line in items] == [[-1, -1, 2, 9]] * 2
    assert (scores[:, 2:] < -1e38).all()
    bonus = np.zeros((2, N + 1), np.float32)
    bonus[0, 11] = bonus[1, 12] = 1000
    assert session.run(["items"], {**feed, "score_offset": bonus})[0][:, 0].tolist() == [11, 12]


def test_an_empty_state_is_answered_by_popularity_within_a_batch(pair: tuple[Tower, Any]) -> None:
    exact, session = pair
    feed = {"history": np.array([[0], [3]]), "state": np.zeros((2, K, D), np.float32)}
    items, scores, _, user = session.run(None, feed)
    order = np.argsort(-exact.popularity)[:10]
    assert items[0].tolist() == (order + 1).tolist()
    assert scores[0] == pytest.approx(exact.popularity[order])
    assert not user[0].any()
    assert np.linalg.norm(user[1]) == pytest.approx(5, abs=1e-4)


def test_the_graph_is_standard_and_holds_no_table(tmp_path: Path) -> None:
    made = tower(shared=True)
    extracted(made, tmp_path)
    onnx.checker.check_model(tmp_path / "recommender.onnx", full_check=True)
    graph = onnx.load(tmp_path / "recommender.onnx", load_external_data=False)
    assert graph.ir_version <= 8
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 17)]
    outside = {t.name for t in graph.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    assert outside == {"item_out.i8", "item_out.scale", "bias.f32", "popularity.f32"}
    assert graph.ByteSize() < 10_000


@pytest.mark.parametrize("name", TOWERS)
def test_onnxs_reference_evaluator_answers_as_onnxruntime_does(name: str, tmp_path: Path) -> None:
    session = extracted(TOWERS[name], tmp_path)
    referee = ReferenceEvaluator(onnx.load(tmp_path / "recommender.onnx"))
    histories = np.array([[3, 0, 4, 3, 17], [5, 6, 7, 9, 5]])
    state = np.random.default_rng(2).normal(size=(2, K, D)).astype(np.float32)
    feed = {"history": histories, "state": state, "exclude": histories[:, :2], "k": np.array([N])}
    outputs = [value.name for value in session.get_outputs()]
    got, wanted = (dict(zip(outputs, one.run(outputs, feed), strict=True)) for one in (referee, session))
    assert np.array_equal(got.pop("items"), wanted.pop("items"))
    for output, array in wanted.items():
        assert got[output] == pytest.approx(array, abs=1e-4), output


def test_a_tower_without_repeat_recencies_has_the_graph_it_had() -> None:
    nothing = np.zeros(0, np.float32)
    explicit = recommender_graph(tower(True, repeat_decays=nothing, repeat_weights=nothing))
    assert explicit.SerializeToString() == recommender_graph(tower(True)).SerializeToString()
    assert [entry.name for entry in explicit.graph.input] == ["history", "state", "exclude", "score_offset", "k"]
    assert len(recommender_graph(tower(True, **REPEATS)).graph.node) > len(explicit.graph.node)


@pytest.fixture(scope="module")
def repeating(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tower, Any]:
    made = tower(False, **REPEATS)
    return dequantized(made), extracted(made, tmp_path_factory.mktemp("bundle"))


@settings(deadline=None, max_examples=30)
@given(
    history=st.lists(st.lists(st.integers(0, N), min_size=6, max_size=6), min_size=1, max_size=4),
    rows=st.lists(st.integers(1, N), min_size=0, max_size=8, unique=True),
    once=st.booleans(),
)
def test_the_graph_goes_on_from_what_a_session_remembers(
    repeating: tuple[Tower, Any], history: list[list[int]], rows: list[int], once: bool
) -> None:
    exact, session = repeating
    lines = 1 if once else len(history)
    left = np.random.default_rng(3).uniform(0, 5, (lines, 2, len(rows))).astype(np.float32)
    state = np.ones((len(history), K, D), np.float32)
    feed = {"history": np.array(history), "state": state, "k": np.array([N]), "repeat_memory": left}
    feed["repeat_rows"] = np.tile(np.array(rows, np.int64), (lines, 1))
    items, scores = session.run(["items", "scores"], feed)
    for line, events in enumerate(history):
        memory = np.zeros((2, N))
        memory[:, np.array(rows, int) - 1] = left[line % lines]
        folded = fold(exact, events, state[line].astype(np.float64))
        wanted = score(exact, folded, remember(exact, events, memory))
        assert sorted(items[line]) == list(range(1, N + 1))
        assert scores[line] == pytest.approx(wanted[items[line] - 1], abs=2e-3)


def test_only_the_items_taken_gain_and_padding_neither_gains_nor_ages(repeating: tuple[Tower, Any]) -> None:
    exact, session = repeating
    histories = np.array([[4, 9, 4, 0, 0, 0], [0, 4, 0, 9, 0, 4]])
    feed = {"history": histories, "state": np.zeros((2, K, D), np.float32), "k": np.array([N + 1])}
    items, scores = session.run(["items", "scores"], feed)
    assert np.array_equal(items[0], items[1])
    assert scores[0, :-1] == pytest.approx(scores[1, :-1], abs=1e-5)
    assert items[0, -1] == -1  # the padding item, however often it occurs
    gained = scores[0, :-1] - score(exact, fold(exact, [4, 9, 4]))[items[0, :-1] - 1]
    fresh, old = np.float64([1, 1]), np.float64([0.6, 0.97])
    wanted = {4: [3, -0.8] @ np.log1p(fresh + old**2), 9: [3, -0.8] @ np.log1p(old)}
    assert gained == pytest.approx([wanted.get(row, 0) for row in items[0, :-1]], abs=2e-3)


def test_a_graph_with_repeat_recencies_is_standard(tmp_path: Path) -> None:
    session = extracted(tower(True, **REPEATS), tmp_path)
    onnx.checker.check_model(tmp_path / "recommender.onnx", full_check=True)
    given = [entry.name for entry in session.get_overridable_initializers()]
    assert {"repeat_rows", "repeat_memory"} <= set(given)
    assert [entry.name for entry in session.get_inputs()] == ["history", "state"]


@pytest.mark.parametrize("history", [[3], [5, 5, 5], [1, 2, 3, 2, 30, 2, 7]])
def test_torch_scores_are_the_references(history: list[int]) -> None:
    for made in TOWERS.values():
        wanted = score(made, fold(made, history), remember(made, history))
        assert torch_scores(made, history) == pytest.approx(wanted, abs=1e-4)
        assert torch_scores(made, []) == pytest.approx(made.popularity)


def test_the_graph_answers_torchs_golden_requests(repeating: tuple[Tower, Any]) -> None:
    exact, session = repeating
    histories = np.random.default_rng(5).integers(1, 9, (40, 12)).tolist()  # few items, so that they come again
    held = json.loads(goldens(exact, histories, [], np.zeros((0, D), np.float32), 0.0))
    assert len(held["requests"]) == 25
    for request in held["requests"]:
        feed = {"history": np.array([request["history"] or [0]]), "state": np.zeros((1, K, D), np.float32)}
        if request["exclude_seen"] and request["history"]:
            feed["exclude"] = np.unique(feed["history"])[None]
        items, scores = session.run(["items", "scores"], feed)
        assert not disagreement(request, items[0].tolist(), scores[0].tolist(), held["tolerance"])


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_do_not_saturate(tmp_path: Path, sign: int) -> None:
    made = tower(shared=True)
    flat = replace(made, item_out=np.full((N, D), sign, np.float32), bias=np.zeros(N, np.float32))
    session = extracted(flat, tmp_path)
    feed = {"history": np.array([[1]]), "state": np.zeros((1, K, D), np.float32)}
    assert session.run(["scores"], feed)[0] == pytest.approx(np.full((1, 10), 5 * D**0.5), abs=1e-3)
