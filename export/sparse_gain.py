"""What sparsity brings where kernels are dense: the time of both encoders, interleaved, and their compressed sizes."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import onnxruntime

from edgerec.benchmarks.timer import measure, ratio
from edgerec.distill.checkpoint import Checkpoint
from edgerec.distill.student import load, tokenise
from edgerec.export.item_encoder import ItemEncoder, export_fp32

ROUNDS = 300
FASTER = 1.05  # equal files differ by less, on a machine that has other things to do


def gain(dense: Checkpoint, sparse: Checkpoint) -> str:
    """Compare the text encoders of a student before and after, in fp32, a title at a time on one thread."""
    graphs = {"dense": fp32_graph(dense), "sparse": fp32_graph(sparse)}
    tokenizer_json = load(dense.encoder)[1]
    titles = [
        {name: one.numpy() for name, one in tokenise(tokenizer_json, [text]).items()} for text in dense.texts[:ROUNDS]
    ]
    timed = measure({name: encoder_of(graph, titles) for name, graph in graphs.items()}, ROUNDS)
    sizes = [len(zlib.compress(graph, 9)) for graph in graphs.values()]
    return verdict(ratio(timed["dense"], timed["sparse"]), *sizes)


def fp32_graph(student: Checkpoint) -> bytes:
    """Return a student's item encoder."""
    encoder, tokenizer_json = load(student.encoder)
    arrays = student.towers.arrays()
    vocabulary = int(tokenise(tokenizer_json, student.texts)["input_ids"].max()) + 1
    return export_fp32(ItemEncoder(encoder, arrays.cold, arrays.shared).eval(), vocabulary)


def encoder_of(graph: bytes, titles: list[dict[str, Any]]) -> Callable[[int], object]:
    """Return a function that encodes one of the titles, by number."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda number: session.run(None, titles[number % len(titles)])


def verdict(times: dict[str, float], before: int, after: int) -> str:
    """Say in one line what was gained.

    Args:
        times: How many times as long the dense encoder takes: ``ratio``, and ``low`` and ``high`` of its interval.
        before: Bytes of the dense graph, compressed.
        after: Of the sparse one.
    """
    speed = f"{times['ratio']:.2f} times"
    if times["low"] < FASTER:
        speed += ", no gain"
    return f"dense kernels: {speed}; smaller when compressed: {before} -> {after} bytes (zip)"
