"""A TensorRT of a named version that records every call, has no attribute that the version lacks, and runs on the CPU.

An engine's plan is its ONNX graph: contexts run it by onnxruntime on the fake GPU's memory, so that what the builder,
the runner and the ladder do is seen in the answers too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from edgerec.errors import MissingExtraError

# 11 dropped weak typing, and with it what chose precisions (NVIDIA, "Removed Python APIs and Replacements").
ONLY_10 = ["FP16", "INT8", "BF16", "FP8", "INT4", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"]
BOTH = [
    "VERSION_COMPATIBLE",
    "STRIP_PLAN",
    "REFIT",
    "REFIT_IDENTICAL",
    "TF32",
    "SPARSE_WEIGHTS",
    "EXCLUDE_LEAN_RUNTIME",
]


def absent() -> Any:
    """Import TensorRT where there is none."""
    raise MissingExtraError("tensorrt is not available")


class FakeCuda:
    """Device memory as bytes by address; what is put into the stream is done at once, or recorded."""

    architecture = 87
    stream = 7

    def __init__(self) -> None:
        self.memory: dict[int, bytearray] = {}
        self.calls: list[str] = []
        self.recording: list[Any] | None = None
        self.graphs: dict[int, list[Any]] = {}

    def allocate(self, size: int) -> int:
        address = 4096 * (len(self.calls) + 1)
        self.calls.append("allocate")
        self.memory[address] = bytearray(size)
        return address

    def free(self, address: int) -> None:
        self.calls.append("free")
        del self.memory[address]

    def to_device(self, address: int, array: NDArray[Any]) -> None:
        assert self.recording is None and array.flags.c_contiguous
        self.memory[address][: array.nbytes] = array.tobytes()

    def to_host(self, array: NDArray[Any], address: int) -> None:
        array[...] = np.frombuffer(bytes(self.memory[address][: array.nbytes]), array.dtype).reshape(array.shape)

    def wait(self) -> None:
        assert self.recording is None

    def begin_capture(self) -> None:
        self.recording = []

    def end_capture(self) -> int:
        assert self.recording is not None
        self.graphs[len(self.graphs) + 1], self.recording = self.recording, None
        return len(self.graphs)

    def launch(self, graph: int) -> None:
        self.calls.append("launch")
        for work in self.graphs[graph]:
            work()

    def discard(self, graph: int) -> None:
        self.graphs[graph] = []

    def submit(self, work: Any) -> None:
        """Do a piece of work, or record it."""
        if self.recording is None:
            work()
        else:
            self.recording.append(work)


class FakeTensorRT:
    """The module ``tensorrt``.

    Args:
        version: Such as ``"10.3.0"`` or ``"11.4.1"``.
        cuda: Whose memory engines run on.
        broken: ``parse``, ``build``, ``open``, ``refit``, ``enqueue`` or ``level``: what goes wrong.
    """

    def __init__(self, version: str, cuda: FakeCuda, broken: str = "") -> None:
        calls: list[tuple[Any, ...]] = []
        major = int(version.split(".")[0])
        flags = BOTH + (ONLY_10 if major < 11 else [])
        kinds = ["EXPLICIT_BATCH", "STRONGLY_TYPED"] if major < 11 else ["PREFER_AOT_PYTHON_PLUGINS"]
        self.__version__, self.calls, self.cuda, self.broken = version, calls, cuda, broken
        self.BuilderFlag = IntEnum("BuilderFlag", flags)
        self.NetworkDefinitionCreationFlag = IntEnum("NetworkDefinitionCreationFlag", kinds, start=0)
        self.HardwareCompatibilityLevel = Enum("HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS"])
        self.ExecutionContextAllocationStrategy = Enum(
            "ExecutionContextAllocationStrategy", ["STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED"]
        )
        self.TensorIOMode = Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
        self.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda logger, level: None})
        self.Builder = lambda logger: Builder(self)
        self.OnnxParser = lambda network, logger: Parser(self, network)
        self.Runtime = lambda logger: Runtime(self)
        self.Refitter = lambda engine, logger: Refitter(self, engine)
        self.OnnxParserRefitter = lambda refitter, logger: ParserRefitter(self, refitter)

    def nptype(self, dtype: Any) -> Any:
        return dtype


class Recorder:
    """Anything of the fake's: it can be given no attribute that it does not have."""

    allowed: tuple[str, ...] = ()

    def __init__(self, trt: FakeTensorRT) -> None:
        object.__setattr__(self, "trt", trt)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.allowed:
            raise AttributeError(f"{type(self).__name__} of TensorRT {self.trt.__version__} has no {name}")
        self.trt.calls.append((type(self).__name__, name, value))
        object.__setattr__(self, name, value)


class Builder(Recorder):
    def create_network(self, flags: int) -> Any:
        self.trt.calls.append(("create_network", flags))
        return SimpleNamespace(graph=b"")

    def create_builder_config(self) -> Config:
        return Config(self.trt)

    def create_optimization_profile(self) -> Any:
        shapes: dict[str, Any] = {}
        return SimpleNamespace(
            shapes=shapes, set_shape=lambda name, low, usual, high: shapes.update({name: [low, usual, high]})
        )

    def build_serialized_network(self, network: Any, config: Config) -> Any:
        self.trt.calls.append(("build", sorted(config.flags)))
        if self.trt.broken == "build":
            return None
        level = "NONE" if self.trt.broken == "level" else config.hardware_compatibility_level.name
        plan = {
            "graph": network.graph.hex(),
            "profiles": config.profiles,
            "level": level,
            "flags": sorted(config.flags),
            "version": self.trt.__version__,
        }
        return memoryview(json.dumps(plan).encode())


