"""Text on the device: the bundle's tokenizer and ``item_encoder.onnx``, both opened at the first text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from edgerec.bundle import Bundle
from edgerec.errors import BundleError, require
from edgerec.runtime.engine import EXACT, open_graph, run
from edgerec.runtime.layout import ENCODER, TOKENIZER, FloatArray

if TYPE_CHECKING:
    from edgerec.runtime.wordpiece import WordPiece

Feed = dict[str, NDArray[np.int64]]
BATCH = 32
EIGHT_BITS = ("int8-qdq", "qat")  # precisions whose weights have them, as TensorRT wants it; x86 without VNNI saturates
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
        entries: Further session options of onnxruntime; ``EXACT`` is added where the weights ask for it.

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
        stated = bundle.manifest.get("precision")  # of a stranger's file: anything
        full = isinstance(stated, dict) and stated.get("text_encoder") in EIGHT_BITS
        self._entries = {**(EXACT if full else {}), **entries}

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

    @cached_property
    def _word_piece(self) -> WordPiece | None:
        from edgerec.runtime.wordpiece import word_piece  # an app that only recommends does not wait for it

        return word_piece(self._tokenizer, self._max_tokens)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of at least one text."""
        encoded = self.tokens(texts)
        if len(encoded) == 1:
            return self._checked(self.run(feed_of(encoded)), 1)
        order = np.argsort([*map(len, encoded)], kind="stable")  # like lengths together: little padding
        batches = [order[start : start + BATCH].tolist() for start in range(0, len(order), BATCH)]
        parts = [self.run(feed_of([encoded[place] for place in batch])) for batch in batches]
        back = np.argsort(order)
        return self._checked([np.concatenate(outputs)[back] for outputs in zip(*parts, strict=True)], len(encoded))

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts, as many as the encoder reads."""
        plain = self._word_piece
        found = [None if plain is None else plain.ids(text) for text in texts]
        if None in found:
            rest = [place for place, ids in enumerate(found) if ids is None]
            read = self._tokenizer.encode_batch_fast([texts[place] for place in rest])  # fast: without offsets
            for place, encoding in zip(rest, read, strict=True):
                found[place] = encoding.ids
        return cast("list[list[int]]", found)

    def run(self, feed: Feed) -> list[FloatArray]:
        """Return what the graph makes of token ids, in the order of ``Vectors``."""
        return run(self._bundle, ENCODER, self._session, OUTPUTS, feed)

    def _checked(self, arrays: list[FloatArray], count: int) -> Vectors:
        """Return what the graph made of so many texts, if it has the shapes it should have."""
        shapes, size = [array.shape for array in arrays], (count, self._size)
        if shapes != [size, size, size, (count,)]:
            raise BundleError(
                f"{self._bundle.path}: {ENCODER} gives {shapes} for {count} texts of a model of {self._size} "
                f"dimensions; expected {[size, size, size, (count,)]}: export the bundle again"
            )
        return Vectors(*arrays)


def feed_of(encoded: Sequence[Sequence[int]]) -> Feed:
    """Return the graph's inputs for the token ids of texts, int64 [B, L], padded to the longest."""
    if len(encoded) == 1 and encoded[0]:
        ids = np.array(encoded, np.int64)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    lengths = np.array([*map(len, encoded)])
    real = np.arange(max(1, *lengths)) < lengths[:, None]
    ids = np.zeros(real.shape, np.int64)
    ids[real] = [*chain.from_iterable(encoded)]
    return {"input_ids": ids, "attention_mask": real.astype(np.int64)}
