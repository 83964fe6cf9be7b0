"""Every precision answers as fp32 does within its tolerance, dead channels and all, or says why there is none."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tokenizers
from numpy.typing import NDArray
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator
from onnx.version_converter import convert_version

import pytest

from edgerec.errors import UsageError
from edgerec.export import PRECISIONS
from edgerec.export.limits import LIMITS
from edgerec.export.quantization import CANDIDATES, Calibration, calibration, made
from edgerec.export.rounded_graph import SCALES, constants, floored, saturates, stored_in_half, stored_in_int8
from edgerec.runtime.text import EIGHT_BITS

TEXTS = [f"title {colour} {number}" for colour in ("red", "blue") for number in range(12)]
HERE = [
    name for name in PRECISIONS if CANDIDATES[name].unavailable() is None and name != "qat"
]  # it takes another graph
STATIC = {"fp32", "fp16", "int8-dynamic", "int8-weights"}  # what a student without layers can have


@pytest.fixture(scope="module")
def graph(small_bert: Path) -> bytes:
    """The graph of a random BERT of two layers, with a projection and a cold map."""
    from edgerec.distill.text_encoder import TeacherEncoder
    from edgerec.distill.towers import ColdMap
    from edgerec.export.item_encoder import ItemEncoder, export_fp32

    rng = np.random.default_rng(0)
    projection = rng.normal(size=(24, 16)).astype(np.float32)
    cold = ColdMap(*(rng.normal(size=(17, *shape)).astype(np.float32) for shape in ((16,), (16,), ())))
    return export_fp32(ItemEncoder(TeacherEncoder(small_bert, projection_of(projection)), cold, False).eval(), 21)


def projection_of(array: NDArray[np.float32]) -> Any:
    """Return an array as torch has it."""
    import torch

    return torch.from_numpy(array)


@pytest.fixture
def titles(small_bert: Path) -> Calibration:
    """Titles as that BERT reads them."""
    return calibration(tokenizers.Tokenizer.from_file(str(small_bert / "tokenizer.json")), TEXTS)


def run(graph: bytes, titles: Calibration) -> NDArray[np.float32]:
    """Return the text vectors of the titles, float32 [n, d]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["text_vector"], feed)[0] for feed in titles.feeds])


def changed(graph: bytes, change: Callable[[str, Any], Any]) -> bytes:
    """Return a graph whose float constants went through a function of name and array."""
    model = onnx.load_from_string(graph)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(change(tensor.name, array.copy()), tensor.name))
    return model.SerializeToString()


def stored(graph: bytes) -> int:
    """Return the bytes of a graph's constants."""
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in onnx.load_from_string(graph).graph.initializer)


def scales(graph: bytes) -> list[Any]:
    """Return every scale of a graph."""
    model = onnx.load_from_string(graph)
    known = constants(model)
    names = [node.input[SCALES[node.op_type]] for node in model.graph.node if node.op_type in SCALES]
    return [numpy_helper.to_array(known[name]) for name in names if name in known]


def test_every_precision_has_a_candidate() -> None:
    assert set(CANDIDATES) == set(PRECISIONS)
    assert len(HERE) >= 5


@pytest.mark.parametrize("name", HERE)
def test_a_candidate_is_near_fp32_smaller_and_the_same_again(name: str, graph: bytes, titles: Calibration) -> None:
    first = made(name, graph, titles)
    assert first == made(name, graph, titles)
    distance = 1 - (run(first, titles) * run(graph, titles)).sum(axis=1)
    assert distance.max() <= LIMITS[name].text_distance
    assert name == "fp32" or stored(first) < 0.7 * stored(graph)
    assert saturates(first) == (name in EIGHT_BITS)


@pytest.mark.parametrize("name", [name for name in HERE if "blocks" not in name])  # MatMulNBits is onnxruntime's own
def test_a_candidate_is_standard_and_onnxs_reference_evaluator_runs_it(
    name: str, graph: bytes, titles: Calibration
) -> None:
    model = onnx.load_from_string(made(name, graph, titles))
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    referee = ReferenceEvaluator(convert_version(model, 19))  # it knows DequantizeLinear from there on
    got = np.concatenate([referee.run(["text_vector"], feed)[0] for feed in titles.feeds])
    assert (1 - (got * run(model.SerializeToString(), titles)).sum(axis=1)).max() < 1e-4


@pytest.mark.parametrize("name", HERE)
def test_dead_channels_and_constant_activations_leave_no_scale_of_zero(
    name: str, graph: bytes, titles: Calibration
) -> None:
    def dead(tensor: str, array: Any) -> Any:
        if array.ndim == 2:
            array[:, 0] = 0  # a column that nothing comes through
            array[3 % len(array)] = 0
        if "LayerNorm.weight" in tensor and "layer.0.attention" in tensor:
            array[:] = 0  # from here on, every token has the same activations
        return array

    altered = changed(graph, dead)
    rounded = made(name, altered, titles)
    for scale in scales(rounded):
        assert np.isfinite(scale).all() and (scale != 0).all()
    assert np.isfinite(run(rounded, titles)).all()


def test_a_dead_matrix_keeps_scales_that_can_be_divided_by(graph: bytes, titles: Calibration) -> None:
    altered = changed(graph, lambda name, array: array * 0 if array.shape == (24, 48) else array)
    for name in HERE:
        rounded = made(name, altered, titles)
        assert all((scale != 0).all() for scale in scales(rounded))
        distance = 1 - (run(rounded, titles) * run(altered, titles)).sum(axis=1)
        assert distance.max() <= LIMITS[name].text_distance


