"""The graph of a student that was trained for INT8: QuantizeLinear and DequantizeLinear where its quantizers were.

Weights lie in the file as int8 [K, N], one scale per output; activations are int8 with zero-point 0 and one scale. That
is the form that TensorRT and onnxruntime both read. Opset 17: with 21, nncf's kind of graph does not load in some
versions of onnxruntime.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxruntime

from edgerec.errors import UsageError


def qat_graph(graph: bytes) -> bytes:
    """Return a graph of fake quantizers with its weights as int8, transposed as the products want them.

    onnxruntime's basic optimisations do that and leave standard operators only; the domains of others, which it lists
    all the same, are taken out.

    Args:
        graph: What ``export_fp32`` makes of a student that ``edgerec qat`` trained.

    Raises:
        UsageError: There are no quantizers in it.
    """
    if not any(node.op_type == "QuantizeLinear" for node in onnx.load_from_string(graph).graph.node):
        raise UsageError("got a model without quantizers; expected a folder that `edgerec qat` wrote")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        model = onnx.load(path)
    standard = [one for one in model.opset_import if one.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(standard)
    onnx.checker.check_model(model)
    return model.SerializeToString()
