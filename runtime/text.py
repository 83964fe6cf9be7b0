"""Text on the device: the bundle's tokenizer and ``item_encoder.onnx``, both opened at the first text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from edgerec.bundle import Bundle
from edgerec.errors import BundleError, require
from edgerec.runtime.engine import open_graph, run
from edgerec.runtime.layout import ENCODER, TOKENIZER, FloatArray

BATCH = 32
OUTPUTS = ["text_vector", "item_in", "item_out", "bias"]


class Vectors(NamedTuple):
    """What the encoder makes of n texts: three times float32 [n, d], and ``bias`` [n]."""

    text: FloatArray
    item_in: FloatArray
    item_out: FloatArray
    bias: FloatArray

    @classmethod
    def of_no_text(cls, size: int) -> Vectors:
        """Return the vectors of no texts at all."""
        nothing = np.zeros((0, size), np.float32)
        return cls(nothing, nothing, nothing, np.zeros(0, np.float32))


class TextEncoder:
    """Texts to vectors.

    Args:
        bundle: An open bundle.
        model: Its manifest's ``model``.
        threads: Threads within one operator.
        entries: Further session options of onnxruntime.

    Raises:
        MissingExtraError: ``tokenizers`` is not installed (at the first text).
        BundleError: The tokenizer or the graph cannot be opened (at the first text).
    """

    def __init__(
        self,
        bundle: Bundle,
        model: Mapping[str, Any],
        threads: int,
        entries: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._bundle = bundle
        self._max_tokens = model["max_tokens"]
        self._size = model["embedding_size"]
        self._threads = threads
        self._entries = entries

    @cached_property
    def _session(self) -> Any:
        return open_graph(self._bundle, ENCODER, self._threads, {}, self._entries)

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizers = require("tokenizers", "text")
        try:
            tokenizer = tokenizers.Tokenizer.from_str(str(self._bundle[TOKENIZER], "utf-8"))
        except Exception as error:  # tokenizers raises bare Exception
            raise BundleError(
                f"{self._bundle.path}: {TOKENIZER} cannot be read ({error}); update tokenizers, or export again"
            ) from error
        tokenizer.enable_truncation(self._max_tokens)
        tokenizer.no_padding()
        return tokenizer

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of at least one text."""
        encoded = self.tokens(texts)
        order = np.argsort([len(tokens) for tokens in encoded], kind="stable")  # like lengths together: little padding
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        parts = [self._run([encoded[place] for place in batch]) for batch in batches]
        back = np.argsort(order)
        vectors = Vectors(*(np.concatenate(outputs)[back] for outputs in zip(*parts, strict=True)))
        expected = [(len(texts), *array.shape[1:]) for array in Vectors.of_no_text(self._size)]
        if (shapes := [array.shape for array in vectors]) != expected:
            raise BundleError(
                f"{self._bundle.path}: {ENCODER} gives {shapes} for {len(texts)} texts of a model of {self._size} "
                f"dimensions; expected {expected}: export the bundle again"
            )
        return vectors

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts, as many as the encoder reads."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def _run(self, encoded: list[list[int]]) -> list[FloatArray]:
        ids = np.zeros((len(encoded), max(1, *map(len, encoded))), np.int64)
        mask = np.zeros_like(ids)
        for line, tokens in enumerate(encoded):
            ids[line, : len(tokens)] = tokens
            mask[line, : len(tokens)] = 1
        feed = {"input_ids": ids, "attention_mask": mask}
        return run(self._bundle, ENCODER, self._session, OUTPUTS, feed)
