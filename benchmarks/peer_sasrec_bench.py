"""SASRec of RecTools as a peer of ``bench``: what ``peer_sasrec.py`` left in a folder, served in two ways.

    .venv-peers/bin/python benchmarks/peer_sasrec.py requests runs/short --candidates 1 --rounds 2 # for a latency
    PYTHONPATH=. .venv-peers/bin/python benchmarks/peer_sasrec_bench.py runs/short                 # writes sasrec.onnx

    Recommend    RecTools' own ``recommend``, on a data set of one user made for each request
    OnnxRuntime  its network as sasrec.onnx, where neither torch nor RecTools is loaded; the items' vectors are in it

A history becomes a window of fixed length, padded on the left, as in training: its padding is attended to.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgerec.benchmarks.adapters import Staged, importing

K = 10
GRAPH, ITEMS = "sasrec.onnx", "sasrec.json"


def network(folder: Path) -> tuple[Any, list[str], int]:
    """Return a network from windows int64 [1, L] to scores [n_items + 1], its item ids (padding first), and L."""
    import torch
    from rectools.models import SASRecModel

    model = SASRecModel.load(folder / "model.pkl")
    backbone = model.torch_model.eval().requires_grad_(False)
    items = backbone.item_model.get_all_embeddings().clone()

    class Scores(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone
            self.register_buffer("items", items)

        def forward(self, window: torch.Tensor) -> torch.Tensor:
            return self.items @ self.backbone.encode_sessions({"x": window}, self.items)[0, -1]

    return Scores().eval(), model.data_preparator.item_id_map.external_ids.tolist(), model.session_max_len


def export(folder: Path) -> None:
    """Write a folder's network as ONNX, and its item ids."""
    import torch

    module, ids, length = network(folder)

    class Places(torch.nn.Module):
        def __init__(self, places: torch.Tensor) -> None:
            super().__init__()
            self.places = places

        def forward(self, items: torch.Tensor) -> torch.Tensor:
            return items + self.places

    window = torch.arange(1, length + 1)[None]
    places = module.backbone.pos_encoding_layer(torch.zeros(1, length, module.items.shape[1]))
    module.backbone.pos_encoding_layer = Places(places)  # tiled indices become a graph that onnxruntime refuses
    torch.onnx.export(module, (window,), str(folder / GRAPH), input_names=["window"], dynamo=False)
    (folder / ITEMS).write_text(json.dumps({"ids": ids, "window": length}), "utf-8")


class Sasrec(Staged):
    """What both ways share.

    Args:
        kind: "recommend".
        folder: What ``peer_sasrec.py`` made.
        threads: Of torch or onnxruntime.
    """

    packages: tuple[str, ...] = ()  # what loading imports

    def __init__(self, kind: str, folder: str, threads: int = 1) -> None:
        self.kind, self.folder, self.threads = kind, Path(folder), int(threads)

    def stages(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield import and model."""
        yield "import", importing(*self.packages)
        yield "open", self.load

    def load(self) -> None:
        """Load the model."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is held outside the process."""


class OnnxRuntime(Sasrec):
    """The exported network."""

    packages = ("onnxruntime",)

    def load(self) -> None:
        """Open the graph."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        graph = str(self.folder / GRAPH)
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        stored = json.loads((self.folder / ITEMS).read_text("utf-8"))
        self.ids, self.length = stored["ids"], stored["window"]
        self.row_of = {item: row for row, item in enumerate(self.ids)}

    def run_one(self, history: Sequence[str]) -> list[str]:
        """Recommend after a whole history; what was seen is left out."""
        seen = [self.row_of[item] for item in history if item in self.row_of]
        window = np.zeros((1, self.length), np.int64)
        kept = seen[-self.length :]
        window[0, self.length - len(kept) :] = kept
        scores = self.session.run(None, {"window": window})[0]
        scores[[0, *seen]] = -np.inf
        best = np.argpartition(-scores, K)[:K]
        return [self.ids[row] for row in best[np.argsort(-scores[best], kind="stable")]]


class Recommend(Sasrec):
    """RecTools' own way."""

    packages = ("torch", "rectools.models")

    def load(self) -> None:
        """Load the model."""
        import warnings

        import torch
        from rectools.models import SASRecModel

        from edgerec.benchmarks.peer_sasrec import dataset

        warnings.filterwarnings("ignore", module="pytorch_lightning|rectools|pydantic")
        torch.set_num_threads(self.threads)
        self.model, self.dataset = SASRecModel.load(self.folder / "model.pkl"), dataset

    def run_one(self, history: Sequence[str]) -> list[str]:
        """Recommend after a whole history; what was seen is left out."""
        one = self.dataset({"user": list(history)})
        found: list[str] = self.model.recommend(["user"], one, k=K, filter_viewed=True)["item_id"].tolist()
        return found


if __name__ == "__main__":
    export(Path(sys.argv[1]))
