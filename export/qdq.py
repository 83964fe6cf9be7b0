"""The two graphs that TensorRT builds from, both of the fp32 text encoder: FP16, and INT8 as explicit Q/DQ pairs.

TensorRT 11 takes a network's types from its graph alone, 10 does so where asked (STRONGLY_TYPED), so precision is
written into the graph. FP16: the layers between the first and the last LayerNorm and the embeddings, by Cast;
LayerNorm, softmax, mask, pooling and what follows stay in fp32, inputs and outputs too. INT8: NNCF places symmetric
pairs on both sides of every layer; attention's own products stay unrounded, all or none being TensorRT's rule. Either
way the factor 1/sqrt(d) moves into the query's weights, where TensorRT wants it. ``qdq_lint`` checks the outcome.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgerec.errors import UsageError
from edgerec.export.graph_index import Index, replace_nodes, set_constant
from edgerec.export.qdq_lint import require_clean
from edgerec.quiet_nncf import quiet_nncf

Feed = Mapping[str, NDArray[np.int64]]
IN_FP32 = {"LayerNormalization", "Softmax"}


def fp16_graph(fp32: bytes) -> bytes:
    """Return a strongly typed FP16 graph with the inputs and outputs of the fp32 one.

    Raises:
        UsageError: A weight is beyond what float16 holds.
    """
    model = onnx.load_from_string(fp32)
    fold_attention_scale(model)
    write_half(model, half_region(model))
    return checked(model)


def qdq_graph(fp32: bytes, feeds: Sequence[Feed]) -> bytes:
    """Return a graph of symmetric INT8 pairs: weights per output channel, activations per tensor, zero points 0.

    NNCF's telemetry is switched off for this process.

    Args:
        fp32: As ``item_encoder.export_fp32`` returns it.
        feeds: Real texts to calibrate on: ``input_ids`` and ``attention_mask`` int64 [B, L].

    Raises:
        UsageError: There are no feeds, or the outcome breaks a rule of TensorRT's.
    """
    if not feeds:
        raise UsageError("got no texts to calibrate INT8 on; expected at least 1: give a catalogue with texts")
    model = onnx.load_from_string(fp32)
    fold_attention_scale(model)
    model = with_pairs(model, feeds)
    name_axes(model)
    sign_codes(model)
    share_pairs(model)
    graph = checked(model)
    require_clean(graph)
    return graph


def checked(model: onnx.ModelProto) -> bytes:
    """Return a model's bytes, after onnx's own checker has typed it."""
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def fold_attention_scale(model: onnx.ModelProto) -> None:
    """Move a constant factor of attention's scores into the query's weights and bias, where their layer is plain."""
    for place in range(len(Index(model).attentions())):
        index = Index(model)
        scores = index.attentions()[place].scores
        scaled = index.readers[scores.output[0]]
        factor = scale_of(index, scaled[0]) if len(scaled) == 1 else None
        query = plain_layer(index, scores.input[0])
        if factor is None or query is None:
            continue
        for name in query:
            weights = numpy_helper.to_array(index.tensors[name])
            set_constant(model, f"{name}.scaled", (weights * factor).astype(np.float32))
        for node in index.nodes:
            if set(node.input) & set(query):
                node.input[:] = [f"{name}.scaled" if name in query else name for name in node.input]
        for reader in index.readers[scaled[0].output[0]]:
            reader.input[:] = [scores.output[0] if one == scaled[0].output[0] else one for one in reader.input]
        replace_nodes(model, [node for node in index.nodes if node is not scaled[0]])


def scale_of(index: Index, node: onnx.NodeProto) -> float | None:
    """Return what a node multiplies its first input by, where that is one constant."""
    if node.op_type not in {"Mul", "Div"}:
        return None
    value = index.constant(node.input[1])
    if value is None or value.size != 1:
        return None
    return float(value.reshape(())) if node.op_type == "Mul" else 1 / float(value.reshape(()))


def plain_layer(index: Index, name: str) -> list[str] | None:
    """Return the names of weight and bias of the layer behind a value, where only that layer reads them."""
    added = index.source(name)
    if added is None or added.op_type != "Add":
        return None
    bias = [one for one in added.input if index.constant(one) is not None]
    product = [node for one in added.input if (node := index.maker.get(one)) is not None and node.op_type == "MatMul"]
    if len(bias) != 1 or len(product) != 1 or index.constant(product[0].input[1]) is None:
        return None
    found = [product[0].input[1], bias[0]]
    return found if all(len(index.readers[one]) == 1 for one in found) else None


def half_region(model: onnx.ModelProto) -> set[str]:
    """Return first outputs of the nodes to compute in FP16: embeddings, and layers between the outer LayerNorms."""
    index, inside = Index(model), set()
    norms = [node for node in index.nodes if node.op_type == "LayerNormalization"]
    masks = reached(index, ["attention_mask"], {"Softmax", "Shape"})
    if norms:
        layers = reached(index, norms[0].output, set()) & behind(index, norms[-1].output)
        inside = {node.output[0] for node in index.nodes if node.op_type not in IN_FP32} & (layers - masks)
    tables = {node.output[0] for node in index.nodes if node.op_type == "Gather" and is_table(index, node.input[0])}
    return inside | tables


def is_table(index: Index, name: str) -> bool:
    """Tell whether a value is a constant of rows of more than one float."""
    value = index.constant(name)
    return value is not None and value.dtype == np.float32 and value.ndim == 2 and value.shape[1] > 1


def reached(index: Index, names: Sequence[str], stops: set[str]) -> set[str]:
    """Return the values that depend on some, not going on behind the operators ``stops``."""
    found, waiting = set(names), list(names)
    while waiting:
        for node in index.readers[waiting.pop()]:
            if node.op_type not in stops and not found & set(node.output):
                found |= set(node.output)
                waiting += node.output
    return found


def behind(index: Index, names: Sequence[str]) -> set[str]:
    """Return the values that some depend on, themselves included."""
    found, waiting = set(names), list(names)
    while waiting:
        node = index.maker.get(waiting.pop())
        new = set(node.input) - found if node is not None else set()
        found |= new
        waiting += new
    return found


def write_half(model: onnx.ModelProto, region: set[str]) -> None:
    """Make nodes compute in FP16, and write a Cast wherever a float crosses to or from them.

    Args:
        model: Changed in place.
        region: First outputs of the nodes; none of them is an output of the graph.
    """
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    floats = {one.name for one in typed.graph.value_info if one.type.tensor_type.elem_type == TensorProto.FLOAT}
    index, nodes, halves, crossed = Index(model), [], set(), set()
    floats |= {name for name, tensor in index.tensors.items() if tensor.data_type == TensorProto.FLOAT}
    for node in index.nodes:
        inside = node.output[0] in region and node.output[0] in floats
        for place, name in enumerate(node.input):
            crosses = name in floats and inside != (name in halves) and node.op_type != "Shape"
            if not crosses:
                continue
            other = f"{name}.f{16 if inside else 32}"
            if other not in crossed and (value := index.constant(name)) is not None:
                set_constant(model, other, in_half(name, value))
            elif other not in crossed:
                kind = TensorProto.FLOAT16 if inside else TensorProto.FLOAT
                nodes.append(helper.make_node("Cast", [name], [other], other, to=kind))
            crossed.add(other)
            node.input[place] = other
        nodes.append(node)
        halves |= set(node.output) if inside else set()
    replace_nodes(model, nodes)


def in_half(name: str, value: NDArray[Any]) -> NDArray[np.float16]:
    """Return a constant as float16."""
    largest = float(np.abs(value).max(initial=0))
    if largest > float(np.finfo(np.float16).max):
        raise UsageError(
            f"{name} holds {largest:.3g}; expected at most 65504, what float16 holds: name another precision"
        )
    return value.astype(np.float16)


def with_pairs(model: onnx.ModelProto, feeds: Sequence[Feed]) -> onnx.ModelProto:
    """Return the model with the pairs that NNCF places."""
    nncf = quiet_nncf()
    nncf.set_log_level(logging.ERROR)
    from nncf.quantization import advanced_parameters as advanced

    constants = {one.name for one in model.graph.initializer}
    computed = [one.name for one in model.graph.node if one.op_type == "MatMul" and constants.isdisjoint(one.input)]
    ignored = nncf.IgnoredScope(
        names=computed,  # attention's, and a static student's mean
        types=["Gemm"],  # head and cold map enlarge errors, and cost little
        validate=False,
    )
    with redirect_stdout(StringIO()):  # its progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(feeds),
            preset=nncf.QuantizationPreset.PERFORMANCE,  # symmetric; MIXED gives zero points that TensorRT refuses
            model_type=nncf.ModelType.TRANSFORMER,  # without it activations are uint8
            subset_size=len(feeds),
            ignored_scope=ignored,
            advanced_parameters=advanced.AdvancedQuantizationParameters(
                smooth_quant_alphas=advanced.AdvancedSmoothQuantParameters(matmul=-1)  # adds Mul nodes
            ),
        )


def name_axes(model: onnx.ModelProto) -> None:
    """Count axes from the front: TensorRT's parser reads none from the back."""
    index = Index(model)
    for node in index.nodes:
        codes = index.constant(node.input[0]) if node.op_type == "DequantizeLinear" else None
        for one in node.attribute:
            if codes is not None and one.name == "axis" and one.i < 0:
                one.i += codes.ndim


