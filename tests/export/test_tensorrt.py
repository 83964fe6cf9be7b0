"""Builder, runner, cache and ladder against both major versions of TensorRT, faked: no call that one does not have."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import parser

import pytest

from edgerec.errors import MissingExtraError, UsageError
from edgerec.export import tensorrt_ladder
from edgerec.export.tensorrt_builder import (
    BuildError,
    BuildOptions,
    build,
    encoder_profiles,
    load_tensorrt,
    recommender_profiles,
)
from edgerec.export.tensorrt_cache import EngineCache, digest
from edgerec.export.tensorrt_ladder import OnnxRuntimeRunner, open_here
from edgerec.runtime.cuda import Cuda, NoGPUError
from edgerec.runtime.tensorrt_engine import Deserialized, EngineError, TensorRTEngine
from tests.export.fake_tensorrt import FakeCuda, FakeTensorRT

VERSIONS = ("10.3.0", "11.4.1")
PROFILES = [{"x": ((1, 1), (4, 4), (4, 4))}, {"x": ((1, 5), (4, 16), (4, 16))}]


def graph(weight: float = 2) -> bytes:
    """Return a graph of y = weight * x."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        double (float[b, n] x) => (float[b, n] y) <float w = {{{weight}}}> {{ y = Mul(x, w) }}"""
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


def opened(trt: FakeTensorRT, **options: Any) -> TensorRTEngine:
    """Build and open a graph."""
    plan = build(trt, graph(), PROFILES).plan
    return TensorRTEngine(trt, Deserialized(trt).open(plan), trt.cuda, **options)


def test_an_engine_is_built_strongly_typed_with_every_profile_and_read_back(version: str) -> None:
    trt = FakeTensorRT(version, FakeCuda())
    built = build(trt, graph(), PROFILES, BuildOptions(True, True, True), b"known", Deserialized(trt))
    assert ("create_network", 2 if version < "11" else 0) in trt.calls
    assert ("build", ["REFIT", "STRIP_PLAN", "VERSION_COMPATIBLE"]) in trt.calls
    assert ("timing cache", b"known") in trt.calls
    assert built.timing_cache == b"timed"
    assert built.record["tensorrt"] == version
    assert built.record["read_back"] == {
        "hardware_compatibility_level": "AMPERE_PLUS",
        "refittable": True,
        "profiles": 2,
    }
    assert "no GPU" in build(trt, graph(), PROFILES).record["read_back"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [("parse", "fault 0"), ("build", "built no engine"), ("level", "level is NONE, expected AMPERE_PLUS")],
)
def test_what_the_builder_cannot_do_or_silently_drops_is_an_error(version: str, broken: str, message: str) -> None:
    trt = FakeTensorRT(version, FakeCuda(), broken)
    with pytest.raises(BuildError, match=message):
        build(trt, graph(), PROFILES, BuildOptions(hardware_compatible=True), engines=Deserialized(trt))


def test_options_that_a_version_does_not_have_are_refused(version: str) -> None:
    with pytest.raises(BuildError, match="has no compute capabilities"):
        build(FakeTensorRT(version, FakeCuda()), graph(), PROFILES, BuildOptions(capabilities=(86,)))


def test_the_fake_lacks_what_the_version_lacks() -> None:
    assert hasattr(FakeTensorRT("10.3.0", FakeCuda()).BuilderFlag, "FP16")
    assert not hasattr(FakeTensorRT("11.4.1", FakeCuda()).BuilderFlag, "FP16")
    config = FakeTensorRT("11.4.1", FakeCuda()).Builder(None).create_builder_config()
    with pytest.raises(AttributeError, match="int8_calibrator"):
        config.int8_calibrator = None


def test_an_engine_answers_any_shape_of_its_profiles_from_buffers_that_it_keeps(version: str) -> None:
    trt = FakeTensorRT(version, FakeCuda())
    engine = opened(trt)
    for shape in ((2, 16), (1, 1), (4, 5), (2, 16), (1, 4)):
        x = np.random.default_rng(0).normal(size=shape)  # float64: brought to the engine's kind
        assert engine.run({"x": x})["y"] == pytest.approx(2 * x, abs=1e-6)
    assert [call[1] for call in trt.calls if call[0] == "profile"] == [1, 0]
    assert trt.cuda.calls.count("allocate") == 2
    engine.close()
    assert not trt.cuda.memory


def test_a_cuda_graph_is_recorded_once_per_shape_and_again_where_a_buffer_moved(version: str) -> None:
    trt = FakeTensorRT(version, FakeCuda())
    engine = opened(trt, cuda_graph=True)
    for value, shape in ((1, (1, 4)), (2, (1, 4)), (3, (4, 16)), (4, (1, 4)), (5, (1, 3)), (6, (1, 4)), (7, (1, 3))):
        x = np.full(shape, value, np.float32)
        assert (engine.run({"x": x})["y"] == 2 * value).all()
    assert trt.cuda.calls.count("launch") == 3  # the second, the sixth and the last request


def test_shapes_outside_and_missing_inputs_are_refused_by_name(version: str) -> None:
    engine = opened(FakeTensorRT(version, FakeCuda()))
    with pytest.raises(UsageError, match=r"no profile of the engine covers x \[1, 17\]"):
        engine.run({"x": np.zeros((1, 17), np.float32)})
    with pytest.raises(UsageError, match="inputs x are missing"):
        engine.run({})
    with pytest.raises(EngineError, match="into the stream"):
        opened(FakeTensorRT(version, FakeCuda(), "enqueue")).run({"x": np.zeros((1, 1), np.float32)})


