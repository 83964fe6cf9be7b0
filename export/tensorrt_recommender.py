"""``recommender.onnx`` for TensorRT: a fixed k, tables as fp16 or as INT8 behind DequantizeLinear, no integer product.

Every item is scored once at the table's precision, in one product that a tensor core runs; the best ``CANDIDATES`` are
then scored again in fp32 from the same codes, so that the answer is the portable graph's, in its order, although the
sum over the table kept 11 bits or the user vector 8. Codes are whole numbers within +-127, which float16 holds exactly.

What is never to be returned scores ``LOWEST`` instead of -inf, for which JSON, and so trtexec's answers, have no word.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgerec.export.recommender_graph import (
    IR_VERSION,
    MASKED,
    OPSET,
    Builder,
    Events,
    add_state,
    add_user,
)
from edgerec.runtime.layout import SMALLEST_NORM, Tower, pack

PRECISIONS = ("fp16", "int8-qdq")
CANDIDATES = 128  # scored again; TensorRT's TopK takes up to 3840
LOWEST = -3e38
STEP = 1 / 127  # of the user vector, brought to a largest entry of 1, where it is rounded


def tensorrt_recommender(tower: Tower, precision: str, k: int = 10) -> bytes:
    """Build the graph of a tower, tables included.

    Inputs: ``history`` int64 [B, L] (0 is padding), ``state`` float32 [B, K, d], ``exclude`` int64 [B, E] rows never to
    return (0 for none), and, where the tower has repeat recencies, ``repeat_rows`` int64 [B, M] (0 for none) and
    ``repeat_memory`` float32 [B, R, M]. Outputs: ``items`` int64 and ``scores`` float32 [B, min(k, N + 1)], -1 where
    nothing is left to return, ``state_out`` and ``user`` as in the portable graph.

    Args:
        tower: As ``runtime.layout.pack`` takes it.
        precision: Of the table that all items are scored with, one of ``PRECISIONS``.
        k: How many items, fixed.
    """
    members, _ = pack(tower)
    n, d, repeats = tower.n_items + 1, tower.embedding_size, int(tower.repeat_decays.size)
    graph, tables = Builder(), {}
    for name in ("item_out",) if tower.shared else ("item_out", "item_in"):
        codes = np.frombuffer(members[f"{name}.i8"], np.int8).reshape(d, n)
        graph.constant(codes, np.float16, f"{name}.f16")
        scale = np.frombuffer(members[f"{name}.scale"], "<f4")
        tables[name] = (f"{name}.f16", graph.constant(scale, name=f"{name}.scale"), codes, scale)
    state, events = add_state(graph, tower, *tables["item_out" if tower.shared else "item_in"][:2])
    add_user(graph, tower, state)
    for name in ("bias", "popularity"):
        graph.constant(np.maximum(np.frombuffer(members[f"{name}.f32"], "<f4"), LOWEST), name=name)
    memory = add_taken(graph, tower, events) if repeats else None
    scores = add_scan(graph, tower, precision, *tables["item_out"][2:])
    best, chosen = add_candidates(graph, scores, memory, state, min(max(CANDIDATES, 8 * k), n))
    add_answer(graph, memory, best, chosen, min(k, n))
    inputs: list[tuple[str, int, list[str | int | None]]] = [
        ("history", TensorProto.INT64, ["batch", "length"]),
        ("state", TensorProto.FLOAT, ["batch", len(tower.decays), d]),
        ("exclude", TensorProto.INT64, ["batch", "excluded"]),
    ]
    if repeats:
        inputs.append(("repeat_rows", TensorProto.INT64, ["batch", "remembered"]))
        inputs.append(("repeat_memory", TensorProto.FLOAT, ["batch", repeats, "remembered"]))
    outputs: list[tuple[str, int, list[str | int | None]]] = [
        ("items", TensorProto.INT64, ["batch", min(k, n)]),
        ("scores", TensorProto.FLOAT, ["batch", min(k, n)]),
        ("state_out", TensorProto.FLOAT, ["batch", len(tower.decays), d]),
        ("user", TensorProto.FLOAT, ["batch", d]),
    ]
    given, returned = ([helper.make_tensor_value_info(*one) for one in some] for some in (inputs, outputs))
    made = helper.make_graph(graph.nodes, "recommender", given, returned, graph.initializers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="edgerec")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def add_scan(graph: Builder, tower: Tower, precision: str, codes: NDArray[np.int8], scale: NDArray[np.float32]) -> str:
    """Add every item's score, float32 [B, N + 1], as the table's precision gives it."""
    length = graph.op("ReduceL2", "user", axes=[1])
    if precision == "fp16":  # a row of length 1: no sum can leave float16
        part = graph.op("Max", length, graph.constant(SMALLEST_NORM))
        half = graph.op("Cast", graph.op("Div", "user", part), to=TensorProto.FLOAT16)
        dots = graph.op("Cast", graph.op("MatMul", half, "item_out.f16"), to=1)
        dots = graph.op("Mul", dots, "item_out.scale")
    else:
        part = graph.op("Max", graph.op("ReduceMax", graph.op("Abs", "user"), axes=[1]), graph.constant(SMALLEST_NORM))
        pair = [graph.constant(STEP), graph.constant(0, np.int8)]
        rounded = graph.op("QuantizeLinear", graph.op("Div", "user", part), *pair)
        left = graph.op("DequantizeLinear", rounded, *pair)
        points = graph.constant(np.zeros(len(scale)), np.int8)
        table = [graph.constant(codes, np.int8, "item_out.i8"), graph.constant(scale), points]
        dots = graph.op("MatMul", left, graph.op("DequantizeLinear", *table, axis=1))
    return graph.op("Add", graph.op("Mul", dots, part), "bias")


def add_taken(graph: Builder, tower: Tower, events: Events) -> tuple[str, str, str]:
    """Add the rows taken int64 [B, P], what each event leaves float32 [B, R, P], and the repeat weights [1, 1, R]."""
    log_decay = graph.constant(np.log(tower.repeat_decays.astype(np.float64)).reshape(1, -1, 1))
    left = graph.op("Mul", "repeat_memory", graph.op("Exp", graph.op("Mul", events.total, log_decay)))
    fresh = graph.op("Mul", graph.op("Exp", graph.op("Mul", events.age, log_decay)), events.valid)
    rows = graph.op("Concat", "repeat_rows", "history", axis=1)
    weights = graph.constant(tower.repeat_weights.reshape(1, 1, -1))
    return rows, graph.op("Concat", left, fresh, axis=2), weights


def add_bonus(graph: Builder, memory: tuple[str, str, str], rows: str) -> str:
    """Add what the repeat recencies add to the scores of rows int64 [B, Q], float32 [B, Q].

    An item's memory is the sum over the events that took it: a product with the [P, Q] table of which event took what.
    """
    taken, parts, weights = memory
    columns = graph.op("Unsqueeze", taken, graph.constant([2], np.int64))
    same = graph.op("Equal", columns, graph.op("Unsqueeze", rows, graph.constant([1], np.int64)))
    left = graph.op("MatMul", parts, graph.op("Cast", same, to=1))  # [B, R, Q]
    grown = graph.op("Log", graph.op("Add", left, graph.constant(1)))
    return graph.op("Squeeze", graph.op("MatMul", weights, grown), graph.constant([1], np.int64))


def add_candidates(
    graph: Builder, scores: str, memory: tuple[str, str, str] | None, state: str, count: int
) -> tuple[str, str]:
    """Add masks, repeats and the answer to an empty state; return the best scores float32 and their rows [B, count]."""
    if memory is not None:
        bonus = add_bonus(graph, memory, memory[0])
        raised = graph.op("Add", graph.op("GatherElements", scores, memory[0], axis=1), bonus)
        scores = graph.op("ScatterElements", scores, memory[0], raised, axis=1)  # one taken twice: the same value twice
    largest = graph.op("ReduceMax", graph.op("Abs", state), axes=[1, 2], keepdims=0)
    empty = graph.op("Unsqueeze", graph.op("Equal", largest, graph.constant(0)), graph.constant([1], np.int64))
    scores = graph.op("Where", empty, "popularity", scores)
    graph.op("Identity", empty, name="empty")
    never = graph.op("Expand", graph.constant(LOWEST), graph.op("Shape", "exclude"))
    scores = graph.op("ScatterElements", scores, "exclude", never, axis=1)
    limit = graph.constant([count], np.int64)
    graph.nodes.append(helper.make_node("TopK", [scores, limit], ["best", "chosen"], name="candidates", axis=1))
    return "best", "chosen"


def add_answer(graph: Builder, memory: tuple[str, str, str] | None, best: str, chosen: str, k: int) -> None:
    """Score the candidates again in fp32, and add the k best."""
    vectors = graph.op("Cast", graph.op("Gather", "item_out.f16", chosen, axis=1), to=1)  # [d, B, C]
    vectors = graph.op("Transpose", vectors, perm=[1, 0, 2])
    user = graph.op("Unsqueeze", "user", graph.constant([1], np.int64))
    dots = graph.op("Squeeze", graph.op("MatMul", user, vectors), graph.constant([1], np.int64))
    exact = graph.op("Mul", dots, graph.op("Gather", "item_out.scale", chosen))
    exact = graph.op("Add", exact, graph.op("Gather", "bias", chosen))
    if memory is not None:
        exact = graph.op("Add", exact, add_bonus(graph, memory, chosen))
    exact = graph.op("Where", "empty", graph.op("Gather", "popularity", chosen), exact)
    allowed = graph.op("Greater", best, graph.constant(MASKED))
    exact = graph.op("Where", allowed, exact, graph.constant(LOWEST))
    limit = graph.constant([k], np.int64)
    graph.nodes.append(helper.make_node("TopK", [exact, limit], ["scores", "places"], name="top", axis=1))
    rows = graph.op("GatherElements", chosen, "places", axis=1)
    returned = graph.op("Greater", "scores", graph.constant(MASKED))
    graph.op("Where", returned, rows, graph.constant(-1, np.int64), name="items")
