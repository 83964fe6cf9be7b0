"""What passes over an ONNX graph ask of it: who makes a value, who reads it, what is constant, where attention is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

LAYOUT = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Expand"}  # move, not compute
BEFORE_SOFTMAX = {"Add", "Mul", "Div", "Sub", "Where", "Cast", "Identity"}  # scale and mask
Node = onnx.NodeProto


class Attention(NamedTuple):
    """One attention: the product of queries and keys, its softmax, and the product with the values."""

    scores: Node
    softmax: Node
    mixed: Node


class Index:
    """Look-ups over a graph as it is now: make another one after an edit."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.nodes = model, list(model.graph.node)
        self.maker = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.readers[name].append(node)
        given = {value.name for value in model.graph.input}
        self.tensors = {one.name: one for one in model.graph.initializer if one.name not in given}
        for node in self.nodes:
            if node.op_type == "Constant" and (value := attribute(node, "value")) is not None:
                self.tensors[node.output[0]] = value

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return a constant's value, or None where the value is computed or given."""
        return numpy_helper.to_array(self.tensors[name]) if name in self.tensors else None

    def source(self, name: str) -> Node | None:
        """Return the node that computes a value, seen through nodes that only move it; None for inputs, constants."""
        node = self.maker.get(name)
        while node is not None and node.op_type in LAYOUT:
            node = self.maker.get(node.input[0])
        return None if node is None or node.op_type == "Constant" else node

    def weight(self, name: str) -> NDArray[Any] | None:
        """Return a constant, or the codes of one that lies behind a DequantizeLinear; None for what is computed."""
        node = self.maker.get(name)
        if node is not None and node.op_type in {"DequantizeLinear", "Identity", "Cast"}:
            return self.weight(node.input[0])
        return self.constant(name)

    def uses(self, name: str) -> Iterator[tuple[Node, str]]:
        """Yield who computes with a value, and under which name, seen through layout and rounding."""
        for node in self.readers[name]:
            if node.op_type in LAYOUT | {"QuantizeLinear", "DequantizeLinear"}:
                yield from self.uses(node.output[0])
            else:
                yield node, name

    def attentions(self) -> list[Attention]:
        """Return every softmax between two products of computed values."""
        found = []
        for softmax in self.nodes:
            if softmax.op_type != "Softmax":
                continue
            scores = self.scores_of(softmax)
            mixed = [one for one, name in self.uses(softmax.output[0]) if one.op_type == "MatMul"]
            if scores is not None and mixed:
                found.append(Attention(scores, softmax, mixed[0]))
        return found

    def scores_of(self, softmax: Node) -> Node | None:
        """Return the product that a softmax is taken of, behind its scale and mask."""
        waiting = list(softmax.input)
        while waiting:
            node = self.source(waiting.pop(0))
            if node is None:
                continue
            if node.op_type == "MatMul" and all(self.weight(name) is None for name in node.input):
                return node
            if node.op_type in BEFORE_SOFTMAX | {"QuantizeLinear", "DequantizeLinear"}:
                waiting += node.input
        return None


def attribute(node: Node, name: str, default: Any = None) -> Any:
    """Return an attribute's value."""
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)


def replace_nodes(model: onnx.ModelProto, nodes: Sequence[Node]) -> None:
    """Put nodes in the place of a graph's own, without the constants that none of them reads any more."""
    read = {name for node in nodes for name in node.input} | {value.name for value in model.graph.output}
    kept = [node for node in nodes if node.op_type != "Constant" or node.output[0] in read]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)


def set_constant(model: onnx.ModelProto, name: str, value: NDArray[np.generic]) -> None:
    """Give an initializer another value, or add it."""
    tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
    for one in model.graph.initializer:
        if one.name == name:
            one.CopyFrom(tensor)
            return
    model.graph.initializer.append(tensor)