@pytest.fixture(autouse=True)
def forget_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Log as a new process does; some library raises the level of handlers that are not its own."""
    caplog.set_level(logging.WARNING)
    tensorrt_ladder.log_once.cache_clear()


def open_with(trt: FakeTensorRT, weight: float = 2, **options: bool) -> Any:
    """Open a graph on the fake."""
    return open_here(graph(weight), PROFILES, BuildOptions(**options), lambda: trt, lambda: trt.cuda)


def test_the_ladder_builds_once_then_opens_what_it_kept(version: str, caplog: pytest.LogCaptureFixture) -> None:
    x = np.ones((1, 3), np.float32)
    first = open_with(FakeTensorRT(version, FakeCuda()))
    assert first.step == "rebuild"
    assert list(first.reasons) == ["engine", "refit"]
    assert len(caplog.records) == 2
    trt = FakeTensorRT(version, FakeCuda())
    again = open_with(trt)
    assert again.step == "engine" and not again.reasons
    assert not [call for call in trt.calls if call[0] == "build"]
    assert (again.runner.run({"x": x})["y"] == 2).all()
    newer = open_with(FakeTensorRT(f"{version}.9", FakeCuda()))
    assert newer.step == "rebuild"
    assert len(caplog.records) == 2  # the same reasons, said once


def test_an_engine_without_weights_takes_those_of_another_graph(version: str) -> None:
    x = np.ones((1, 3), np.float32)
    built = open_with(FakeTensorRT(version, FakeCuda()), stripped=True)
    assert built.step == "rebuild" and (built.runner.run({"x": x})["y"] == 2).all()
    other = open_with(FakeTensorRT(version, FakeCuda()), weight=5)
    assert other.step == "refit" and (other.runner.run({"x": x})["y"] == 5).all()
    failed = open_with(FakeTensorRT(version, FakeCuda(), "refit"), weight=7)
    assert failed.step == "rebuild" and "fault 0" in failed.reasons["refit"]
    assert (failed.runner.run({"x": x})["y"] == 7).all()


def test_without_gpu_or_library_onnxruntime_answers_and_each_reason_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_library() -> Any:
        raise MissingExtraError("tensorrt is not available")

    def no_gpu() -> Any:
        raise NoGPUError("no NVIDIA driver")

    for tensorrt, cuda, reason in (
        (no_library, FakeCuda, "tensorrt is not available"),
        (lambda: FakeTensorRT("10.3.0", FakeCuda()), no_gpu, "no NVIDIA driver"),
    ):
        opened = open_here(graph(), PROFILES, None, tensorrt, cuda)
        assert opened.step == "onnxruntime-cpu"
        assert opened.reasons["rebuild"] == reason
        assert "no CUDAExecutionProvider" in opened.reasons["onnxruntime-cuda"]
        assert (opened.runner.run({"x": np.ones((2, 3), np.float32)})["y"] == 2).all()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(set(said)) == 7  # three steps twice, for two reasons, and onnxruntime's GPU
    with pytest.raises(EngineError, match="does not take the graph"):
        OnnxRuntimeRunner(b"no graph", "CPUExecutionProvider")


def test_a_kept_engine_is_named_by_all_it_depends_on_and_a_damaged_one_is_not_opened(tmp_path: Path) -> None:
    cache = EngineCache("10.3.0", 87, tmp_path, "R36")
    built = build(FakeTensorRT("10.3.0", FakeCuda()), graph(), PROFILES)
    path = cache.path(graph(), PROFILES, BuildOptions())
    others = {
        EngineCache("10.4.0", 87, tmp_path, "R36").path(graph(), PROFILES, BuildOptions()),
        EngineCache("10.3.0", 86, tmp_path, "R36").path(graph(), PROFILES, BuildOptions()),
        EngineCache("10.3.0", 87, tmp_path, "R39").path(graph(), PROFILES, BuildOptions()),
        cache.path(graph(3), PROFILES, BuildOptions()),
        cache.path(graph(), PROFILES[:1], BuildOptions()),
        cache.path(graph(), PROFILES, BuildOptions(hardware_compatible=True)),
    }
    assert len(others | {path}) == 7
    assert cache.read(path) is None
    cache.write(path, built)
    assert cache.read(path) == built.plan
    assert cache.timing_cache() == b"timed"
    path.write_bytes(built.plan[:-1])
    assert cache.read(path) is None
    assert digest(graph(2), stripped=True) == digest(graph(3), stripped=True)
    assert digest(graph(2), stripped=False) != digest(graph(3), stripped=False)


def test_profiles_leave_no_gap(version: str) -> None:
    trt = FakeTensorRT(version, FakeCuda())
    for profiles in (encoder_profiles(100), recommender_profiles(4, 8), recommender_profiles(4, 8, 2)):
        names = next(iter(profiles))
        longest = max(shapes[2][1] for one in profiles for shapes in [next(iter(one.values()))])
        for batch in (1, 2, 31, 32):
            for length in range(1, longest + 1):
                fits = [
                    one
                    for one in profiles
                    for low, _, high in [next(iter(one.values()))]
                    if low[0] <= batch <= high[0] and low[1] <= length <= high[1]
                ]
                assert fits, (names, batch, length)
    assert trt.calls == []


def test_tensorrt_8_and_a_machine_without_any_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="8.6.2"))
    with pytest.raises(UsageError, match="TensorRT is 8.6.2; expected 10.3 or later"):
        load_tensorrt()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match="extra"):
        load_tensorrt()


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgerec.runtime import cuda

    monkeypatch.setattr(cuda, "LIBRARIES", ("libnothing.so.1",))
    with pytest.raises(NoGPUError, match="no NVIDIA driver"):
        Cuda()
