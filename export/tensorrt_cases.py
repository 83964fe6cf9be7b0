"""Golden cases of TensorRT's graphs: one padded batch of real texts and one of real histories, with torch's answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import onnx

from edgerec.distill.encoder import MAX_TOKENS
from edgerec.export.engines import token_feeds
from edgerec.export.goldens import goldens
from edgerec.export.onnx_engine import OnnxEngine
from edgerec.export.package import Draft, unpack
from edgerec.export.tensorrt_builder import BATCHES, EXCLUDED, HISTORIES, LENGTHS
from edgerec.export.tensorrt_ladder import Runner
from edgerec.export.tensorrt_recommender import LOWEST
from edgerec.runtime.layout import ENCODER, GRAPH, Tower
from edgerec.runtime.tensorrt_engine import Arrays

K = 10
RANGES = ("smallest", "usual", "largest")
LIMITS = {  # of the engines that trtexec builds, in the order of RANGES
    "encoder": {"batch": (1, 1, BATCHES[-1]), "length": (1, LENGTHS[0], MAX_TOKENS)},
    "recommender": {
        "batch": (1, 1, BATCHES[-1]),
        "length": (1, HISTORIES[0], HISTORIES[-1]),
        "excluded": (1, HISTORIES[0], EXCLUDED),
        "remembered": (1, HISTORIES[0], EXCLUDED),
    },
}


class Case(NamedTuple):
    """Golden inputs and outputs; ``tolerance`` is what a score may differ by."""

    inputs: Arrays
    outputs: Arrays
    tolerance: float


def cases_of(prepared: Draft) -> dict[str, Case]:
    """Return the case of each kind of graph, ``encoder`` and ``recommender``."""
    tokens = token_feeds(prepared.tokenizer, prepared.texts, MAX_TOKENS)[0]
    encoder = Case(dict(tokens), {"text_vector": prepared.vectors.astype(np.float32)}, 0.0)
    return {"encoder": encoder, "recommender": recommender_case(prepared)}


def recommender_case(prepared: Draft) -> Case:
    """Return golden requests as one padded batch."""
    tower = prepared.rounded
    nothing = np.zeros((0, tower.embedding_size), np.float32)
    found = json.loads(goldens(tower, [one[-HISTORIES[-1] :] for one in prepared.histories], [], nothing, 0.0))
    requests = found["requests"][: BATCHES[-1]]
    inputs = padded(tower, [one["history"] for one in requests], [one["exclude_seen"] for one in requests])
    k = min(K, tower.n_items + 1)
    items, scores = np.full((len(requests), k), -1, np.int64), np.full((len(requests), k), LOWEST, np.float32)
    for line, one in enumerate(requests):
        items[line, : len(one["items"])], scores[line, : len(one["items"])] = one["items"], one["scores"]
    return Case(inputs, {"items": items, "scores": scores}, float(found["tolerance"]))


def padded(tower: Tower, histories: Sequence[Sequence[int]], exclude_seen: Sequence[bool]) -> Arrays:
    """Return histories of rows from 1 as the graph's inputs, without a session."""
    count, longest = len(histories), max(1, *map(len, histories))
    history, exclude = np.zeros((count, longest), np.int64), np.zeros((count, longest), np.int64)
    for line, (rows, masked) in enumerate(zip(histories, exclude_seen, strict=True)):
        history[line, : len(rows)] = rows
        exclude[line, : len(rows)] = rows if masked else 0
    inputs: Arrays = {"history": history, "exclude": exclude}
    inputs["state"] = np.zeros((count, len(tower.decays), tower.embedding_size), np.float32)
    if repeats := tower.repeat_decays.size:
        inputs["repeat_rows"] = np.zeros((count, 1), np.int64)
        inputs["repeat_memory"] = np.zeros((count, repeats, 1), np.float32)
    return inputs


def same_lists(prepared: Draft, runner: Runner) -> float:
    """Return for which share of the sampled histories a graph gives the items of the portable graph, in its order."""
    tower, same = prepared.rounded, []
    with TemporaryDirectory() as folder:
        unpack(prepared, Path(folder))
        shape = (len(tower.decays), tower.embedding_size)
        portable = OnnxEngine("portable", Path(folder) / GRAPH, Path(folder) / ENCODER, shape)
        for history in filter(None, prepared.histories):
            wanted, _ = portable.rank(np.array([history], np.int64), K)
            same.append(np.array_equal(runner.run(padded(tower, [history], [False]))["items"][0], wanted))
    return float(np.mean(same)) if same else 1.0


def describe(name: str, graph: bytes, case: Case, tolerance: float) -> dict[str, Any]:
    """Return a graph's entry in ``kit.json``: kind, precision, and the kinds and shapes of what goes in and out.

    Args:
        name: Such as ``encoder.fp16``.
        graph: ONNX.
        case: Its golden case.
        tolerance: Of a score, or the cosine distance of a text vector.
    """
    kind, precision = name.split(".", 1)
    shapes: dict[str, dict[str, list[int]]] = {which: {} for which in RANGES}
    for place, which in enumerate(RANGES):
        for value in onnx.load_from_string(graph).graph.input:
            dims = value.type.tensor_type.shape.dim
            shapes[which][value.name] = [dim.dim_value or LIMITS[kind][dim.dim_param][place] for dim in dims]
    shapes["golden"] = {one: list(case.inputs[one].shape) for one in shapes["usual"]}
    outputs = {one: {"dtype": str(array.dtype), "shape": list(array.shape)} for one, array in case.outputs.items()}
    return {
        "kind": kind,
        "precision": precision,
        "tolerance": tolerance,
        "shapes": shapes,
        "inputs": {one: str(case.inputs[one].dtype) for one in shapes["usual"]},
        "outputs": outputs,
    }
