"""A TensorRT engine behind one call: arrays in, arrays out; device buffers are kept between calls.

TensorRT 10 and 11 differ in nothing that is used here. The profile of a request is the first one that its shapes fit,
so buckets are to be given from the smallest. With ``cuda_graph``, a request of known shapes is one launch. NVIDIA
leaves undefined what a CUDA graph does once its context was changed, so each recorded shape has a context of its own,
with memory of its own: that is for few shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgerec.errors import EdgerecError, UsageError

Arrays = dict[str, NDArray[Any]]


class EngineError(EdgerecError):
    """TensorRT cannot open or run an engine: another version, another GPU, or a damaged file."""


class Device(Protocol):
    """What an engine asks of ``runtime.cuda.Cuda``."""

    stream: int

    def allocate(self, size: int) -> int: ...  # noqa: D102
    def free(self, address: int) -> None: ...  # noqa: D102
    def to_device(self, address: int, array: NDArray[Any]) -> None: ...  # noqa: D102
    def to_host(self, array: NDArray[Any], address: int) -> None: ...  # noqa: D102
    def wait(self) -> None: ...  # noqa: D102
    def begin_capture(self) -> None: ...  # noqa: D102
    def end_capture(self) -> int: ...  # noqa: D102
    def launch(self, graph: int) -> None: ...  # noqa: D102
    def discard(self, graph: int) -> None: ...  # noqa: D102


class Deserialized:
    """Opens engines; it needs a GPU.

    Args:
        trt: The ``tensorrt`` module.
        host_code: Whether engines may bring code of their own, as version-compatible ones do: for files you trust.
    """

    def __init__(self, trt: Any, host_code: bool = False) -> None:
        self.trt, self.logger = trt, trt.Logger(trt.Logger.ERROR)
        self.runtime = trt.Runtime(self.logger)
        if host_code:
            self.runtime.engine_host_code_allowed = True

    def open(self, plan: bytes) -> Any:
        """Return an engine.

        Raises:
            EngineError: It was built by another version, for another GPU, or is no engine.
        """
        engine = self.runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(
                f"TensorRT {self.trt.__version__} cannot open an engine of {len(plan)} bytes; expected one that this "
                "version built on this kind of GPU: build it here"
            )
        return engine

    def refit(self, engine: Any, graph: bytes) -> None:
        """Give an engine the weights of an ONNX graph.

        Raises:
            EngineError: The graph's weights do not fit the engine.
        """
        refitter = self.trt.Refitter(engine, self.logger)
        parser = self.trt.OnnxParserRefitter(refitter, self.logger)
        if not parser.refit_from_bytes(graph) or not refitter.refit_cuda_engine():
            faults = "; ".join(str(parser.get_error(place)) for place in range(parser.num_errors))
            raise EngineError(
                f"the engine does not take the graph's weights ({faults or 'no reason given'}): build anew"
            )


class TensorRTEngine:
    """An engine with its contexts and its device buffers, for one thread.

    Args:
        trt: The ``tensorrt`` module.
        engine: As ``Deserialized.open`` returns it.
        device: Where it runs.
        cuda_graph: Whether to record a request of each shape, and to launch the record the next time.
    """

    def __init__(self, trt: Any, engine: Any, device: Device, cuda_graph: bool = False) -> None:
        self.engine, self.device, self.cuda_graph = engine, device, cuda_graph
        names = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
        given = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self.inputs = [name for name in names if given[name]]
        self.outputs = [name for name in names if not given[name]]
        self.dtypes = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names}
        self._limits = [
            {name: limits(engine.get_tensor_profile_shape(name, profile)) for name in self.inputs}
            for profile in range(engine.num_optimization_profiles)
        ]
        # each context takes the memory of its own profile, not of the largest
        strategies = getattr(trt, "ExecutionContextAllocationStrategy", None)
        self._memory = () if strategies is None else (strategies.ON_PROFILE_CHANGE,)
        self._shapes: dict[tuple[Any, ...], dict[str, tuple[int, ...]]] = {}  # of the outputs
        self._contexts: dict[tuple[Any, ...], Any] = {}
        self._buffers: dict[str, tuple[int, int]] = {}  # address and size
        self._graphs: dict[tuple[Any, ...], int] = {}

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] = ()) -> Arrays:
        """Return outputs.

        Args:
            feeds: Input -> array, of a shape that some profile covers; kinds are brought to the engine's.
            outputs: Which to bring back to the host; all where none is named.

        Raises:
            UsageError: An input is missing, or its shape lies in no profile.
            EngineError: TensorRT cannot run it.
        """
        arrays = self._arrays(feeds)
        profile = self._profile({name: array.shape for name, array in arrays.items()})
        key = (profile, *(array.shape for array in arrays.values()))
        context = self._context(profile, key if self.cuda_graph else (profile,))
        if key not in self._graphs:
            for name, array in arrays.items():
                context.set_input_shape(name, array.shape)
        if key not in self._shapes:
            self._shapes[key] = {name: tuple(context.get_tensor_shape(name)) for name in self.outputs}
        results = {name: np.empty(shape, self.dtypes[name]) for name, shape in self._shapes[key].items()}
        addresses = {name: self._buffer(name, array.nbytes) for name, array in {**arrays, **results}.items()}
        for name, array in arrays.items():
            self.device.to_device(addresses[name], array)
        self._execute(context, key, addresses)
        found = {name: results[name] for name in outputs or self.outputs}
        for name, array in found.items():
            self.device.to_host(array, addresses[name])
        self.device.wait()
        return found

    def close(self) -> None:
        """Give the device memory back."""
        self._forget_graphs()
        for address, _ in self._buffers.values():
            self.device.free(address)
        self._buffers.clear()

    def _arrays(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        if missing := [name for name in self.inputs if name not in feeds]:
            raise UsageError(f"the engine's inputs {', '.join(missing)} are missing; expected {', '.join(self.inputs)}")
        return {name: np.ascontiguousarray(feeds[name], self.dtypes[name]) for name in self.inputs}

    def _profile(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Return the first profile that shapes fit."""
        for profile, known in enumerate(self._limits):
            if all(within(shape, *known[name]) for name, shape in shapes.items()):
                return profile
        got = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise UsageError(f"no profile of the engine covers {got}; expected shorter inputs, or build more profiles")

    def _context(self, profile: int, key: tuple[Any, ...]) -> Any:
        if key not in self._contexts:
            context = self.engine.create_execution_context(*self._memory)
            if context is None or not context.set_optimization_profile_async(profile, self.device.stream):
                raise EngineError(f"TensorRT gives no context for profile {profile}; is the device's memory full?")
            self.device.wait()
            self._contexts[key] = context
        return self._contexts[key]

    def _buffer(self, name: str, size: int) -> int:
        """Return the address of a tensor's buffer, grown where it is too small."""
        address, held = self._buffers.get(name, (0, 0))
        if held < max(size, 1):
            if held:
                self.device.wait()
                self.device.free(address)
            self._forget_graphs()  # they hold the old address
            self._buffers[name] = (self.device.allocate(max(size, 1)), max(size, 1))
        return self._buffers[name][0]

    def _execute(self, context: Any, key: tuple[Any, ...], addresses: Mapping[str, int]) -> None:
        if key in self._graphs:
            self.device.launch(self._graphs[key])
            return
        for name, address in addresses.items():
            context.set_tensor_address(name, address)
        self._enqueue(context)  # TensorRT asks for one plain run before a recording
        if self.cuda_graph:
            self.device.wait()
            self.device.begin_capture()
            self._enqueue(context)
            self._graphs[key] = self.device.end_capture()

    def _enqueue(self, context: Any) -> None:
        if not context.execute_async_v3(self.device.stream):
            raise EngineError("TensorRT could not put the engine into the stream; its log on stderr says why")

    def _forget_graphs(self) -> None:
        for graph in self._graphs.values():
            self.device.discard(graph)
        self._graphs.clear()


def limits(shapes: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the smallest and the largest shape of a profile's three."""
    return tuple(shapes[0]), tuple(shapes[2])


def within(shape: tuple[int, ...], smallest: tuple[int, ...], largest: tuple[int, ...]) -> bool:
    """Tell whether a shape lies within two others."""
    return len(shape) == len(smallest) and all(
        low <= size <= high for size, low, high in zip(shape, smallest, largest, strict=True)
    )
