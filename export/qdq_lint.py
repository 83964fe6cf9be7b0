"""What TensorRT 10 and 11 ask of an INT8 graph, as a linter: every violation at once, with its node and its rule.

Found by trying graphs on NVIDIA's RTX parser, and, for where the pairs have to lie, in NVIDIA's answers (GitHub,
NVIDIA/TensorRT #3243, #3724) and its guide to fused attention. A pair in a wrong place parses, and costs speed or
accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto

from edgerec.errors import UsageError
from edgerec.export.graph_index import Index, Node, attribute

LARGEST_OPSET = 20  # TensorRT 10.3, JetPack 6
REFUSED = {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "FakeQuantize"}
ROUNDING = {"QuantizeLinear", "DequantizeLinear"}
INSIDE_NORM = {"LayerNormalization", "Softmax", "ReduceMean", "Pow", "Sqrt"}
KINDS = {TensorProto.INT16: "no-int16", TensorProto.UINT16: "no-int16", TensorProto.INT32: "no-int32-bias"}


class Violation(NamedTuple):
    """What is wrong, where, and which rule says so."""

    node: str
    rule: str
    detail: str

    def __str__(self) -> str:
        """Return it as one phrase."""
        return f"{self.node}: {self.rule}: {self.detail}"


Rule = Callable[[Index], Iterator[Violation]]


def check_qdq(model: onnx.ModelProto) -> list[Violation]:
    """Return every violation of every rule in a graph."""
    index = Index(model)
    return [one for rule in RULES for one in rule(index)]


def require_clean(graph: bytes) -> None:
    """Refuse a graph that breaks a rule.

    Raises:
        UsageError: It does; all violations are named.
    """
    if found := check_qdq(onnx.load_from_string(graph)):
        listed = "; ".join(map(str, found))
        raise UsageError(f"the graph breaks {len(found)} of TensorRT's rules: {listed}; name another precision")


def opset(index: Index) -> Iterator[Violation]:
    """The opset is one that TensorRT 10.3 reads."""
    for entry in index.model.opset_import:
        if entry.domain in {"", "ai.onnx"} and entry.version > LARGEST_OPSET:
            yield Violation("graph", "opset", f"{entry.version}, expected at most {LARGEST_OPSET}")


def operators(index: Index) -> Iterator[Violation]:
    """No operator that has no parser."""
    for node in index.nodes:
        if node.op_type in REFUSED:
            yield Violation(node.name, "operator", f"{node.op_type} does not parse; expected Q/DQ pairs")


def types(index: Index) -> Iterator[Violation]:
    """Codes are int8: uint8 saturates in silence, int16 does not parse, nor does an INT32 bias."""
    for node in rounding(index):
        tensor = index.tensors.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        point = index.tensors.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        kind = tensor.data_type if tensor is not None else TensorProto.UINT8 if point is None else point.data_type
        if kind != TensorProto.INT8 and (node.op_type == "QuantizeLinear" or tensor is not None):
            rule = KINDS.get(kind, "int8-only")
            yield Violation(node.name, rule, f"codes are {TensorProto.DataType.Name(kind)}, expected INT8")


def zero_points(index: Index) -> Iterator[Violation]:
    """Zero points are constants of 0."""
    for node in rounding(index):
        if len(node.input) > 2 and node.input[2]:
            value = index.constant(node.input[2])
            if value is None or value.any():
                got = "computed" if value is None else f"{np.unique(value)[-1]}"
                yield Violation(node.name, "zero-point", f"{got}, expected 0")


def scales(index: Index) -> Iterator[Violation]:
    """Scales are constants, above 0 and finite."""
    for node in rounding(index):
        value = index.constant(node.input[1])
        if value is None or not (np.isfinite(value) & (value > 0)).all():
            got = "computed" if value is None else f"{value.min()} to {value.max()}"
            yield Violation(node.name, "scale", f"{got}, expected constants above 0 and finite")


def activations(index: Index) -> Iterator[Violation]:
    """Activations have one scale."""
    for node in rounding(index):
        value = index.constant(node.input[1])
        if index.constant(node.input[0]) is None and value is not None and value.size != 1:
            yield Violation(node.name, "per-tensor", f"{value.size} scales of an activation, expected 1")


def weights(index: Index) -> Iterator[Violation]:
    """Weights have a scale per output channel: axis 1 of [K, N], axis 0 of a Gemm's [N, K] and of a table's rows."""
    for node in index.nodes:
        pair = index.maker.get(node.input[weight_place(node)]) if weight_place(node) is not None else None
        codes = index.constant(pair.input[0]) if pair is not None and pair.op_type == "DequantizeLinear" else None
        if pair is None or codes is None:
            continue
        scale, wanted = index.constant(pair.input[1]), channel_axis(node)
        got = attribute(pair, "axis", 1)
        if scale is None or scale.shape != (codes.shape[wanted],) or got != wanted:
            shape = None if scale is None else list(scale.shape)
            yield Violation(
                pair.name,
                "per-channel",
                f"scales {shape}, axis {got} of {list(codes.shape)}; expected {codes.shape[wanted]}, axis {wanted}",
            )


def both_sides(index: Index) -> Iterator[Violation]:
    """A layer is rounded on both sides or on none."""
    for node in index.nodes:
        if node.op_type in {"MatMul", "Gemm"} and index.weight(node.input[1]) is not None:
            sides = [from_pair(index, name) for name in node.input[:2]]
            if sides[0] != sides[1]:
                yield Violation(node.name, "both-sides", f"only its {('input', 'weight')[sides[1]]} is rounded")


def attention(index: Index) -> Iterator[Violation]:
    """Of queries, keys, softmax and values all are rounded, or none."""
    for scores, softmax, mixed in index.attentions():
        names = ("Q", "K", "softmax", "V")
        found = [from_pair(index, name) for node in (scores, mixed) for name in node.input]
        if any(found) and not all(found):
            some = ", ".join(name for name, one in zip(names, found, strict=True) if one)
            yield Violation(softmax.name, "attention", f"only {some} rounded; expected {', '.join(names)}, or none")


def residuals(index: Index) -> Iterator[Violation]:
    """Of the two values that a residual Add takes, both are rounded, or none."""
    for node in index.nodes:
        if node.op_type == "Add" and all(index.weight(name) is None for name in node.input):
            sides = [from_pair(index, name) for name in node.input]
            if sides[0] != sides[1]:
                yield Violation(node.name, "residual", "only one of its inputs is rounded")


def biases(index: Index) -> Iterator[Violation]:
    """Nothing is rounded between a product and its bias."""
    for node in index.nodes:
        if node.op_type != "Add" or all(index.weight(name) is None for name in node.input):
            continue
        for name in node.input:
            rounded = rounded_value(index, name)
            made = index.source(rounded) if rounded else None
            if made is not None and made.op_type == "MatMul" and index.weight(made.input[1]) is not None:
                yield Violation(node.name, "bias", f"a pair between {made.name} and its bias")


def gelu(index: Index) -> Iterator[Violation]:
    """What enters GELU is not rounded."""
    for node in index.nodes:
        if node.op_type not in {"Gelu", "Erf"}:
            continue
        made = index.source(node.input[0])
        while made is not None and made.op_type in {"Mul", "Div"}:  # by sqrt(2)
            made = index.source(made.input[0])
        if made is not None and made.op_type == "DequantizeLinear":
            yield Violation(made.name, "gelu", f"a pair before {node.name}")


def norms(index: Index) -> Iterator[Violation]:
    """Nothing is rounded inside LayerNorm and softmax."""
    for node in index.nodes:
        if node.op_type in INSIDE_NORM:
            for name in node.input:
                if from_pair(index, name):
                    yield Violation(node.name, "norm", f"a pair in front of {node.op_type}")


def pairs(index: Index) -> Iterator[Violation]:
    """QuantizeLinear is read by DequantizeLinear alone, which reads it or a constant."""
    outputs = {value.name for value in index.model.graph.output}
    for node in index.nodes:
        if node.op_type == "QuantizeLinear":
            others = [one.op_type for one in index.readers[node.output[0]] if one.op_type != "DequantizeLinear"]
            if others or node.output[0] in outputs:
                yield Violation(node.name, "pair", f"codes are read by {', '.join(others) or 'the outside'}")
        if node.op_type == "DequantizeLinear" and node.input[0] not in index.tensors:
            made = index.maker.get(node.input[0])
            if made is None or made.op_type != "QuantizeLinear":
                yield Violation(node.name, "pair", "it reads codes that no QuantizeLinear makes")


RULES: tuple[Rule, ...] = (opset, operators, types, zero_points, scales, activations, weights, both_sides, attention)
RULES += (residuals, biases, gelu, norms, pairs)


def rounding(index: Index) -> list[Node]:
    """Return the nodes that round, or undo it."""
    return [node for node in index.nodes if node.op_type in ROUNDING]


def from_pair(index: Index, name: str) -> bool:
    """Tell whether a value comes out of a DequantizeLinear, seen through what only moves it."""
    made = index.source(name)
    return made is not None and made.op_type == "DequantizeLinear"


def rounded_value(index: Index, name: str) -> str | None:
    """Return the name of the value that a pair rounds, None where there is no pair."""
    made = index.source(name)
    if made is None or made.op_type != "DequantizeLinear":
        return None
    rounded = index.maker.get(made.input[0])
    return rounded.input[0] if rounded is not None and rounded.op_type == "QuantizeLinear" else None


def weight_place(node: Node) -> int | None:
    """Return the place of the weight in a node's inputs."""
    return {"MatMul": 1, "Gemm": 1, "Gather": 0}.get(node.op_type)


def channel_axis(node: Node) -> int:
    """Return along which axis of its weight a node's output channels lie."""
    return 0 if node.op_type == "Gather" or attribute(node, "transB", 0) else 1
