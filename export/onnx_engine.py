"""onnxruntime over a model's two graphs; as a script, for a Python elsewhere that has numpy and onnxruntime alone.

    PYTHON onnx_engine.py FOLDER

FOLDER holds both graphs with their tables, and ``requests.npz``; ``answers.npz`` is written beside it. What is in both
is said in ``export/elsewhere.py``.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edgerec.export.engines import Feed
    from edgerec.runtime.engine import RowArray
    from edgerec.runtime.layout import FloatArray

REQUESTS, ANSWERS = "requests.npz", "answers.npz"
# Linux's AT_HWCAP and AT_HWCAP2, and the bits by which an aarch64 processor offers what INT8 kernels are chosen by
FEATURES = {"dotprod": (16, 20), "SVE": (16, 22), "i8mm": (26, 13), "SME": (26, 23)}


class OnnxEngine:
    """onnxruntime over two files, ``.onnx`` (tables beside it) or ``.ort``.

    Args:
        name: What a table calls it.
        recommender: ``recommender.onnx`` or ``.ort``.
        encoder: ``item_encoder.onnx`` or ``.ort``.
        shape: Of a session's state, [K, d].
        entries: Further session options of onnxruntime.
    """

    def __init__(
        self,
        name: str,
        recommender: Path,
        encoder: Path,
        shape: tuple[int, int],
        entries: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        for key, value in entries.items():
            options.add_session_config_entry(key, value)
        self.name, self.state = name, np.zeros((1, *shape), np.float32)
        self._recommender, self._encoder = (
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            for path in (recommender, encoder)
        )

    def rank(self, history: RowArray, k: int) -> tuple[RowArray, FloatArray]:
        """Return the k best rows and their scores."""
        feed = {"history": history, "state": self.state, "k": np.array([k])}
        items, scores = self._recommender.run(["items", "scores"], feed)
        return items[0], scores[0]

    def encode(self, feed: Feed) -> FloatArray:
        """Return text vectors."""
        return self._encoder.run(["text_vector"], dict(feed))[0]


def processor() -> str:
    """Return the architecture, on aarch64 with those of ``FEATURES`` that Linux says are there."""
    if platform.machine() != "aarch64":
        return platform.machine()
    told = ctypes.CDLL(None).getauxval
    told.restype = ctypes.c_ulong
    offered = [name for name, (word, bit) in FEATURES.items() if told(word) >> bit & 1]
    return f"aarch64 ({', '.join(offered) or 'NEON alone'})"


def answer(folder: Path) -> None:
    """Answer ``requests.npz`` of a folder."""
    import onnxruntime

    asked = np.load(folder / REQUESTS)
    of = {kind: sum(name.startswith(kind) for name in asked) for kind in ("history", "input_ids")}
    engine = OnnxEngine("", folder / "recommender.onnx", folder / "item_encoder.onnx", tuple(asked["shape"].tolist()))
    ranked = [engine.rank(asked[f"history_{one}"], int(asked["k"])) for one in range(of["history"])]
    feeds = [
        {name: asked[f"{name}_{one}"] for name in ("input_ids", "attention_mask")} for one in range(of["input_ids"])
    ]
    np.savez(
        folder / ANSWERS,
        items=np.stack([items for items, _ in ranked]),
        scores=np.stack([scores for _, scores in ranked]),
        vectors=np.concatenate([engine.encode(feed) for feed in feeds]),
        version=onnxruntime.__version__,
        processor=processor(),
    )


if __name__ == "__main__":
    answer(Path(sys.argv[1]))
