"""ONNX graphs to TensorRT engines, with TensorRT 10 and 11 alike: what a version has is found by ``hasattr``.

An engine belongs to one TensorRT version, one GPU architecture and one platform, so it is built on the device. Profiles
cover lengths by bucket and batches by size: no new length asks for a new engine. What was asked of the builder is read
back from the engine, since builders were seen to drop a flag in silence.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from edgerec.errors import EdgerecError, UsageError, require
from edgerec.runtime.tensorrt_engine import Deserialized

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]  # input -> smallest, usual and largest shape
LENGTHS = (16, 32, 64, 128)  # tokens: the ends of the buckets
BATCHES = (1, 32)
HISTORIES = (32, 512)  # events
EXCLUDED = 1024  # rows
OLDEST = 10  # major version


class BuildError(EdgerecError):
    """TensorRT could not parse or build a graph, or built something else than was asked for."""


@dataclass(frozen=True)
class BuildOptions:
    """What kind of engine to build; each costs speed, and is off by default.

    Attributes:
        version_compatible: It opens with later TensorRT versions too.
        hardware_compatible: It runs on every GPU from Ampere on.
        stripped: It holds no weights; they come from the ONNX file by a refit when it is opened.
        capabilities: GPU architectures (86 for SM 8.6) to build for without such a GPU; TensorRT-RTX only.
    """

    version_compatible: bool = False
    hardware_compatible: bool = False
    stripped: bool = False
    capabilities: tuple[int, ...] = ()


@dataclass(frozen=True)
class Built:
    """An engine as bytes, the timing cache after the build, and a JSON record of how it was built."""

    plan: bytes
    timing_cache: bytes
    record: dict[str, Any]


def load_tensorrt() -> Any:
    """Import TensorRT.

    Raises:
        MissingExtraError: It is not installed.
        UsageError: It is older than 10.
    """
    trt = require("tensorrt", "tensorrt")
    if int(trt.__version__.split(".")[0]) < OLDEST:
        raise UsageError(
            f"TensorRT is {trt.__version__}; expected 10.3 or later (JetPack 6.1): update JetPack, or use onnxruntime"
        )
    return trt


def encoder_profiles(max_tokens: int = LENGTHS[-1], batches: Sequence[int] = BATCHES) -> list[Profile]:
    """Return a profile for each bucket of lengths and each of batches, for ``input_ids`` and ``attention_mask``."""
    ends = sorted({*(end for end in LENGTHS if end < max_tokens), max_tokens})
    found: list[Profile] = []
    for shortest, longest in buckets(ends):
        for smallest, largest in buckets(batches):
            shapes = ((smallest, shortest), (largest, longest), (largest, longest))
            found.append(dict.fromkeys(("input_ids", "attention_mask"), shapes))
    return found


def recommender_profiles(states: int, size: int, repeats: int = 0, batches: Sequence[int] = BATCHES) -> list[Profile]:
    """Return profiles for the graph that ``tensorrt_recommender`` builds.

    Args:
        states: K, number of recencies.
        size: d, number of dimensions.
        repeats: R, number of repeat recencies.
        batches: The ends of the buckets.
    """
    found: list[Profile] = []
    for _, longest in buckets(HISTORIES):
        for low, high in buckets(batches):
            profile = {
                "history": ((low, 1), (high, longest), (high, longest)),
                "state": tuple((batch, states, size) for batch in (low, high, high)),
                "exclude": ((low, 1), (high, longest), (high, EXCLUDED)),
            }
            if repeats:
                profile["repeat_rows"] = ((low, 1), (high, longest), (high, EXCLUDED))
                lengths = zip((low, high, high), (1, longest, EXCLUDED), strict=True)
                profile["repeat_memory"] = tuple((batch, repeats, length) for batch, length in lengths)
            found.append(profile)  # type: ignore[arg-type]
    return found


def buckets(ends: Sequence[int]) -> list[tuple[int, int]]:
    """Return the ranges that ascending ends part the numbers from 1 into."""
    return [(before + 1, end) for before, end in zip([0, *ends[:-1]], ends, strict=True)]


def build(
    trt: Any,
    graph: bytes,
    profiles: Sequence[Profile],
    options: BuildOptions | None = None,
    timing_cache: bytes = b"",
    engines: Deserialized | None = None,
) -> Built:
    """Build an engine.

    Args:
        trt: The ``tensorrt`` module, or ``tensorrt_rtx``, which has its classes.
        graph: ONNX, strongly typed.
        profiles: At least one.
        options: Of the engine.
        timing_cache: Of an earlier build with this version on this GPU.
        engines: What opens the engine to read it back; None where there is no GPU to open it on.

    Raises:
        BuildError: It cannot be parsed or built, or is not what was asked for; every reason is named.
    """
    options, began = options or BuildOptions(), time.perf_counter()
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = parsed(trt, builder, logger, graph)
    config = builder.create_builder_config()
    set_options(trt, config, options)
    for shapes in profiles:
        config.add_optimization_profile(made_profile(builder, shapes))
    cache = None
    if hasattr(config, "create_timing_cache"):
        with timing_caches():
            cache = config.create_timing_cache(timing_cache)
            config.set_timing_cache(cache, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"TensorRT {trt.__version__} built no engine; expected one: its log on stderr says why")
    plan = bytes(plan)
    record = {
        "tensorrt": trt.__version__,
        "options": asdict(options),
        "profiles": [{name: [list(one) for one in shapes] for name, shapes in one.items()} for one in profiles],
        "seconds": round(time.perf_counter() - began, 3),
        "bytes": len(plan),
        "read_back": "no GPU to open it on"
        if engines is None
        else read_back(trt, engines.open(plan), options, profiles),
    }
    with timing_caches():
        written = cache.serialize() if cache is not None else None
    return Built(plan, bytes(written) if written is not None else b"", record)


@contextmanager
def timing_caches() -> Iterator[None]:
    """Let TensorRT-RTX be asked for a timing cache, which it has and calls outdated: it times where an engine runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def parsed(trt: Any, builder: Any, logger: Any, graph: bytes) -> Any:
    """Return the network of a graph."""
    kinds = trt.NetworkDefinitionCreationFlag  # 11 has strongly typed networks only
    typed = 1 << int(kinds.STRONGLY_TYPED) if hasattr(kinds, "STRONGLY_TYPED") else 0
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        faults = "; ".join(str(parser.get_error(place)) for place in range(parser.num_errors))
        raise BuildError(f"TensorRT {trt.__version__} cannot parse the graph: {faults}; name another precision")
    return network


