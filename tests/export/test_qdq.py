"""FP16 and INT8 graphs of one fp32 source: typed as written, clean, and near what the source answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

import pytest

from edgerec.distill.static import StaticEncoder
from edgerec.distill.student import StudentEncoder
from edgerec.distill.towers import ColdMap
from edgerec.errors import UsageError
from edgerec.export.graph_index import Index
from edgerec.export.item_encoder import ItemEncoder, export_fp32
from edgerec.export.qdq import fp16_graph, qdq_graph
from edgerec.export.qdq_lint import check_qdq
from edgerec.export.tensorrt_ladder import OnnxRuntimeRunner

D, VOCABULARY = 8, 21


def exported(encoder: Any) -> bytes:
    """Export an encoder with a random cold map."""
    rng = np.random.default_rng(0)
    cold = ColdMap(*(rng.normal(0, 0.3, shape).astype(np.float32) for shape in ((D + 1, D), (D + 1, D), (D + 1,))))
    return export_fp32(ItemEncoder(encoder, cold, False).eval(), VOCABULARY)


def tiny(folder: Path) -> bytes:
    """Export a small BERT whose LayerNorms and biases are not those of a start."""
    from transformers import BertModel

    torch.manual_seed(0)
    bert = BertModel.from_pretrained(folder, attn_implementation="eager")
    for name, weights in bert.named_parameters():
        torch.nn.init.normal_(weights, 1.0 if "LayerNorm.weight" in name else 0.0, 0.2)
    return exported(StudentEncoder(bert, D))


@pytest.fixture(scope="module", params=["tiny", "static"])
def fp32(request: pytest.FixtureRequest, small_bert: Path) -> bytes:
    torch.manual_seed(0)
    return tiny(small_bert) if request.param == "tiny" else exported(StaticEncoder(VOCABULARY, 12, D))


@pytest.fixture(scope="module")
def feeds() -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    ids = [rng.integers(4, VOCABULARY, (1, int(length))) for length in rng.integers(3, 12, 40)]
    return [{"input_ids": one, "attention_mask": np.ones_like(one)} for one in ids]


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    ids = np.random.default_rng(2).integers(1, VOCABULARY, (5, 12))
    mask = (np.arange(12) < np.array([12, 7, 3, 1, 9])[:, None]).astype(np.int64)
    return {"input_ids": ids * mask, "attention_mask": mask}


def distance(graph: bytes, source: bytes, batch: dict[str, Any]) -> tuple[float, float]:
    """Return the largest cosine distance of text vectors, and the largest difference of the others."""
    got, wanted = (OnnxRuntimeRunner(one, "CPUExecutionProvider").run(batch) for one in (graph, source))
    assert {name: (array.dtype, array.shape) for name, array in got.items()} == {
        name: (array.dtype, array.shape) for name, array in wanted.items()
    }
    cosine = (got.pop("text_vector") * wanted.pop("text_vector")).sum(1)
    return float(1 - cosine.min()), max(float(np.abs(got[name] - wanted[name]).max()) for name in got)


def test_fp16_is_written_into_the_graph_and_answers_as_fp32(fp32: bytes, batch: dict[str, Any]) -> None:
    graph = fp16_graph(fp32)
    cosine, difference = distance(graph, fp32, batch)
    assert cosine < 1e-4 and 0 < difference < 0.02
    assert check_qdq(onnx.load_from_string(graph)) == []


def test_layers_are_half_and_norms_softmax_and_the_outside_are_not(small_bert: Path) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(fp16_graph(tiny(small_bert))), strict_mode=True)
    kinds = {one.name: one.type.tensor_type.elem_type for one in [*model.graph.value_info, *model.graph.output]}
    found: dict[str, set[int]] = {}
    for node in model.graph.node:
        found.setdefault(node.op_type, set()).add(kinds.get(node.output[0], 0))
    assert found["MatMul"] == found["Erf"] == {TensorProto.FLOAT16}
    assert found["LayerNormalization"] == found["Softmax"] == found["ReduceL2"] == {TensorProto.FLOAT}
    assert found["Gemm"] == {TensorProto.FLOAT}
    embeddings = {one.name: one.data_type for one in model.graph.initializer if "word_embeddings" in one.name}
    assert set(embeddings.values()) == {TensorProto.FLOAT16}


def test_int8_is_clean_small_and_near_fp32(fp32: bytes, feeds: list[dict[str, Any]], batch: dict[str, Any]) -> None:
    graph = qdq_graph(fp32, feeds)
    assert check_qdq(onnx.load_from_string(graph)) == []
    cosine, difference = distance(graph, fp32, batch)
    assert 0 < cosine < 0.02 and difference > 0
    index = Index(onnx.load_from_string(graph))
    rounded = [node for node in index.nodes if node.op_type == "QuantizeLinear"]
    assert len({node.input[0] for node in rounded}) == len(rounded)  # a value that three layers read is rounded once
    layers = [node for node in index.nodes if node.op_type == "MatMul" and index.weight(node.input[1]) is not None]
    assert all(index.constant(node.input[1]) is None for node in layers)
    assert len(layers) in {0, 12}  # a static student has none; a BERT layer has six


def test_the_scale_of_attention_lies_in_the_query(small_bert: Path, batch: dict[str, Any]) -> None:
    source = tiny(small_bert)
    for graph, divided in ((source, True), (fp16_graph(source), False)):
        index = Index(onnx.load_from_string(graph))
        readers = [index.readers[one.scores.output[0]][0].op_type for one in index.attentions()]
        assert readers == ["Div" if divided else "Cast"] * 2


def test_a_dead_channel_gets_a_scale_above_zero(small_bert: Path, feeds: list[dict[str, Any]]) -> None:
    model = onnx.load_from_string(tiny(small_bert))
    index = Index(model)
    name = next(node.input[1] for node in index.nodes if node.op_type == "MatMul" and node.input[1] in index.tensors)
    weights = index.constant(name)
    assert weights is not None
    dead = weights.copy()
    dead[:, 3] = 0
    index.tensors[name].CopyFrom(onnx.numpy_helper.from_array(dead, name))
    assert check_qdq(onnx.load_from_string(qdq_graph(model.SerializeToString(), feeds))) == []


def test_what_float16_cannot_hold_and_no_texts_are_refused(small_bert: Path) -> None:
    source = tiny(small_bert)
    with pytest.raises(UsageError, match="no texts to calibrate"):
        qdq_graph(source, [])
    model = onnx.load_from_string(source)
    table = next(one for one in model.graph.initializer if "word_embeddings" in one.name)
    large = onnx.numpy_helper.to_array(table) * 1e6
    table.CopyFrom(onnx.numpy_helper.from_array(large.astype(np.float32), table.name))
    with pytest.raises(UsageError, match="word_embeddings.weight holds .*expected at most 65504"):
        fp16_graph(model.SerializeToString())


def test_a_graph_without_norms_or_tables_stays_as_it_is() -> None:
    given, made = (helper.make_tensor_value_info(name, 1, ["b", 2]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert fp16_graph(model.SerializeToString()) == model.SerializeToString()
