"""Peers for ``encode`` and ``search``: MiniLM-L6 in INT8, model2vec, and the indexes of usearch and faiss.

Each loads what ``peer_models.py`` made, in the way its documentation shows; for ``search``, the catalogue is encoded
before the clock starts and asked exactly by numpy, unless ``index`` names usearch or faiss.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

K = 10
BATCH = 32
Vectors = NDArray[np.float32]


class TextPeer:
    """What both encoders share; a subclass sets ``vectors``.

    Args:
        kind: "encode" or "search".
        folder: What ``peer_models.py`` made.
        threads: Of onnxruntime.
        index: "exact", "usearch" or "faiss".
    """

    name = ""
    vectors: Callable[[Sequence[str]], Vectors]

    def __init__(self, kind: str, folder: str, threads: int = 1, index: str = "exact") -> None:
        self.folder, self.threads = Path(folder), int(threads)
        self.index, self.run_one = index, getattr(self, kind)
        self.kind = kind

    def load(self) -> None:
        """Load the encoder."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Load the encoder and, for search, encode the catalogue and fill the index."""
        self.load()
        if self.kind == "search":
            catalogue = json.loads((self.folder / "catalogue.json").read_text("utf-8"))
            self.ids, texts = catalogue["ids"], catalogue["texts"]
            parts = [self.vectors(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
            self.nearest = INDEXES[self.index](np.concatenate(parts))

    def close(self) -> None:
        """Nothing is held outside the process."""

    def encode(self, text: str) -> Vectors:
        """Return a text's vector."""
        return self.vectors([text])[0]

    def search(self, query: str) -> list[str]:
        """Return the items whose text is nearest."""
        return [self.ids[row] for row in self.nearest(self.encode(query))]


class MiniLM(TextPeer):
    """optimum's INT8 file on onnxruntime, mean-pooled and normalised as sentence-transformers does."""

    def load(self) -> None:
        """Open graph and tokenizer."""
        import onnxruntime
        import tokenizers

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        home = self.folder / "minilm-int8"
        graph = next(home.glob("*.onnx"))
        self.session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self.inputs = {node.name for node in self.session.get_inputs()}
        self.tokenizer = tokenizers.Tokenizer.from_file(str(home / "tokenizer.json"))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()
        self.vectors = self._vectors

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        encoded = self.tokenizer.encode_batch(list(texts))
        given = {
            "input_ids": np.array([one.ids for one in encoded]),
            "attention_mask": np.array([one.attention_mask for one in encoded]),
            "token_type_ids": np.array([one.type_ids for one in encoded]),
        }
        tokens = self.session.run(None, {name: given[name] for name in self.inputs})[0]
        mask = given["attention_mask"][..., None]
        pooled = (tokens * mask).sum(1) / mask.sum(1)
        vectors: Vectors = (pooled / np.linalg.norm(pooled, axis=1, keepdims=True)).astype(np.float32)
        return vectors


class Model2Vec(TextPeer):
    """model2vec's static vectors."""

    def load(self) -> None:
        """Load the folder."""
        from model2vec import StaticModel

        model = StaticModel.from_pretrained(str(self.folder / "model2vec"), normalize=True)
        self.vectors = lambda texts: model.encode(list(texts), use_multiprocessing=False).astype(np.float32)


def exact(vectors: Vectors) -> Callable[[Vectors], Sequence[int]]:
    """Return a search by numpy over all vectors."""

    def nearest(query: Vectors) -> Sequence[int]:
        scores = vectors @ query
        best = np.argpartition(-scores, K)[:K]
        rows: list[int] = best[np.argsort(-scores[best], kind="stable")].tolist()
        return rows

    return nearest


def usearch(vectors: Vectors) -> Callable[[Vectors], Sequence[int]]:
    """Return a search by usearch's HNSW index, INT8, its defaults."""
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="cos", dtype="i8")
    index.add(np.arange(len(vectors)), vectors)
    return lambda query: index.search(query, K).keys.tolist()


def faiss(vectors: Vectors) -> Callable[[Vectors], Sequence[int]]:
    """Return a search by faiss's flat inner-product index."""
    import faiss as library

    library.omp_set_num_threads(1)
    index = library.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return lambda query: index.search(query[None], K)[1][0].tolist()


INDEXES = {"exact": exact, "usearch": usearch, "faiss": faiss}


def timed(encode: Callable[[Sequence[str]], object], requests: Sequence[Sequence[str]]) -> tuple[list[int], int]:
    """Return the nanoseconds of each request, and those of the processor for all of them."""
    clock, begun = [time.perf_counter_ns()], time.process_time_ns()
    for texts in requests:
        encode(texts)
        clock.append(time.perf_counter_ns())
    return [after - before for before, after in pairwise(clock)], time.process_time_ns() - begun


def main(name: str, folder: str) -> None:
    """Time an encoder: a line of requests in, a line of what ``timed`` says out."""
    encoder: TextPeer = {"MiniLM": MiniLM, "Model2Vec": Model2Vec}[name]("encode", folder)
    encoder.prepare()

    def encode(texts: Sequence[str]) -> None:
        for start in range(0, len(texts), BATCH):
            encoder.vectors(texts[start : start + BATCH])

    for line in sys.stdin:
        sys.stdout.write(json.dumps(timed(encode, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
