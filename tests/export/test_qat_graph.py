"""What onnxruntime makes of a QAT folder's graph is what torch makes of its fake quantizers; engines can read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

import pytest

from edgerec.distill import checkpoint, student
from edgerec.distill.fake_quantization import calibrated
from edgerec.errors import UsageError
from edgerec.export.qat_graph import qat_graph
from edgerec.export.sparse_gain import fp32_graph
from edgerec.export.tensorrt_ladder import OnnxRuntimeRunner


@pytest.fixture
def trained(untrained: tuple[Path, Path]) -> checkpoint.Checkpoint:
    """The student with calibrated quantizers, as a folder."""
    plain = checkpoint.load(untrained[1])
    encoder, tokenizer_json = student.load(plain.encoder)
    tokens = student.tokenise(tokenizer_json, plain.texts)
    fake = calibrated(encoder, [(tokens["input_ids"], tokens["attention_mask"])])
    student.save(plain.encoder, fake, tokenizer_json)
    return plain


def test_onnxruntime_rounds_as_torch_does(trained: checkpoint.Checkpoint) -> None:
    encoder, tokenizer_json = student.load(trained.encoder)
    tokens = student.tokenise(tokenizer_json, [*trained.texts, "blue", "red red red 3 영화"])
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(encoder(**tokens), dim=-1).numpy()
    feeds = {name: value.numpy() for name, value in tokens.items()}
    got = OnnxRuntimeRunner(qat_graph(fp32_graph(trained)), "CPUExecutionProvider").run(feeds)["text_vector"]
    assert float((1 - (got * wanted).sum(1)).max()) < 1e-5
    (trained.encoder / student.QUANTIZERS).unlink()
    with torch.no_grad():
        plain = torch.nn.functional.normalize(student.load(trained.encoder)[0](**tokens), dim=-1).numpy()
    assert float((1 - (got * plain).sum(1)).max()) > 1e-5  # the rounding is in the graph
    with pytest.raises(UsageError, match="without quantizers"):
        qat_graph(fp32_graph(trained))


def test_weights_lie_as_int8_by_output_and_no_zero_point_or_scale_is_one_that_engines_refuse(
    trained: checkpoint.Checkpoint,
) -> None:
    model = onnx.load_from_string(qat_graph(fp32_graph(trained)))
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 17)]
    stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    made_by = {name: node for node in model.graph.node for name in node.output}
    roundings = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert roundings
    for node in roundings:
        assert stored[node.input[2]].dtype == np.int8 and not stored[node.input[2]].any()
        assert (stored[node.input[1]] > 0).all()
    products = [node for node in model.graph.node if node.op_type == "MatMul" and "dense" in node.name]
    assert len(products) == 3
    for node in products:
        source = made_by[node.input[1]]
        assert source.op_type == "DequantizeLinear" and stored[source.input[0]].dtype == np.int8
        assert len(stored[source.input[1]]) == stored[source.input[0]].shape[1]  # a scale per output of [K, N]
