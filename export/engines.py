"""The same two graphs in other engines: what each takes of a bundle, and how one asks it.

An engine ranks a history and encodes texts, no more: sessions, masks of many kinds and added items are the runtime's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from edgerec.errors import require
from edgerec.runtime.engine import RowArray
from edgerec.runtime.layout import FloatArray

Feed = Mapping[str, NDArray[Any]]
NEVER = -1e38  # a score below is none: nothing is left to return


class Engine(Protocol):
    """What parity asks."""

    name: str

    def rank(self, history: RowArray, k: int) -> tuple[RowArray, FloatArray]:
        """Return the k best rows after a history int64 [1, L] and their scores, nothing masked, [k] each."""

    def encode(self, feed: Feed) -> FloatArray:
        """Return text vectors of ``input_ids`` and ``attention_mask`` int64 [B, L], float32 [B, d]."""


class OpenVinoEngine:
    """OpenVINO over two IR files.

    Args:
        folder: With ``recommender.xml`` and ``item_encoder.xml``.
        shape: Of a session's state, [K, d].
        repeats: Number R of repeat recencies.
        device: OpenVINO's name of it.
    """

    def __init__(self, name: str, folder: Path, shape: tuple[int, int], repeats: int, device: str = "CPU") -> None:
        openvino = require("openvino", "openvino")

        core = openvino.Core()
        # OpenVINO computes in bf16 or fp16 where that is faster; what is compared here is the file
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        self.name = name
        self._recommender, self._encoder = (
            core.compile_model(folder / f"{graph}.xml", device, settings) for graph in ("recommender", "item_encoder")
        )
        self._nothing: dict[str, NDArray[Any]] = {
            "state": np.zeros((1, *shape), np.float32),
            "exclude": np.zeros((1, 1), np.int64),
            "score_offset": np.zeros((1, 1), np.float32),
        }
        if repeats:
            self._nothing |= {
                "repeat_rows": np.zeros((1, 1), np.int64),
                "repeat_memory": np.zeros((1, repeats, 1), np.float32),
            }

    def rank(self, history: RowArray, k: int) -> tuple[RowArray, FloatArray]:
        """Return the k best rows and their scores."""
        answer = self._recommender({**self._nothing, "history": history, "k": np.array([k], np.int64)})
        return answer["items"][0], answer["scores"][0]

    def encode(self, feed: Feed) -> FloatArray:
        """Return text vectors."""
        return self._encoder(dict(feed))["text_vector"]


def required_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a recommender whose inputs have no defaults, for engines that take a default for a constant."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    inputs = {value.name for value in changed.graph.input}
    kept = [tensor for tensor in changed.graph.initializer if tensor.name not in inputs]
    del changed.graph.initializer[:]
    changed.graph.initializer.extend(kept)
    return changed


def token_feeds(tokenizer: Any, texts: Sequence[str], max_tokens: int, batch: int = 64) -> list[Feed]:
    """Return batches of padded ``input_ids`` and ``attention_mask`` int64 [B, L], in the order of the texts.

    Args:
        tokenizer: Padding and truncating nothing.
        texts: At least one.
        max_tokens: Where a text is cut.
        batch: Texts per feed.
    """
    own = type(tokenizer).from_str(tokenizer.to_str())  # the given one stays as it is
    own.enable_truncation(max_tokens)
    own.enable_padding()
    feeds: list[Feed] = []
    for start in range(0, len(texts), batch):
        encoded = own.encode_batch(list(texts[start : start + batch]))
        ids, mask = (np.array([getattr(one, name) for one in encoded], np.int64) for name in ("ids", "attention_mask"))
        feeds.append({"input_ids": ids, "attention_mask": mask})
    return feeds
