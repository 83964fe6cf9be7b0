"""The best way to run a graph here: a kept engine, one refitted, one built now, or onnxruntime on GPU or CPU.

Each step that fails is logged once in a process, with its reason, so that nobody takes a CPU's speed for a GPU's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

from numpy.typing import NDArray

from edgerec.errors import EdgerecError, require
from edgerec.export.tensorrt_builder import BuildOptions, Profile, build, load_tensorrt
from edgerec.export.tensorrt_cache import EngineCache
from edgerec.runtime.cuda import Cuda
from edgerec.runtime.engine import EXACT
from edgerec.runtime.tensorrt_engine import Arrays, Deserialized, EngineError, TensorRTEngine

LOGGER = logging.getLogger(__name__)
STEPS = ("engine", "refit", "rebuild", "onnxruntime-cuda", "onnxruntime-cpu")


class Runner(Protocol):
    """Runs a graph."""

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] = ()) -> Arrays: ...  # noqa: D102


@dataclass(frozen=True)
class Opened:
    """A runner, the step that gave it, and why each step above did not."""

    runner: Runner
    step: str
    reasons: Mapping[str, str]


class NotKeptError(EngineError):
    """No engine was built here before."""


class OnnxRuntimeRunner:
    """A graph on one of onnxruntime's providers, with no other beside it for a GPU.

    Raises:
        EngineError: The provider is not there, or does not take the graph.
    """

    def __init__(self, graph: bytes, provider: str) -> None:
        runtime = require("onnxruntime", "text")
        if provider not in (available := runtime.get_available_providers()):
            raise EngineError(f"onnxruntime has no {provider}; expected it among {', '.join(available)}")
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        # weights have 8 bits here, as TensorRT multiplies them: a CPU without VNNI would saturate
        entries = EXACT if provider == "CPUExecutionProvider" else {"session.disable_cpu_ep_fallback": "1"}
        for key, value in entries.items():
            options.add_session_config_entry(key, value)
        try:
            self._session = runtime.InferenceSession(graph, options, providers=[provider])
        except Exception as error:  # onnxruntime's errors share no base class below Exception
            raise EngineError(f"onnxruntime's {provider} does not take the graph ({error})") from error

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] = ()) -> Arrays:
        """Return outputs, all of them where none is named."""
        names = list(outputs) or [node.name for node in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))


class TensorRTSteps:
    """The three steps that need TensorRT and a GPU.

    Raises:
        EdgerecError: Either is missing.
    """

    def __init__(
        self,
        graph: bytes,
        profiles: Sequence[Profile],
        options: BuildOptions,
        trt: Any,
        device: Any,
        cuda_graph: bool = False,
    ) -> None:
        self.graph, self.profiles, self.options = graph, profiles, options
        self.trt, self.device, self.cuda_graph = trt, device, cuda_graph
        self.cache = EngineCache.here(trt.__version__, device.architecture)
        self.engines = Deserialized(trt, host_code=options.version_compatible)

    def kept(self) -> Runner:
        """Open the engine that an earlier run built."""
        options = replace(self.options, stripped=False)
        plan = self.cache.read(self.cache.path(self.graph, self.profiles, options))
        if plan is None:
            raise NotKeptError(f"no engine of this graph is kept in {self.cache.folder} for this TensorRT and GPU")
        return self.opened(self.engines.open(plan))

    def refitted(self) -> Runner:
        """Open an engine without weights of the same structure, and give it the graph's weights."""
        options = replace(self.options, stripped=True)
        plan = self.cache.read(self.cache.path(self.graph, self.profiles, options))
        if plan is None:
            raise NotKeptError("no engine without weights of this structure is kept for this TensorRT and GPU")
        return self.filled(plan)

    def rebuilt(self) -> Runner:
        """Build the engine, and keep it."""
        known = self.cache.timing_cache()
        built = build(self.trt, self.graph, self.profiles, self.options, known, self.engines)
        self.cache.write(self.cache.path(self.graph, self.profiles, self.options), built)
        if self.options.stripped:
            return self.filled(built.plan)
        return self.opened(self.engines.open(built.plan))

    def filled(self, plan: bytes) -> Runner:
        """Open an engine without weights, and give it the graph's."""
        engine = self.engines.open(plan)
        self.engines.refit(engine, self.graph)
        return self.opened(engine)

    def opened(self, engine: Any) -> Runner:
        """Return what runs an engine."""
        return TensorRTEngine(self.trt, engine, self.device, self.cuda_graph)


def open_here(
    graph: bytes,
    profiles: Sequence[Profile],
    options: BuildOptions | None = None,
    tensorrt: Callable[[], Any] = load_tensorrt,
    cuda: Callable[[], Any] = Cuda,
) -> Opened:
    """Return the first of ``STEPS`` that works.

    Args:
        graph: ONNX, strongly typed.
        profiles: What shapes an engine is to take.
        options: Of an engine that is built.
        tensorrt: Imports TensorRT.
        cuda: Opens the GPU; it comes before anything of TensorRT's, which without a driver ends the process.
    """
    found: list[TensorRTSteps] = []

    def steps() -> TensorRTSteps:
        if not found:
            trt, device = tensorrt(), cuda()
            found.append(TensorRTSteps(graph, profiles, options or BuildOptions(), trt, device))
        return found[0]

    tries: tuple[Callable[[], Runner], ...] = (
        lambda: steps().kept(),
        lambda: steps().refitted(),
        lambda: steps().rebuilt(),
        lambda: OnnxRuntimeRunner(graph, "CUDAExecutionProvider"),
        lambda: OnnxRuntimeRunner(graph, "CPUExecutionProvider"),
    )
    return climb_down(dict(zip(STEPS, tries, strict=True)))


def open_kept(graph: bytes, profiles: Sequence[Profile], trt: Any, device: Any, cuda_graph: bool = False) -> Runner:
    """Return an engine that was built before with the default options, or one without weights, filled.

    Args:
        graph: ONNX, strongly typed.
        profiles: What shapes the engine takes.
        trt: The ``tensorrt`` module.
        device: A GPU, as ``Cuda`` opens it.
        cuda_graph: Whether requests of one shape are recorded.

    Raises:
        NotKeptError: There is none.
        EngineError: It cannot be opened.
    """
    steps = TensorRTSteps(graph, profiles, BuildOptions(), trt, device, cuda_graph)
    try:
        return steps.kept()
    except NotKeptError as reason:
        try:
            return steps.refitted()
        except NotKeptError:
            raise reason from None


def climb_down(tries: Mapping[str, Callable[[], Runner]]) -> Opened:
    """Return the first try that works.

    Raises:
        EngineError: None does; all reasons are named.
    """
    reasons: dict[str, str] = {}
    for step, attempt in tries.items():
        try:
            return Opened(attempt(), step, reasons)
        except EdgerecError as error:
            reasons[step] = str(error)
            log_once(step, str(error))
    listed = "; ".join(f"{step}: {reason}" for step, reason in reasons.items())
    raise EngineError(f"the graph runs nowhere here: {listed}")


@cache
def log_once(step: str, reason: str) -> None:
    """Log why a step did not work, the first time that it does not for this reason."""
    LOGGER.warning("%s: %s", step, reason)