def sign_codes(model: onnx.ModelProto) -> None:
    """Give unsigned codes, which nncf takes for values that are never negative, the signed ones' scale and type.

    TensorRT accepts UINT8 with a warning, and then cuts off at 127.
    """
    index, done = Index(model), set[str]()
    for node in index.nodes:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"} or len(node.input) < 3:
            continue
        zero, scale = index.constant(node.input[2]), index.constant(node.input[1])
        if zero is None or scale is None or zero.dtype != np.uint8 or zero.any():
            continue
        for name, value in (
            (node.input[1], scale * scale.dtype.type(255 / 127)),
            (node.input[2], zero.astype(np.int8)),
        ):
            if name not in done:
                set_constant(model, name, value)
                done.add(name)


def share_pairs(model: onnx.ModelProto) -> None:
    """Round a value once where several layers read it at the same scale, as those of query, key and value do."""
    index = Index(model)
    first: dict[tuple[str, float], str] = {}
    renamed: dict[str, str] = {}
    for node in index.nodes:
        scale = index.constant(node.input[1]) if node.op_type == "QuantizeLinear" else None
        if scale is None or scale.size != 1:
            continue
        pair = index.readers[node.output[0]][0].output[0]
        kept = first.setdefault((node.input[0], float(scale.reshape(()))), pair)
        if kept != pair:
            renamed |= {pair: kept, node.output[0]: ""}
    nodes = [node for node in index.nodes if node.output[0] not in renamed]
    for node in nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    replace_nodes(model, nodes)
