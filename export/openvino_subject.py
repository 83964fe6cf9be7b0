"""A bundle on OpenVINO's CPU plugin as a subject of ``edgerec bench``: the same runtime, its two sessions replaced."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgerec.benchmarks.adapters import NotHere
from edgerec.benchmarks.subjects import BundleSubject
from edgerec.errors import MissingExtraError, require
from edgerec.export.engines import required_inputs
from edgerec.runtime.layout import ENCODER, GRAPH


class OpenvinoSubject(BundleSubject):
    """The shipped graphs, compiled by OpenVINO."""

    def _graphs(self) -> None:
        super()._graphs()
        with tempfile.TemporaryDirectory() as folder:
            for name in self._bundle.manifest["members"]:
                (Path(folder) / name).write_bytes(self._bundle[name])
            self.recommender.ranker._session = OpenvinoSession(Path(folder) / GRAPH, self.threads)
            self.recommender.encoder.__dict__["_session"] = OpenvinoSession(Path(folder) / ENCODER, self.threads)


class OpenvinoSession:
    """What the runtime asks of an onnxruntime session: ``run``. Inputs with defaults are always given.

    Raises:
        NotHere: OpenVINO or onnx is not installed, or OpenVINO cannot compile the graph.
    """

    def __init__(self, graph: Path, threads: int) -> None:
        try:
            openvino, onnx = require("openvino", "openvino"), require("onnx", "export")
        except MissingExtraError as error:
            raise NotHere(str(error)) from error
        model = onnx.load(graph, load_external_data=False)
        inputs = {value.name for value in model.graph.input}
        self._defaults = {
            one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer if one.name in inputs
        }
        graph.write_bytes(required_inputs(model).SerializeToString())
        # OpenVINO would compute in bf16 where that is faster; what is measured is the file
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        try:
            core = openvino.Core()
            self._request = core.compile_model(core.read_model(graph), "CPU", hints).create_infer_request()
        except RuntimeError as error:
            raise NotHere(f"openvino {openvino.__version__} cannot compile {graph.name}: {last_line(error)}") from error

    def run(self, outputs: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """Return outputs by name."""
        given = {name: np.ascontiguousarray(value) for name, value in {**self._defaults, **feed}.items()}
        found = self._request.infer(given)
        return [found[name] for name in outputs]


def last_line(error: Exception) -> str:
    """Return the last line of an error that says anything."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
