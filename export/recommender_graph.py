"""``recommender.onnx``: history and session state in, the best items and the new state out, in standard operators.

A stock onnxruntime (C++, Android, iOS, a browser) runs it with one call from the folder that a bundle extracts to: the
tables are external data under their members' names. Scores take one integer product over the constant INT8 table. The
user vector enters as two 8-bit limbs, so that only the table's rounding is left; they are *unsigned* around 128,
because onnxruntime has fast kernels for a signed table only with an unsigned left side (12 times faster on AVX2).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgerec.runtime.layout import Tower

OPSET = 17
IR_VERSION = 8
MASKED = -1e38  # scores below are "never return this"
SMALLEST_NORM = 1e-6
SMALLEST_DELTA = 1e-30


class Builder:
    """Collects nodes and constants; every method returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node."""
        output = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, value: Any, dtype: type[np.generic] = np.float32, name: str | None = None) -> str:
        """Add an initializer that lies in the graph."""
        name = name or f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def external(self, name: str, kind: int, *shape: int) -> str:
        """Add an initializer that lies in the bundle's member ``name``."""
        tensor = TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
        size = math.prod(shape) * (1 if kind == TensorProto.INT8 else 4)
        for key, value in (("location", name), ("offset", 0), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        self.initializers.append(tensor)
        return name


def recommender_graph(tower: Tower) -> onnx.ModelProto:
    """Build the graph of a tower; its tables stay outside, as the members that ``runtime.layout.pack`` makes.

    Inputs: ``history`` int64 [B, L] (0 is padding, anywhere); ``state`` float32 [B, K, d] (zeros without a session);
    and, with defaults, ``exclude`` int64 [B or 1, E] rows never to return, ``score_offset`` float32 [B or 1, N + 1 or
    1], ``k`` int64 [1]. Outputs: ``items`` int64 and ``scores`` float32 [B, min(k, N + 1)], -1 where nothing is left to
    return; ``state_out`` float32 [B, K, d]; ``user`` float32 [B, d], the vector that the items were scored with.
    """
    n, d, k = tower.n_items + 1, tower.embedding_size, len(tower.decays)
    graph = Builder()
    table = graph.external("item_out.i8", TensorProto.INT8, d, n)
    scale = graph.external("item_out.scale", TensorProto.FLOAT, n)
    source = (table, scale)
    if not tower.shared:
        source = (
            graph.external("item_in.i8", TensorProto.INT8, d, n),
            graph.external("item_in.scale", TensorProto.FLOAT, n),
        )
    state = add_state(graph, tower, *source)
    user = add_user(graph, tower, state)
    scores = add_scores(graph, user, table, scale, d, n)
    add_ranking(graph, state, scores, n)
    defaults = [
        helper.make_tensor_value_info("exclude", TensorProto.INT64, ["exclude_batch", "excluded"]),
        helper.make_tensor_value_info("score_offset", TensorProto.FLOAT, ["offset_batch", "offset_items"]),
        helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
    ]
    inputs = [
        helper.make_tensor_value_info("history", TensorProto.INT64, ["batch", "length"]),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, ["batch", k, d]),
        *defaults,
    ]
    outputs = [
        helper.make_tensor_value_info("items", TensorProto.INT64, ["batch", "returned"]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", "returned"]),
        helper.make_tensor_value_info("state_out", TensorProto.FLOAT, ["batch", k, d]),
        helper.make_tensor_value_info("user", TensorProto.FLOAT, ["batch", d]),
    ]
    made = helper.make_graph(graph.nodes, "recommender", inputs, outputs, graph.initializers)
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="edgerec"
    )