def set_options(trt: Any, config: Any, options: BuildOptions) -> None:
    """Ask a builder for an engine's options.

    Raises:
        BuildError: This version does not have one of them.
    """
    flags = {"VERSION_COMPATIBLE": options.version_compatible, "STRIP_PLAN": options.stripped}
    flags["REFIT"] = options.stripped
    wanted = [name for name, on in flags.items() if on]
    missing = [name for name in wanted if not hasattr(trt.BuilderFlag, name)]
    if options.capabilities and not hasattr(config, "set_compute_capability"):
        missing.append("compute capabilities")
    if missing:
        raise BuildError(
            f"TensorRT {trt.__version__} has no {', '.join(missing)}; expected it: build without, or update"
        )
    for name in wanted:
        config.set_flag(getattr(trt.BuilderFlag, name))
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.capabilities:
        config.num_compute_capabilities = len(options.capabilities)
        for place, number in enumerate(options.capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{number}"), place)


def made_profile(builder: Any, shapes: Profile) -> Any:
    """Return an optimization profile."""
    profile = builder.create_optimization_profile()
    for name, (smallest, usual, largest) in shapes.items():
        profile.set_shape(name, smallest, usual, largest)
    return profile


def read_back(trt: Any, engine: Any, options: BuildOptions, profiles: Sequence[Profile]) -> dict[str, Any]:
    """Return what an engine says of itself.

    Raises:
        BuildError: It says something else than was asked for.
    """
    level = "AMPERE_PLUS" if options.hardware_compatible else "NONE"
    wanted = {"hardware_compatibility_level": level, "refittable": options.stripped, "profiles": len(profiles)}
    got = {
        "hardware_compatibility_level": engine.hardware_compatibility_level.name,
        "refittable": bool(engine.refittable),
        "profiles": int(engine.num_optimization_profiles),
    }
    if wrong := [f"{name} is {got[name]}, expected {value}" for name, value in wanted.items() if got[name] != value]:
        raise BuildError(f"TensorRT {trt.__version__} built another engine than asked: {'; '.join(wrong)}; update it")
    return got
