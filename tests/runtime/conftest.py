"""Towers with a known answer, packed with a text encoder of one table look-up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from onnx import TensorProto, helper, numpy_helper

import pytest

from edgerec.bundle import write_bundle
from edgerec.export.recommender_graph import recommender_graph
from edgerec.runtime import Recommender
from edgerec.runtime.layout import ENCODER, GOLDENS, GRAPH, TOKENIZER, Tower, pack
from edgerec.runtime.reference import dequantized, golden_request

SIZE = 8
WORDS = ["red", "blue", "green", "wine", "film", "영화", "🎉", "[UNK]"]


def encoder_graph(size: int = SIZE) -> bytes:
    """Return an encoder: a text vector is the normalised sum of an axis per word, items are twice that, biases -0.5."""
    table = numpy_helper.from_array(np.eye(len(WORDS), size, dtype=np.float32), "table")
    two, axis = numpy_helper.from_array(np.float32([2]), "two"), numpy_helper.from_array(np.int64([1]), "axis")
    last, none = numpy_helper.from_array(np.int64([2]), "last"), numpy_helper.from_array(np.float32([0]), "none")
    less = numpy_helper.from_array(np.float32([0.5]), "less")
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Cast", ["attention_mask"], ["float_mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["float_mask", "last"], ["mask"]),
        helper.make_node("Mul", ["words", "mask"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "axis"], ["sum"], keepdims=0),
        helper.make_node("LpNormalization", ["sum"], ["text_vector"], axis=1),
        helper.make_node("Mul", ["text_vector", "two"], ["item_in"]),
        helper.make_node("Mul", ["text_vector", "two"], ["item_out"]),
        helper.make_node("Mul", ["text_vector", "none"], ["nothing"]),
        helper.make_node("ReduceSum", ["nothing", "axis"], ["zero"], keepdims=0),
        helper.make_node("Sub", ["zero", "less"], ["bias"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "l"]) for name in ("input_ids", "attention_mask")
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", size])
        for name in ("text_vector", "item_in", "item_out")
    ]
    outputs.append(helper.make_tensor_value_info("bias", TensorProto.FLOAT, ["b"]))
    graph = helper.make_graph(nodes, "encoder", inputs, outputs, [table, two, axis, last, none, less])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def tokenizer_json() -> bytes:
    """Return a tokenizer of whole words."""
    model = tokenizers.models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return tokenizer.to_str().encode()


def text_rows(titles: list[str]) -> Any:
    """Return what the encoder makes of titles of known words."""
    rows = np.stack(
        [sum(np.eye(len(WORDS), SIZE, dtype=np.float32)[WORDS.index(w)] for w in t.split()) for t in titles]
    )
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def ring() -> Tower:
    """Eight items in a ring, each followed by the next; popularity falls from item a to item h."""
    eye = np.eye(SIZE, dtype=np.float32)
    titles = ["red wine", "blue wine", "green wine", "red film", "blue film", "영화", "🎉 영화", "red 🎉"]
    return Tower(
        decays=np.float32([0.5]),
        mix=np.float32([1]),
        scale=4.0,
        item_out=np.roll(eye, 1, axis=0),
        item_in=eye,
        bias=np.zeros(SIZE, np.float32),
        popularity=np.arange(SIZE, 0, -1, dtype=np.float32),
        text=text_rows(titles),
        ids=list("abcdefgh"),
        titles=titles,
    )


@pytest.fixture
def make_tower() -> Callable[..., Tower]:
    """Draw a tower at random."""

    def make(n: int = 40, shared: bool = True, seed: int = 0, **repeats: Any) -> Tower:
        rng = np.random.default_rng(seed)

        def normal(*shape: int) -> Any:
            return rng.normal(size=shape).astype(np.float32)

        text = normal(n, SIZE)
        return Tower(
            decays=np.float32([0.5, 0.9, 0.99]),
            mix=np.float32([1, 0.7, 0.4]),
            scale=6.0,
            item_out=normal(n, SIZE),
            item_in=None if shared else normal(n, SIZE),
            bias=normal(n) / 4,
            popularity=normal(n),
            text=text / np.linalg.norm(text, axis=1, keepdims=True),
            ids=[f"i{row}" for row in range(1, n + 1)],
            titles=[f"제목 {row} 🎉" for row in range(1, n + 1)],
            **repeats,
        )

    return make


@pytest.fixture
def goldens() -> Callable[[Tower], dict[str, Any]]:
    """Make goldens as an exporter would."""

    def make(tower: Tower) -> dict[str, Any]:
        exact, n = dequantized(tower), tower.n_items
        histories = [[], [1], [n, 1, 1], [0, *range(1, n + 1)]]
        requests = [golden_request(exact, history, seen) for history in histories for seen in (True, False)]
        texts = [{"text": text, "text_vector": text_rows([text])[0].tolist()} for text in ("red wine", "영화")]
        return {"tolerance": 1e-3, "requests": requests, "texts": texts, "text_tolerance": 1e-4}

    return make


@pytest.fixture
def members(goldens: Callable[[Tower], dict[str, Any]]) -> Callable[[Tower], tuple[dict[str, bytes], dict[str, Any]]]:
    """Return everything that a bundle of a tower holds, and its manifest."""

    def make(tower: Tower) -> tuple[dict[str, bytes], dict[str, Any]]:
        tables, model = pack(tower)
        others = {
            GRAPH: recommender_graph(tower).SerializeToString(),
            ENCODER: encoder_graph(),
            TOKENIZER: tokenizer_json(),
            GOLDENS: json.dumps(goldens(tower)).encode(),
        }
        return {**others, **tables}, {"model": model}

    return make


@pytest.fixture
def write(members: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    """Write a tower as a bundle; ``change`` may edit members and model first."""

    def make(tower: Tower, change: Callable[..., None] | None = None) -> Path:
        held, manifest = members(tower)
        if change:
            change(held, manifest["model"])
        write_bundle(tmp_path / "test.edgerec", manifest, held)
        return tmp_path / "test.edgerec"

    return make


@pytest.fixture
def load(write: Callable[..., Path]) -> Callable[[Tower], Recommender]:
    """Write a tower as a bundle and open it."""
    return lambda tower: Recommender.load(write(tower))
