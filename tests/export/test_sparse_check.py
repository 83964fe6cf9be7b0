"""Zeros are counted where the weights lie: plain, transposed, as integers, behind DequantizeLinear."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import pytest

from edgerec.errors import ParityError
from edgerec.export.sparse_check import checked, weights
from edgerec.export.sparse_gain import verdict

SPARSE = np.array([[1, 0], [2, 0], [0, 3], [0, 4]] * 2, np.float32)  # [K, N]
DENSE = np.array([[1, 0], [2, 0], [3, 0], [0, 4]] * 2, np.float32)  # three of the first four in column 0


def graph(*nodes: onnx.NodeProto, **constants: np.ndarray) -> bytes:
    """Return a graph; what is not a constant need not be there."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "g", [value], [], stored)).SerializeToString()


def product(weight: str, kind: str = "MatMul", name: str = "/encoder/dense", **attributes: int) -> onnx.NodeProto:
    """Return a product of x with a weight."""
    return helper.make_node(kind, ["x", weight], [f"{name}_out"], name, **attributes)


def test_the_pattern_is_read_along_the_inputs() -> None:
    made = graph(product("s"), product("d"), product("t", "Gemm", transB=1), s=SPARSE, d=DENSE, t=SPARSE.T.copy())
    sparse, dense, transposed = weights(made)
    assert (sparse.shape, sparse.zeros, sparse.two_of_four) == ((8, 2), 0.5, True)
    assert (dense.shape, dense.zeros, dense.two_of_four) == ((8, 2), 0.5, False)
    assert (transposed.shape, transposed.two_of_four) == ((8, 2), True)
    (other_way,) = weights(graph(product("t"), t=SPARSE.T.copy()))
    assert not other_way.two_of_four  # 2 inputs are no fours


def test_integers_count_from_their_zero_point_and_computed_factors_do_not_count() -> None:
    shifted = (SPARSE + 7).astype(np.uint8)
    zero, scale = np.array(7, np.uint8), np.array(0.1, np.float32)
    integer = helper.make_node("MatMulInteger", ["x", "w", "a", "z"], ["y"], "/encoder/integer")
    dequantize = helper.make_node("DequantizeLinear", ["w", "s", "z"], ["float"], "dq")
    made = graph(integer, dequantize, product("float"), product("x"), w=shifted, z=zero, s=scale)
    assert [(one.zeros, one.two_of_four) for one in weights(made)] == [(0.5, True)] * 2


def test_a_graph_that_is_not_what_its_model_claims_is_refused() -> None:
    claim = {"pattern": "2:4", "ratio": 0.5, "weights": 1}
    fine = graph(product("s"), product("d", name="/maps.0/Gemm"), s=SPARSE, d=DENSE)  # the cold map may be dense
    assert [one["node"] for one in checked(fine, claim)["layers"]] == ["/encoder/dense"]
    with pytest.raises(ParityError, match=r"1 of them without the pattern: /encoder/dense \(50% zeros\)"):
        checked(graph(product("d"), d=DENSE), claim)
    with pytest.raises(ParityError, match="of 2 layers gave a graph of 1"):
        checked(fine, {**claim, "weights": 2})
    assert checked(graph(product("d"), d=DENSE), {**claim, "pattern": "magnitude"})["layers"][0]["zeros"] == 0.5


def test_no_gain_is_called_no_gain() -> None:
    assert verdict({"ratio": 1.01, "low": 0.98, "high": 1.03}, 400, 300) == (
        "dense kernels: 1.01 times, no gain; smaller when compressed: 400 -> 300 bytes (zip)"
    )
    assert "no gain" not in verdict({"ratio": 1.6, "low": 1.5, "high": 1.7}, 400, 300)
