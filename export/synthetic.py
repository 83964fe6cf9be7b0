"""Bundles of random towers, for what needs a file but no training: scale, fuzzing.

``python -m edgerec.export.synthetic --items 1000000 --out random.edgerec``. The text encoder is a static one with a
random table: a text vector is the normalised mean of its words' vectors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import tokenizers
from onnx import TensorProto, helper, numpy_helper

from edgerec.bundle import write_bundle
from edgerec.cli import main as run
from edgerec.export.recommender_graph import IR_VERSION, OPSET, recommender_graph
from edgerec.runtime.layout import ENCODER, GOLDENS, GRAPH, TOKENIZER, Tower, pack
from edgerec.runtime.reference import dequantized, golden_request

WORDS = ("[UNK]", "red", "blue", "green", "wine", "film", "book", "영화")
REQUESTS = 4


def random_tower(items: int, embedding_size: int, seed: int = 0, shared: bool = True, repeats: bool = False) -> Tower:
    """Draw a tower: normal vectors and biases, ids ``item-1`` to ``item-N``, titles of three words."""
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(items, embedding_size)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    words = rng.integers(1, len(WORDS), (items, 3))
    return Tower(
        decays=np.array([0.5, 0.98], np.float32),
        mix=np.array([1, 0.5], np.float32),
        scale=8.0,
        item_out=rng.normal(size=(items, embedding_size)).astype(np.float32),
        item_in=None if shared else rng.normal(size=(items, embedding_size)).astype(np.float32),
        bias=rng.normal(size=items).astype(np.float32),
        popularity=rng.integers(0, 1000, items).astype(np.float32),
        text=text,
        ids=[f"item-{row}" for row in range(1, items + 1)],
        titles=[" ".join(WORDS[word] for word in line) for line in words.tolist()],
        repeat_decays=np.array([0.9] if repeats else [], np.float32),
        repeat_weights=np.array([2] if repeats else [], np.float32),
    )


def static_encoder(embedding_size: int, seed: int = 0) -> bytes:
    """Return ``item_encoder.onnx`` of a random table with a row per word."""
    rows = np.random.default_rng(seed).normal(size=(len(WORDS), embedding_size)).astype(np.float32)
    constants = {"table": rows, "first": np.array([1]), "last": np.array([2]), "none": np.float32(0)}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Cast", ["attention_mask"], ["valid"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["valid", "last"], ["mask"]),
        helper.make_node("Mul", ["words", "mask"], ["counted"]),
        helper.make_node("ReduceSum", ["counted", "first"], ["sum"], keepdims=0),
        helper.make_node("LpNormalization", ["sum"], ["text_vector"], axis=1),
        helper.make_node("Identity", ["text_vector"], ["item_in"]),
        helper.make_node("Identity", ["text_vector"], ["item_out"]),
        helper.make_node("Mul", ["text_vector", "none"], ["nothing"]),
        helper.make_node("ReduceSum", ["nothing", "first"], ["bias"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "l"]) for name in ("input_ids", "attention_mask")
    ]
    shapes: dict[str, list[Any]] = dict.fromkeys(("text_vector", "item_in", "item_out"), ["b", embedding_size])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in {**shapes, "bias": ["b"]}.items()
    ]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "encoder", inputs, outputs, initializers)
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION).SerializeToString()


def word_tokenizer() -> bytes:
    """Return ``tokenizer.json`` of whole words."""
    model = tokenizers.models.WordLevel({word: row for row, word in enumerate(WORDS)}, unk_token=WORDS[0])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return tokenizer.to_str().encode()


def write_random(tower: Tower, path: Path) -> None:
    """Write a bundle of a tower, with golden requests, the random encoder and its tokenizer."""
    members, model = pack(tower)
    exact, rng = dequantized(tower), np.random.default_rng(0)
    histories = [rng.integers(1, tower.n_items + 1, 5).tolist() for _ in range(REQUESTS)]
    requests = [golden_request(exact, history, exclude_seen=True) for history in histories]
    others = {
        GRAPH: recommender_graph(tower).SerializeToString(),
        ENCODER: static_encoder(tower.embedding_size),
        TOKENIZER: word_tokenizer(),
        GOLDENS: json.dumps({"tolerance": 1e-2, "requests": requests}).encode(),
    }
    write_bundle(path, {"model": model, "data": {"name": "random"}}, {**others, **members})


@click.command()
@click.option("--items", type=int, default=1000, show_default=True)
@click.option("--embedding-size", type=int, default=64, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(items: int, embedding_size: int, out: Path) -> None:
    """Write a bundle of a random tower."""
    write_random(random_tower(items, embedding_size), out)


if __name__ == "__main__":
    run(main)
