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
import tokenizers

from edgerec.distill.checkpoint import Checkpoint
from edgerec.distill.fake_quantization import quantizers
from edgerec.distill.student import load
from edgerec.errors import UsageError
from edgerec.export.item_encoder import ItemEncoder, export_fp32


def qat_graph(trained: Checkpoint) -> bytes:
    """Return ``item_encoder.onnx`` of a folder that ``edgerec qat`` wrote.

    Raises:
        UsageError: The model was not trained for INT8.
    """
    encoder, tokenizer_json = load(trained.encoder)
    if quantizers(encoder) is None:
        raise UsageError(f"{trained.folder} has no quantizers; expected a folder that `edgerec qat` wrote")
    arrays = trained.towers.arrays()
    vocabulary = tokenizers.Tokenizer.from_str(tokenizer_json).get_vocab_size()
    return folded(export_fp32(ItemEncoder(encoder, arrays.cold, arrays.shared).eval(), vocabulary))


def folded(graph: bytes) -> bytes:
    """Return a graph whose constants are computed: weights as int8, transposed as the products want them.

    onnxruntime's basic optimisations do that and leave standard operators only; the domains of others, which it lists
    all the same, are taken out.
    """
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
