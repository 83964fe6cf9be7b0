"""``recommender.onnx``: history and session state in, the best items and the new state out, in standard operators.

A stock onnxruntime (C++, Android, iOS, a browser) runs it with one call from the folder that a bundle extracts to: the
tables are external data under their members' names. Scores take one integer product over the constant INT8 table. The
user vector enters as two limbs, so that only the table's rounding is left. They are *unsigned* around 64, because
onnxruntime has fast kernels for a signed table only with an unsigned left side (12 times faster on AVX2), and they have
7 bits, so that the table can have 8: AVX2 without VNNI adds pairs of products in 16 bits, and 2 * 127 * 127 still fits.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgerec.runtime.layout import LIMB, SMALLEST_DELTA, SMALLEST_NORM, Tower

OPSET = 17
IR_VERSION = 8
MASKED = -1e38  # scores below are "never return this"


class Events(NamedTuple):
    """Names of what add_state finds out about a history, each float32."""

    age: str  # [B, 1, L]: valid events after this one
    valid: str  # [B, 1, L]: 1, or 0 for padding
    total: str  # [B, 1, 1]: valid events


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

    Where the tower has repeat recencies, two more inputs with defaults say what a session's events left of its items
    before ``history``: ``repeat_rows`` int64 [B or 1, M] and ``repeat_memory`` float32 [B or 1, R, M].
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
    state, events = add_state(graph, tower, *source)
    user = add_user(graph, tower, state)
    scores = add_scores(graph, user, table, scale, n)
    if tower.repeat_decays.size:
        scores = add_repeats(graph, tower, events, scores, n)
    add_ranking(graph, state, scores, n)
    defaults = [
        helper.make_tensor_value_info("exclude", TensorProto.INT64, ["exclude_batch", "excluded"]),
        helper.make_tensor_value_info("score_offset", TensorProto.FLOAT, ["offset_batch", "offset_items"]),
        helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
    ]
    if tower.repeat_decays.size:
        r = int(tower.repeat_decays.size)
        defaults += [
            helper.make_tensor_value_info("repeat_rows", TensorProto.INT64, ["rows_batch", "remembered"]),
            helper.make_tensor_value_info("repeat_memory", TensorProto.FLOAT, ["memory_batch", r, "remembered"]),
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


def add_state(graph: Builder, tower: Tower, table: str, scale: str) -> tuple[str, Events]:
    """Add the recurrence over a whole history, in closed form: an event counts decay ** (valid events after it)."""
    log_decay = graph.constant(np.log(tower.decays.astype(np.float64)).reshape(1, -1, 1))
    middle = graph.constant([1], np.int64)
    counted = graph.op("Cast", graph.op("Cast", graph.op("Unsqueeze", "history", middle), to=TensorProto.BOOL), to=1)
    ages = graph.op("CumSum", counted, graph.constant(2, np.int64), exclusive=1, reverse=1)
    weights = graph.op("Exp", graph.op("Mul", ages, log_decay))
    weights = graph.op("Mul", weights, counted)  # [B, K, L]
    codes = graph.op("Transpose", graph.op("Gather", table, "history", axis=1), perm=[1, 2, 0])
    gain = graph.op("Unsqueeze", graph.op("Gather", scale, "history"), graph.constant([2], np.int64))
    vectors = graph.op("Mul", graph.op("Cast", codes, to=1), gain)  # [B, L, d]
    count = graph.op("ReduceSum", counted, graph.constant([2], np.int64), keepdims=1)
    kept = graph.op("Mul", "state", graph.op("Exp", graph.op("Mul", count, log_decay)))
    state = graph.op("Add", kept, graph.op("MatMul", weights, vectors), name="state_out")
    return state, Events(ages, counted, count)


def add_user(graph: Builder, tower: Tower, state: str) -> str:
    """Add the mixed state, brought to the length ``scale``: float32 [B, 1, d]."""
    mixed = graph.op("MatMul", graph.constant(tower.mix.reshape(1, 1, -1)), state)
    norm = graph.op("Max", graph.op("ReduceL2", mixed, axes=[2]), graph.constant(SMALLEST_NORM))
    user = graph.op("Mul", graph.op("Div", mixed, norm), graph.constant(tower.scale))
    graph.op("Squeeze", user, graph.constant([1], np.int64), name="user")
    return user


def add_scores(graph: Builder, user: str, table: str, scale: str, n: int) -> str:
    """Add user . item + bias for every item, float32 [B, N + 1]; the user is delta * (high + low / 126)."""
    largest = graph.op("ReduceMax", graph.op("Abs", user), axes=[2])
    delta = graph.op("Max", graph.op("Div", largest, graph.constant(LIMB)), graph.constant(SMALLEST_DELTA))
    fine = graph.op("Div", delta, graph.constant(2 * LIMB))
    high = graph.op("Round", graph.op("Div", user, delta))
    rest = graph.op("Sub", user, graph.op("Mul", high, delta))
    limbs = graph.op("Concat", high, graph.op("Round", graph.op("Div", rest, fine)), axis=1)
    unsigned = graph.op("Cast", graph.op("Add", limbs, graph.constant(LIMB + 1)), to=TensorProto.UINT8)  # [B, 2, d]
    sums = graph.op("MatMulInteger", unsigned, table, graph.constant(LIMB + 1, np.uint8))  # [B, 2, N + 1]
    whole = graph.op("MatMul", graph.op("Concat", delta, fine, axis=2), graph.op("Cast", sums, to=1))  # [B, 1, N + 1]
    dots = graph.op("Squeeze", whole, graph.constant([1], np.int64))
    bias = graph.external("bias.f32", TensorProto.FLOAT, n)
    return graph.op("Add", graph.op("Mul", dots, scale), bias)


def add_repeats(graph: Builder, tower: Tower, events: Events, scores: str, n: int) -> str:
    """Add the repeat weights times log1p of the memories to the scores of the items taken.

    The memories are summed in a dense [B, R, N + 1] and read back at the P = M + L places that were written. At N =
    70,000, d = 64, R = 3, L = 50, on one thread of a virtual AMD EPYC, an answer took (p50 of 300) 1.47 ms without the
    term, 1.74 ms so, and 2.36 ms with log1p over all items. ``Unique`` rows took 1.64 ms, with more operators.
    """
    rows, parts = add_memory(graph, tower, events)
    r, middle = tower.repeat_decays.size, graph.constant([1], np.int64)
    batch, _ = add_batch(graph)
    zeros = graph.op("ConstantOfShape", graph.op("Concat", batch, graph.constant([r, n], np.int64), axis=0))
    lines = graph.op("Expand", graph.op("Unsqueeze", rows, middle), graph.constant([1, r, 1], np.int64))
    memory = graph.op("ScatterElements", zeros, lines, parts, axis=2, reduction="add")
    taken = graph.op("Add", graph.op("GatherElements", memory, lines, axis=2), graph.constant(1))  # [B, R, P]
    weights = graph.constant(tower.repeat_weights.reshape(1, 1, -1))
    bonus = graph.op("Squeeze", graph.op("MatMul", weights, graph.op("Log", taken)), middle)  # [B, P]
    # an item that was taken twice is written twice, with the same value
    raised = graph.op("Add", graph.op("GatherElements", scores, rows, axis=1), bonus)
    return graph.op("ScatterElements", scores, rows, raised, axis=1)


def add_memory(graph: Builder, tower: Tower, events: Events) -> tuple[str, str]:
    """Add the rows int64 [B, P] and what each leaves float32 [B, R, P]: the session's memories, then the history."""
    log_decay = graph.constant(np.log(tower.repeat_decays.astype(np.float64)).reshape(1, -1, 1))
    zeros = graph.constant(np.zeros((1, tower.repeat_decays.size, 1)), name="repeat_memory")
    left = graph.op("Mul", zeros, graph.op("Exp", graph.op("Mul", events.total, log_decay)))
    fresh = graph.op("Exp", graph.op("Mul", events.age, log_decay))
    fresh = graph.op("Mul", fresh, events.valid)  # so that the padding item stays at 0
    _, ones = add_batch(graph)
    rows = graph.op("Expand", graph.constant([[0]], np.int64, name="repeat_rows"), ones)
    return graph.op("Concat", rows, "history", axis=1), graph.op("Concat", left, fresh, axis=2)


