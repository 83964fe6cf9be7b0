"""A bundle's text encoder on onnxruntime's CUDA provider; ranking stays where it is, on the CPU."""

from __future__ import annotations

import importlib

from edgerec.benchmarks.adapters import NotHere
from edgerec.benchmarks.subjects import BundleSubject
from edgerec.errors import BundleError
from edgerec.runtime.engine import open_graph
from edgerec.runtime.layout import ENCODER

PROVIDER = "CUDAExecutionProvider"


class CudaSubject(BundleSubject):
    """The shipped encoder, every node of it by one provider: what falls back to the CPU is not measured as a GPU."""

    device = "cuda"  # whose energy is read
    provider = PROVIDER

    def _graphs(self) -> None:
        super()._graphs()
        runtime = importlib.import_module("onnxruntime")
        if self.provider not in (found := runtime.get_available_providers()):
            raise NotHere(f"onnxruntime {runtime.__version__} here has {', '.join(found)}; expected {self.provider}")
        alone = {"session.disable_cpu_ep_fallback": "1"} if self.provider == PROVIDER else {}
        try:
            session = open_graph(self._bundle, ENCODER, self.threads, {}, alone, self.provider)
        except BundleError as error:
            raise NotHere(
                f"{self.provider} cannot run {ENCODER} alone: {' '.join(str(error).split())[:200]}"
            ) from error
        if self.provider not in session.get_providers():
            raise NotHere(
                f"onnxruntime {runtime.__version__} could not start {self.provider}; expected CUDA's libraries"
            )
        self.recommender.encoder.__dict__["_session"] = session
