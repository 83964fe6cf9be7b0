"""What quantization changes in a graph by hand: weights stored small, no scale of 0, and whether products are safe."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgerec.errors import UsageError
from edgerec.runtime.layout import SMALLEST_SCALE, quantize_rows

NARROW = 8  # columns: a row of fewer saves little, with a scale of four bytes
MADE_BY_ROUNDING = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
MADE_BY_ROUNDING |= {"MatMulInteger", "QLinearMatMul", "MatMulNBits"}
PRODUCTS = {"MatMulInteger": 1, "QLinearMatMul": 3}  # the place of the weight in their inputs
SCALES = {"DequantizeLinear": 1, "QuantizeLinear": 1, "MatMulNBits": 2, "QLinearMatMul": 4}  # and of a scale
SAFE = 64  # |weight| up to which two products with 255 stay within 16 bits: 2 * 255 * 64 < 2 ** 15

Constants = dict[str, TensorProto]
New = dict[str, NDArray[np.generic]]  # constants by name


def constants(model: onnx.ModelProto) -> Constants:
    """Return the constants that lie in a graph, by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def rounding_operators(graph: bytes) -> list[str]:
    """Return which operators of a quantized graph there are in a graph."""
    return sorted({node.op_type for node in onnx.load_from_string(graph).graph.node} & MADE_BY_ROUNDING)


def multiplies_by_constant(graph: bytes) -> bool:
    """Tell whether a graph has a MatMul with a constant on its right, as a layer has and a static student has not."""
    model = onnx.load_from_string(graph)
    known = constants(model)
    return any(node.op_type == "MatMul" and node.input[1] in known for node in model.graph.node)


def floored(graph: bytes) -> bytes:
    """Return a graph without a scale of 0, which a dead channel has, and TensorRT rejects.

    Scales of MatMulNBits may be negative.

    Raises:
        UsageError: A scale is not a finite number.
    """
    model = onnx.load_from_string(graph)
    known, changed = constants(model), False
    for node in model.graph.node:
        tensor = known.get(node.input[SCALES[node.op_type]]) if node.op_type in SCALES else None
        if tensor is None:
            continue
        scale = numpy_helper.to_array(tensor)
        if not np.isfinite(scale).all():
            raise UsageError(f"the scales {tensor.name} are not all finite; calibrate on other titles, or train again")
        if (scale == 0).any():
            raised = np.where(scale == 0, np.array(SMALLEST_SCALE, scale.dtype), scale)
            tensor.CopyFrom(numpy_helper.from_array(raised, tensor.name))
            changed = True
    return model.SerializeToString() if changed else graph


def saturates(graph: bytes) -> bool:
    """Tell whether products of the graph can saturate on x86 without VNNI: with a signed weight beyond +-64.

    AVX2 adds two products of an unsigned and a signed byte in 16 bits. Weights that are unsigned are multiplied
    otherwise; activations that are signed are not: onnxruntime makes them unsigned on x86.
    """
    model = onnx.load_from_string(graph)
    known = constants(model)
    for name in [*integer_weights(model), *weights_between_pairs(model)]:
        if name in known and known[name].data_type == TensorProto.INT8:
            codes = numpy_helper.to_array(known[name]).astype(np.int16)
            if np.abs(codes).max(initial=0) > SAFE:
                return True
    return False


def integer_weights(model: onnx.ModelProto) -> list[str]:
    """Return the names of what integer products multiply by."""
    return [node.input[PRODUCTS[node.op_type]] for node in model.graph.node if node.op_type in PRODUCTS]


def weights_between_pairs(model: onnx.ModelProto) -> list[str]:
    """Return the weights of MatMuls between two DequantizeLinear, of which onnxruntime makes integer products."""
    made_by = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    found = []
    for node in model.graph.node:
        if node.op_type == "MatMul" and set(node.input) <= made_by.keys():
            found.append(made_by[node.input[1]].input[0])
    return found


def stored_in_half(graph: bytes) -> bytes:
    """Return a graph whose float constants of two and more dimensions lie in it as float16, computed with in float32.

    Raises:
        UsageError: A constant is beyond what float16 holds.
    """
    model = onnx.load_from_string(graph)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            name, whole = f"{tensor.name}.f16", numpy_helper.to_array(tensor)
            if np.abs(whole).max(initial=0) > np.finfo(np.float16).max:
                raise UsageError(f"{tensor.name} holds numbers beyond float16; name another precision")
            casts.append(helper.make_node("Cast", [name], [tensor.name], name, to=TensorProto.FLOAT))
            tensor.CopyFrom(numpy_helper.from_array(whole.astype(np.float16), name))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def stored_in_int8(graph: bytes, operators: Sequence[str]) -> bytes:
    """Return a graph whose constant float matrices lie in it as INT8, and are computed with in float32.

    Args:
        graph: Any.
        operators: Whose matrices: of ``MatMul`` (a scale per column), of ``Gather`` (a scale per row).
    """
    model = onnx.load_from_string(graph)
    known, nodes = constants(model), list[onnx.NodeProto]()
    new: New = {}
    for node in model.graph.node:
        place = {"MatMul": 1, "Gather": 0}[node.op_type] if node.op_type in operators else 0
        if node.op_type in operators and is_matrix(known.get(node.input[place])):
            make = rounded_matmul if node.op_type == "MatMul" else rounded_gather
            nodes += make(node, numpy_helper.to_array(known[node.input[place]]), new)
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    kept += [numpy_helper.from_array(array, name) for name, array in new.items()]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)
    return model.SerializeToString()


def is_matrix(tensor: TensorProto | None) -> bool:
    """Tell whether a constant is a float matrix that gains by INT8."""
    return (
        tensor is not None
        and tensor.data_type == TensorProto.FLOAT
        and len(tensor.dims) == 2
        and tensor.dims[1] >= NARROW
    )


def rounded_matmul(node: onnx.NodeProto, weight: NDArray[np.float32], new: New) -> list[onnx.NodeProto]:
    """Return a MatMul behind a DequantizeLinear, which onnxruntime computes once, as it loads the graph."""
    codes, scale, zero, name = (f"{node.input[1]}.{part}" for part in ("i8", "scale", "zero", "rounded"))
    last = helper.make_node("MatMul", [node.input[0], name], node.output, node.name)
    if codes in new:
        return [last]
    columns, steps = quantize_rows(np.ascontiguousarray(weight.T))
    new |= {codes: np.ascontiguousarray(columns.T), scale: steps, zero: np.zeros(len(steps), np.int8)}
    return [helper.make_node("DequantizeLinear", [codes, scale, zero], [name], name, axis=1), last]


def rounded_gather(node: onnx.NodeProto, table: NDArray[np.float32], new: New) -> list[onnx.NodeProto]:
    """Return a Gather of INT8 rows times their scales: the table itself is never held as floats."""
    codes, scale, output = f"{node.input[0]}.rows.i8", f"{node.input[0]}.rows.scale", node.output[0]
    if codes not in new:
        rows, steps = quantize_rows(table)
        new |= {codes: rows, scale: steps[:, None]}
    made = [f"{output}.{part}" for part in ("codes", "floats", "scales")]
    return [
        helper.make_node("Gather", [codes, node.input[1]], [made[0]], made[0]),
        helper.make_node("Cast", [made[0]], [made[1]], made[1], to=TensorProto.FLOAT),
        helper.make_node("Gather", [scale, node.input[1]], [made[2]], made[2]),
        helper.make_node("Mul", made[1:], [output], node.name),
    ]