def add_batch(graph: Builder) -> tuple[str, str]:
    """Add the shapes [B] and [B, 1], to expand by what may be given once for all."""
    batch = graph.op("Slice", graph.op("Shape", "history"), *(graph.constant([at], np.int64) for at in (0, 1)))
    return batch, graph.op("Concat", batch, graph.constant([1], np.int64), axis=0)


def add_ranking(graph: Builder, state: str, scores: str, n: int) -> None:
    """Add the answer to an empty state, masks and offsets, and the top k."""
    popularity = graph.external("popularity.f32", TensorProto.FLOAT, n)
    flat = graph.op("Flatten", graph.op("Abs", state), axis=1)
    empty = graph.op("Equal", graph.op("ReduceMax", flat, axes=[1]), graph.constant(0))  # [B, 1]
    answers = graph.op("Where", empty, popularity, scores)
    answers = graph.op("Add", answers, graph.constant([[0]], name="score_offset"))
    excluded = graph.op("Expand", graph.constant([[0]], np.int64, name="exclude"), graph.op("Shape", empty))
    never = graph.op("Expand", graph.constant(-np.inf), graph.op("Shape", excluded))
    answers = graph.op("ScatterElements", answers, excluded, never, axis=1)
    limit = graph.op("Min", graph.constant([10], np.int64, name="k"), graph.constant([n], np.int64))
    graph.nodes.append(helper.make_node("TopK", [answers, limit], ["scores", "places"], name="top", axis=1))
    returned = graph.op("Greater", "scores", graph.constant(MASKED))
    graph.op("Where", returned, "places", graph.constant(-1, np.int64), name="items")
