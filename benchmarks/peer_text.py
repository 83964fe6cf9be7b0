"""Peers for texts: MiniLM-L6 in INT8, by sentence-transformers and fastembed; model2vec; usearch's and faiss's indexes.

Each loads what ``peer_models.py`` made, in the way its documentation shows. The catalogue's vectors are made once and
kept beside the model, as an application keeps them. ``search`` asks them exactly by numpy, unless ``index`` names
usearch or faiss; ``recommend`` asks for what is nearest to the mean of a history's vectors, less the history.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgerec.benchmarks.adapters import Staged, importing

K = 10
BATCH = 32
TOKENS = 256  # what the published MiniLM-L6 reads of a text, as its card says
Vectors = NDArray[np.float32]


class TextPeer(Staged):
    """What the encoders share; a subclass names its ``home`` in the folder and sets ``vectors``.

    Args:
        kind: "encode", "search" or "recommend".
        folder: What ``peer_models.py`` made.
        threads: Of the encoder.
        index: "exact", "usearch" or "faiss".
    """

    home = ""
    packages: tuple[str, ...] = ()  # what loading imports
    vectors: Callable[[Sequence[str]], Vectors]

    def __init__(self, kind: str, folder: str, threads: int = 1, index: str = "exact") -> None:
        self.kind, self.folder, self.threads = kind, Path(folder), int(threads)
        self.index, self.run_one = index, getattr(self, kind)

    def load(self) -> None:
        """Load the encoder."""
        raise NotImplementedError

    def stages(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield import, encoder and, unless it only encodes, the catalogue and its index."""
        yield "import", importing(*self.packages)
        yield "open", self.load
        if self.kind != "encode":
            yield "catalogue", self._catalogue

    def _catalogue(self) -> None:
        catalogue = (self.folder / "catalogue.json").read_bytes()
        self.ids = json.loads(catalogue)["ids"]
        self.row_of = {item: row for row, item in enumerate(self.ids)}
        self.items = self._kept(catalogue)
        self.nearest = INDEXES[self.index](self.items)

    def close(self) -> None:
        """Nothing is held outside the process."""

    def encode(self, text: str) -> Vectors:
        """Return a text's vector."""
        return self.vectors([text])[0]

    def search(self, query: str) -> list[str]:
        """Return the items whose text is nearest."""
        return [self.ids[row] for row in self.nearest(self.encode(query))]

    def recommend(self, history: Sequence[str]) -> list[str]:
        """Return the items nearest to the mean of a history's, less those."""
        rows = [self.row_of[item] for item in history]
        scores = self.items @ self.items[rows].mean(0)
        scores[rows] = -np.inf
        return [self.ids[row] for row in best(scores)]

    def _kept(self, catalogue: bytes) -> Vectors:
        path = self.folder / f"{self.home}-items-{hashlib.sha256(catalogue).hexdigest()[:12]}.npy"
        if not path.exists():
            texts = json.loads(catalogue)["texts"]
            parts = [self.vectors(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
            temporary = path.with_name(f"{path.stem}.tmp.npy")
            np.save(temporary, np.concatenate(parts))
            temporary.replace(path)
        kept: Vectors = np.load(path)
        return kept


class MiniLM(TextPeer):
    """optimum's INT8 file on onnxruntime, mean-pooled and normalised as sentence-transformers does."""

    home, packages = "minilm-int8", ("onnxruntime", "tokenizers")

    def load(self) -> None:
        """Open graph and tokenizer."""
        import onnxruntime
        import tokenizers

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        home = self.folder / self.home
        graph = next(home.glob("*.onnx"))
        self.session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self.inputs = {node.name for node in self.session.get_inputs()}
        self.tokenizer = tokenizers.Tokenizer.from_file(str(home / "tokenizer.json"))
        self.tokenizer.enable_truncation(TOKENS)
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


class SentenceTransformers(TextPeer):
    """The same encoder in torch, mean-pooled and normalised."""

    home, packages = "minilm", ("torch", "sentence_transformers")

    def load(self) -> None:
        """Load the folder."""
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(self.threads)
        model = SentenceTransformer(str(self.folder / self.home), device="cpu")
        model.max_seq_length = TOKENS
        self.vectors = lambda texts: model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


class FastEmbed(TextPeer):
    """The same encoder in float32 on onnxruntime, a custom model of fastembed."""

    home, packages = "minilm-fp32", ("fastembed",)

    def load(self) -> None:
        """Open graph and tokenizer."""
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        home, name = self.folder / self.home, "own/minilm"
        TextEmbedding.add_custom_model(
            model=name,
            pooling=PoolingType.MEAN,
            normalization=True,
            sources=ModelSource(hf=name),
            dim=json.loads((home / "config.json").read_text("utf-8"))["hidden_size"],
            model_file="model.onnx",
        )
        model = TextEmbedding(name, specific_model_path=str(home), threads=self.threads)
        self.vectors = lambda texts: np.array(list(model.embed(list(texts))), np.float32)


class Model2Vec(TextPeer):
    """model2vec's static vectors."""

    home, packages = "model2vec", ("model2vec",)

    def load(self) -> None:
        """Load the folder."""
        from model2vec import StaticModel

        model = StaticModel.from_pretrained(str(self.folder / self.home), normalize=True)
        self.vectors = lambda texts: model.encode(list(texts), use_multiprocessing=False).astype(np.float32)


def best(scores: Vectors) -> list[int]:
    """Return the rows of the highest scores, best first."""
    chosen = np.argpartition(-scores, K)[:K]
    rows: list[int] = chosen[np.argsort(-scores[chosen], kind="stable")].tolist()
    return rows


def exact(vectors: Vectors) -> Callable[[Vectors], Sequence[int]]:
    """Return a search by numpy over all vectors."""
    return lambda query: best(vectors @ query)


def usearch(vectors: Vectors) -> Callable[[Vectors], Sequence[int]]:
    """Return a search by usearch's HNSW index, INT8, its defaults."""
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="cos", dtype="i8")
    index.add(np.arange(len(vectors)), vectors, threads=1)  # by several, it would be another graph each time
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