class Config(Recorder):
    allowed = ("hardware_compatibility_level", "builder_optimization_level", "profiling_verbosity", "timing")

    def __init__(self, trt: FakeTensorRT) -> None:
        super().__init__(trt)
        made = {"flags": set(), "profiles": [], "hardware_compatibility_level": trt.HardwareCompatibilityLevel.NONE}
        for name, value in made.items():
            object.__setattr__(self, name, value)

    def set_flag(self, flag: IntEnum) -> None:
        self.flags.add(flag.name)

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> Any:
        self.trt.calls.append(("timing cache", content))
        return SimpleNamespace(serialize=lambda: memoryview(b"timed"))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        return True


class Parser(Recorder):
    num_errors = 1

    def __init__(self, trt: FakeTensorRT, network: Any) -> None:
        super().__init__(trt)
        object.__setattr__(self, "network", network)

    def parse(self, graph: bytes) -> bool:
        self.network.graph = graph
        return self.trt.broken != "parse"

    def get_error(self, place: int) -> str:
        return f"fault {place}"


class Runtime(Recorder):
    allowed = ("engine_host_code_allowed",)

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        content = json.loads(plan)
        if self.trt.broken == "open" or content["version"] != self.trt.__version__:
            return None
        return Engine(self.trt, content)


class Refitter(Recorder):
    def __init__(self, trt: FakeTensorRT, engine: Engine) -> None:
        super().__init__(trt)
        object.__setattr__(self, "engine", engine)

    def refit_cuda_engine(self) -> bool:
        return True


class ParserRefitter(Recorder):
    num_errors = 1

    def __init__(self, trt: FakeTensorRT, refitter: Refitter) -> None:
        super().__init__(trt)
        object.__setattr__(self, "refitter", refitter)

    def refit_from_bytes(self, graph: bytes) -> bool:
        self.trt.calls.append(("refit",))
        if self.trt.broken == "refit":
            return False
        self.refitter.engine.load(graph)
        return True

    def get_error(self, place: int) -> str:
        return f"fault {place}"


class Engine(Recorder):
    def __init__(self, trt: FakeTensorRT, content: dict[str, Any]) -> None:
        super().__init__(trt)
        object.__setattr__(self, "content", content)
        object.__setattr__(self, "refittable", "REFIT" in content["flags"])
        object.__setattr__(self, "hardware_compatibility_level", trt.HardwareCompatibilityLevel[content["level"]])
        object.__setattr__(self, "num_optimization_profiles", len(content["profiles"]))
        self.load(bytes.fromhex(content["graph"]), filled="STRIP_PLAN" not in content["flags"])

    def load(self, graph: bytes, filled: bool = True) -> None:
        """Take a graph's names, and its weights where the engine holds some."""
        model = onnx.load_from_string(graph)
        values = [*model.graph.input, *model.graph.output]
        kinds = {one.name: helper.tensor_dtype_to_np_dtype(one.type.tensor_type.elem_type) for one in values}
        made = {"names": [one.name for one in values], "kinds": kinds, "n_inputs": len(model.graph.input)}
        made |= {"num_io_tensors": len(values), "session": session(graph) if filled else None}
        for name, value in made.items():
            object.__setattr__(self, name, value)

    def get_tensor_name(self, place: int) -> str:
        return self.names[place]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self.trt.TensorIOMode
        return modes.INPUT if self.names.index(name) < self.n_inputs else modes.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return self.kinds[name]

    def get_tensor_profile_shape(self, name: str, profile: int) -> Sequence[tuple[int, ...]]:
        return [tuple(one) for one in self.content["profiles"][profile][name]]

    def create_execution_context(self, strategy: Enum) -> Context:
        assert strategy is self.trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        self.trt.calls.append(("context",))
        return Context(self.trt, self)


class Context(Recorder):
    def __init__(self, trt: FakeTensorRT, engine: Engine) -> None:
        super().__init__(trt)
        for name, value in {"engine": engine, "shapes": {}, "addresses": {}, "changes": []}.items():
            object.__setattr__(self, name, value)

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert stream == FakeCuda.stream
        self.trt.calls.append(("profile", profile))
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        self.changes.append(name)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.shapes:
            return self.shapes[name]
        feeds = {one: np.zeros(shape, self.engine.kinds[one]) for one, shape in self.shapes.items()}
        (result,) = self.engine.session.run([name], feeds)
        return tuple(result.shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        self.changes.append(name)
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == FakeCuda.stream
        shapes, addresses, changes = dict(self.shapes), dict(self.addresses), len(self.changes)

        def work() -> None:
            assert len(self.changes) == changes, "a CUDA graph of a context that was changed since"
            self.compute(shapes, addresses)

        self.trt.cuda.submit(work)
        return self.trt.broken != "enqueue"

    def compute(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        """Run the graph from device memory to device memory."""
        memory, kinds = self.trt.cuda.memory, self.engine.kinds
        feeds = {}
        for name, shape in shapes.items():
            size = int(np.prod(shape))
            feeds[name] = np.frombuffer(bytes(memory[addresses[name]]), kinds[name])[:size].reshape(shape)
        outputs = self.engine.names[self.engine.n_inputs :]
        for name, value in zip(outputs, self.engine.session.run(outputs, feeds), strict=True):
            memory[addresses[name]][: value.nbytes] = np.ascontiguousarray(value).tobytes()


def session(graph: bytes) -> Any:
    """Open a graph on the CPU."""
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