def add_state(graph: Builder, tower: Tower, table: str, scale: str) -> str:
    """Add the recurrence over a whole history, in closed form: an event counts decay ** (valid events after it)."""
    log_decay = graph.constant(np.log(tower.decays.astype(np.float64)).reshape(1, -1, 1))
    valid = graph.op("Cast", graph.op("Not", graph.op("Equal", "history", graph.constant(0, np.int64))), to=1)
    age = graph.op("CumSum", valid, graph.constant(1, np.int64), exclusive=1, reverse=1)
    middle = graph.constant([1], np.int64)
    weights = graph.op("Exp", graph.op("Mul", graph.op("Unsqueeze", age, middle), log_decay))
    weights = graph.op("Mul", weights, graph.op("Unsqueeze", valid, middle))  # [B, K, L]
    codes = graph.op("Transpose", graph.op("Gather", table, "history", axis=1), perm=[1, 2, 0])
    gain = graph.op("Unsqueeze", graph.op("Gather", scale, "history"), graph.constant([2], np.int64))
    vectors = graph.op("Mul", graph.op("Cast", codes, to=1), gain)  # [B, L, d]
    count = graph.op("Unsqueeze", graph.op("ReduceSum", valid, middle, keepdims=1), middle)
    kept = graph.op("Mul", "state", graph.op("Exp", graph.op("Mul", count, log_decay)))
    return graph.op("Add", kept, graph.op("MatMul", weights, vectors), name="state_out")


def add_user(graph: Builder, tower: Tower, state: str) -> str:
    """Add the mixed state, brought to the length ``scale``: float32 [B, 1, d]."""
    mixed = graph.op("MatMul", graph.constant(tower.mix.reshape(1, 1, -1)), state)
    norm = graph.op("Max", graph.op("ReduceL2", mixed, axes=[2]), graph.constant(SMALLEST_NORM))
    user = graph.op("Mul", graph.op("Div", mixed, norm), graph.constant(tower.scale))
    graph.op("Squeeze", user, graph.constant([1], np.int64), name="user")
    return user


def add_scores(graph: Builder, user: str, table: str, scale: str, d: int, n: int) -> str:
    """Add user . item + bias for every item, float32 [B, N + 1]; the user is delta * (high + low / 254)."""
    largest = graph.op("ReduceMax", graph.op("Abs", user), axes=[2])
    delta = graph.op("Max", graph.op("Div", largest, graph.constant(127)), graph.constant(SMALLEST_DELTA))
    fine = graph.op("Div", delta, graph.constant(254))
    high = graph.op("Round", graph.op("Div", user, delta))
    rest = graph.op("Sub", user, graph.op("Mul", high, delta))
    limbs = graph.op("Concat", high, graph.op("Round", graph.op("Div", rest, fine)), axis=1)
    unsigned = graph.op("Cast", graph.op("Add", limbs, graph.constant(128)), to=TensorProto.UINT8)  # [B, 2, d]
    rows = graph.op("Reshape", unsigned, graph.constant([-1, d], np.int64))
    sums = graph.op("MatMulInteger", rows, table, graph.constant(128, np.uint8))
    pairs = graph.op("Reshape", graph.op("Cast", sums, to=1), graph.constant([-1, 2, n], np.int64))
    whole = graph.op("MatMul", graph.op("Concat", delta, fine, axis=2), pairs)  # [B, 1, N + 1]
    dots = graph.op("Squeeze", whole, graph.constant([1], np.int64))
    bias = graph.external("bias.f32", TensorProto.FLOAT, n)
    return graph.op("Add", graph.op("Mul", dots, scale), bias)


def add_ranking(graph: Builder, state: str, scores: str, n: int) -> None:
    """Add the answer to an empty state, masks and offsets, and the top k."""
    popularity = graph.external("popularity.f32", TensorProto.FLOAT, n)
    flat = graph.op("Flatten", graph.op("Abs", state), axis=1)
    empty = graph.op("Equal", graph.op("ReduceMax", flat, axes=[1]), graph.constant(0))  # [B, 1]
    answers = graph.op("Where", empty, popularity, scores)
    answers = graph.op("Add", answers, graph.constant([[0]], name="score_offset"))
    batch = graph.op("Slice", graph.op("Shape", "history"), *(graph.constant([at], np.int64) for at in (0, 1)))
    ones = graph.op("Concat", batch, graph.constant([1], np.int64), axis=0)
    excluded = graph.op("Expand", graph.constant([[0]], np.int64, name="exclude"), ones)
    never = graph.op("Expand", graph.constant(-np.inf), graph.op("Shape", excluded))
    answers = graph.op("ScatterElements", answers, excluded, never, axis=1)
    limit = graph.op("Min", graph.constant([10], np.int64, name="k"), graph.constant([n], np.int64))
    graph.nodes.append(helper.make_node("TopK", [answers, limit], ["scores", "places"], name="top", axis=1))
    returned = graph.op("Greater", "scores", graph.constant(MASKED))
    graph.op("Where", returned, "places", graph.constant(-1, np.int64), name="items")
