"""Which weights of a graph are sparse: what a model claims is looked for in the file that ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgerec.errors import ParityError

ENCODER = "/encoder/"  # what the names of the text encoder's nodes start with; the cold map's do not
PRODUCTS = {"MatMul": 1, "Gemm": 1, "MatMulInteger": 1}  # operators with a weight, and which input it is


@dataclass(frozen=True)
class Weight:
    """A constant factor of a graph's matrix products."""

    node: str
    shape: tuple[int, int]  # K inputs, N outputs
    zeros: float  # share, between 0 and 1
    two_of_four: bool  # of each four consecutive weights along K, at most two are not zero


def weights(graph: bytes) -> list[Weight]:
    """Return the weights of all MatMul, Gemm and MatMulInteger nodes, in the graph's order.

    A weight is an initializer, or one behind DequantizeLinear; integers count from their zero-point.
    """
    model = onnx.load_from_string(graph)
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    made_by = {name: node for node in model.graph.node for name in node.output}
    found = []
    for node in model.graph.node:
        if node.op_type in PRODUCTS and (matrix := constant_factor(node, constants, made_by)) is not None:
            live = matrix != 0
            found.append(Weight(node.name, matrix.shape, float(1 - live.mean()), is_two_of_four(live)))
    return found


def constant_factor(
    node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]], made_by: Mapping[str, onnx.NodeProto]
) -> NDArray[Any] | None:
    """Return a product's second factor [K, N], None where it is computed."""
    name, zero = node.input[1], node.input[3:4] if node.op_type == "MatMulInteger" else []
    if (source := made_by.get(name)) is not None and source.op_type == "DequantizeLinear":
        name, zero = source.input[0], source.input[2:3]
    if name not in constants or constants[name].ndim != 2:
        return None
    transposed = any(one.name == "transB" and one.i for one in node.attribute)
    matrix = constants[name].T if transposed else constants[name]
    from_zero = constants[zero[0]].astype(np.int64) if zero and zero[0] in constants else 0
    return matrix - from_zero


def is_two_of_four(live: NDArray[np.bool_]) -> bool:
    """Tell whether each four consecutive rows of bool [K, N] have at most two live ones in every column."""
    inputs, outputs = live.shape
    return inputs % 4 == 0 and bool((live.reshape(inputs // 4, 4, outputs).sum(axis=1) <= 2).all())


def checked(graph: bytes, claim: Mapping[str, Any]) -> dict[str, Any]:
    """Hold a graph against what its model claims of its sparsity.

    Args:
        graph: Of an item encoder.
        claim: ``pattern``, and ``weights``: in how many layers.

    Returns:
        The claim, with ``layers``: what was found in each, a JSON value.

    Raises:
        ParityError: A layer of a 2:4 model has another pattern, or is not there.
    """
    found = [one for one in weights(graph) if one.node.startswith(ENCODER)]
    bad = [f"{one.node} ({one.zeros:.0%} zeros)" for one in found if not one.two_of_four]
    if claim["pattern"] == "2:4" and (bad or len(found) != claim["weights"]):
        raise ParityError(
            f"a 2:4 model of {claim['weights']} layers gave a graph of {len(found)}, {len(bad)} of them without the "
            f"pattern: {', '.join(bad[:3]) or 'none'}; nothing was written: run sparsify again, as the last thing that "
            "changes weights"
        )
    return {**claim, "layers": [asdict(one) for one in found]}