def test_a_scale_of_zero_is_raised_and_one_that_is_no_number_refused() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (int8[1, 2] x) => (float[1, 2] y) <float[2] s = {0.0, 2.0}, int8[2] z = {0, 0}>
    { y = DequantizeLinear<axis = 1>(x, s, z) }"""
    model = parser.parse_model(text)
    (found,) = scales(floored(model.SerializeToString()))
    assert 0 < found[0] < 1e-9 and found[1] == 2
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32([np.nan, 1]), "s"))
    with pytest.raises(UsageError, match="not all finite"):
        floored(model.SerializeToString())


def test_no_title_is_refused_by_who_calibrates_and_one_title_is_enough(graph: bytes, titles: Calibration) -> None:
    nothing, one = Calibration([], 0), Calibration(titles.feeds[:1], 0)
    with pytest.raises(UsageError, match="int8-static got no title"):
        made("int8-static", graph, nothing)
    assert made("int8-weights", graph, nothing) == made("int8-weights", graph, titles)
    assert np.isfinite(run(made("int8-static", graph, one), titles)).all()


def test_titles_are_drawn_by_seed_each_alone_and_leave_the_tokenizer_as_it_was(small_bert: Path) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(small_bert / "tokenizer.json"))
    before = tokenizer.to_str()
    one, same, other = (calibration(tokenizer, TEXTS * 2, seed, 5) for seed in (0, 0, 1))
    assert tokenizer.to_str() == before
    ids = [[feed["input_ids"].tolist() for feed in drawn.feeds] for drawn in (one, same, other)]
    assert ids[0] == ids[1] != ids[2]
    assert one.record == {"titles": 5, "seed": 0}
    assert calibration(tokenizer, [], 0).record["titles"] == 0
    assert all(feed["attention_mask"].all() for feed in one.feeds)


@pytest.mark.parametrize("name", [name for name in HERE if name not in ("fp32", "fp16")])
def test_what_is_quantized_already_is_refused(name: str, graph: bytes, titles: Calibration) -> None:
    with pytest.raises(UsageError, match="quantized already"):
        made("int8-weights", made(name, graph, titles), titles)


def test_a_graph_without_layers_says_what_it_cannot_have(titles: Calibration) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (int64[b, l] input_ids) => (float[b, l, h] y) { y = Gather(table, input_ids) }"""
    model = parser.parse_model(text.replace("{ y", "<float[1, 1] table = {0.0}> { y"))
    table = np.random.default_rng(0).normal(size=(9, 16)).astype(np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    static = model.SerializeToString()
    for name in set(HERE) - STATIC - {"int8-qdq", "qat"}:
        with pytest.raises(UsageError, match=f"{name} quantizes MatMul by constants"):
            made(name, static, titles)
    for name in STATIC:
        assert made(name, static, titles)


def test_a_candidate_of_what_is_not_installed_says_so(
    graph: bytes, titles: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(UsageError, match=r"onnx_ir is not available .*edgerec\[export\]"):
        made("int8-blocks", graph, titles)
    assert CANDIDATES["fp32"].unavailable() is None


def test_int8_storage_rounds_by_column_and_row_and_keeps_the_original_where_it_is_used_otherwise() -> None:
    rng = np.random.default_rng(0)
    weight, table = (rng.normal(size=shape).astype(np.float32) for shape in ((8, 8), (5, 8)))
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (int64[n] ids) => (float[n, 8] y, float[n, 8] twice, float[8, 8] same)
    { x = Gather(table, ids) y = MatMul(x, weight) twice = MatMul(y, weight) same = Identity(weight) }"""
    model = parser.parse_model(text.replace("\n    {", " <float[1] table = {0}, float[1] weight = {0}> {"))
    for place, (name, array) in enumerate({"table": table, "weight": weight}.items()):
        model.graph.initializer[place].CopyFrom(numpy_helper.from_array(array, name))
    rounded = stored_in_int8(model.SerializeToString(), ("MatMul", "Gather"))
    session = onnxruntime.InferenceSession(rounded, providers=["CPUExecutionProvider"])
    y, twice, same = session.run(None, {"ids": np.arange(5)})
    rows, columns = (np.abs(array).max(axis=axis, keepdims=True) / 127 for array, axis in ((table, 1), (weight, 0)))
    expected = np.rint(table / rows) * rows @ (np.rint(weight / columns) * columns)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(twice, expected @ (np.rint(weight / columns) * columns), atol=1e-4)
    np.testing.assert_array_equal(same, weight)
    assert "table" not in constants(onnx.load_from_string(rounded))


def test_numbers_beyond_float16_are_refused(graph: bytes) -> None:
    with pytest.raises(UsageError, match="beyond float16"):
        stored_in_half(changed(graph, lambda name, array: array * 1e6 if array.ndim == 2 else array))


def test_full_range_weights_are_found_between_dequantizers() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (uint8[1, 2] x) => (float[1, 2] y)
    <uint8 zx = {128}, float s = {0.1}, int8[2, 2] w = {1, 2, 3, 127}, int8 zw = {0}>
    { a = DequantizeLinear(x, s, zx) b = DequantizeLinear(w, s, zw) y = MatMul(a, b) }"""
    assert saturates(parser.parse_model(text).SerializeToString())
    assert not saturates(parser.parse_model(text.replace("127}", "64}")).SerializeToString())
    signed = text.replace("uint8[1, 2] x", "int8[1, 2] x").replace("uint8 zx = {128}", "int8 zx = {0}")
    assert saturates(parser.parse_model(signed).SerializeToString())  # onnxruntime makes x unsigned


def test_tools_leave_the_root_logger_as_it_was(graph: bytes, titles: Calibration) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    made("int8-static", graph, titles)
    assert (logging.getLogger().handlers, logging.getLogger().level) == before
