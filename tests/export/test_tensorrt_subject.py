"""A kit's graphs as subjects of the benchmark: TensorRT 10 and 11, faked, answer as the bundle does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import pytest

from edgerec.benchmarks import devices
from edgerec.benchmarks.adapters import NotHere
from edgerec.benchmarks.subjects import BundleSubject
from edgerec.distill import checkpoint
from edgerec.errors import UsageError
from edgerec.export.kit_run import run_kit
from edgerec.export.package import package
from edgerec.export.tensorrt_subject import EngineSession, TensorrtSubject, Untimed, nothing
from edgerec.runtime.tensorrt_engine import EngineError
from tests.export.fake_tensorrt import FakeCuda, FakeTensorRT, absent


@pytest.fixture(scope="module")
def bundle(student: checkpoint.Checkpoint) -> Path:
    """The student's file."""
    package(student, "fp32", student.folder.parent / "student.edgerec")
    return student.folder.parent / "student.edgerec"


HISTORIES = [["i1"], ["i3", "i1", "i3"], [f"i{row % 12}" for row in range(40)]]


@pytest.mark.parametrize("version", ["10.3.0", "11.4.1"])
@pytest.mark.parametrize("cuda_graph", [False, True], ids=["no graph", "cuda graph"])
def test_every_graph_of_a_kit_answers_the_benchmark_as_the_bundle_does(
    kit: Path, bundle: Path, version: str, cuda_graph: bool
) -> None:
    device = FakeCuda()
    trt = FakeTensorRT(version, device)
    run_kit(kit, None, lambda: trt, lambda: device)
    for name, kinds in devices.TENSORRT_GRAPHS.items():
        for kind in kinds:
            options = (kind, str(bundle), str(kit / "graphs" / f"{name}.onnx"), cuda_graph, not cuda_graph)
            engine = TensorrtSubject(*options, tensorrt=lambda: trt, cuda=lambda: device)
            portable = BundleSubject(kind, str(bundle))
            asked: list[Any] = HISTORIES if kind in ("recommend", "session") else ["Title red 3", "blue 4 Title blue"]
            for subject in (engine, portable):
                subject.prepare()
                subject.observe(HISTORIES if kind == "session" else [])
            launched = device.calls.count("launch")
            for request in asked * 2:
                got, wanted = engine.run_one(request), portable.run_one(request)
                if kind == "encode":
                    assert got @ wanted > (0.9999 if name == "encoder.fp16" else 0.98)
                elif kind == "search":
                    assert len({*got} & {*wanted}) >= 8
                else:
                    assert got == wanted
            assert (device.calls.count("launch") > launched) == cuda_graph


def test_an_engine_is_not_built_by_the_benchmark_and_belongs_to_the_bundle(kit: Path, bundle: Path) -> None:
    graph, device = str(kit / "graphs" / "encoder.fp16.onnx"), FakeCuda()
    trt = FakeTensorRT("10.3.0", device)
    given = {"cuda_graph": False, "transfers": True, "tensorrt": lambda: trt, "cuda": lambda: device}
    with pytest.raises(NotHere, match=r"no engine of this graph is kept .* edgerec run-kit"):
        TensorrtSubject("encode", str(bundle), graph, **given).prepare()
    with pytest.raises(NotHere, match="tensorrt is not available"):
        TensorrtSubject("encode", str(bundle), graph, **given | {"tensorrt": absent}).prepare()
    run_kit(kit, None, lambda: trt, lambda: device)
    trt.broken = "open"
    with pytest.raises(EngineError, match="cannot open an engine"):  # that is a failure, and no lack
        TensorrtSubject("encode", str(bundle), graph, **given).prepare()
    described = json.loads((kit / "kit.json").read_text())
    (kit / "kit.json").write_text(json.dumps({**described, "item_table": "of another teacher"}))
    with pytest.raises(UsageError, match="not of one model"):
        TensorrtSubject("encode", str(bundle), graph, **given).prepare()
    (kit / "kit.json").write_text(json.dumps(described))
    turned = kit / "goldens" / "encoder" / "text_vector.bin"  # the same teacher's items, another student's texts
    turned.write_bytes(np.fromfile(turned, np.float32)[::-1].tobytes())
    with pytest.raises(UsageError, match="not of one model"):
        TensorrtSubject("encode", str(bundle), graph, **given).prepare()


@pytest.mark.parametrize("repeats", [[], [0.5, 0.9]], ids=["seen masked", "repeats"])
def test_with_a_cuda_graph_no_request_is_the_first_of_its_shape(repeats: list[float]) -> None:
    class Runner:
        def __init__(self) -> None:
            self.shapes: list[dict[str, tuple[int, ...]]] = []

        def run(self, feeds: Any, outputs: Any = ()) -> Any:
            self.shapes.append({name: array.shape for name, array in feeds.items()})
            return {"items": np.zeros((1, 10)), "scores": np.zeros((1, 10))}

    runner, model = Runner(), {"decays": [0.5], "embedding_size": 4, "repeat_decays": repeats}
    session = EngineSession(runner, nothing(model))
    session.record(1024)
    recorded = runner.shapes[:]
    assert [shape["exclude"][1] for shape in recorded] == [1024, 512, 256, 128, 64, 32, 16]
    for length in (0, 1, 16, 17, 700, 1024):
        feed: dict[str, Any] = {"history": np.zeros((1, 1), np.int64), "k": np.array([10])}
        if repeats:
            feed["repeat_rows"] = np.ones((1, length), np.int64)
            feed["repeat_memory"] = np.ones((1, 2, length), np.float32)
        elif length:
            feed["exclude"] = np.ones((1, length), np.int64)
        session.run(["items"], feed)
        assert runner.shapes[-1] in recorded


def test_an_engine_takes_plain_requests_for_what_it_was_built_for() -> None:
    class Runner:
        def run(self, feeds: Any, outputs: Any) -> Any:
            self.feeds = feeds
            return {"items": np.arange(10)[None], "scores": np.zeros((1, 10))}

    runner, state = Runner(), np.zeros((1, 2, 3), np.float32)
    session = EngineSession(runner, {"exclude": np.zeros((1, 1), np.int64)})
    feed = {"history": np.ones((1, 1), np.int64), "state": state, "k": np.array([4])}
    assert session.run(["items"], feed)[0].tolist() == [[0, 1, 2, 3]]
    assert {name: array.shape for name, array in runner.feeds.items()} == {
        "exclude": (1, 1), "history": (1, 1), "state": (1, 2, 3)
    }  # fmt: skip
    with pytest.raises(UsageError, match="11 items; expected at most 10"):
        session.run(["items"], feed | {"k": np.array([11])})
    with pytest.raises(UsageError, match="score_offset"):
        session.run(["items"], feed | {"score_offset": np.zeros((1, 5))})


def test_a_clock_can_stand_still_during_transfers() -> None:
    now, log = [0], []

    class Device:
        stream = 7

        def wait(self) -> None:
            log.append("wait")
            now[0] += 100  # what was queued before

        def to_device(self, address: int, array: Any) -> None:
            log.append("copy")
            now[0] += 1

        def to_host(self, array: Any, address: int) -> None:
            self.to_device(address, array)

    device = Untimed(Device(), lambda: now[0])
    for _ in range(2):
        device.to_device(1, np.zeros(1))
    for _ in range(2):
        device.to_host(np.zeros(1), 1)
    assert device.stream == 7 and log == [*["copy", "wait"] * 2, "wait", *["copy", "wait"] * 2]
    assert now[0] == 504 and device.clock() == 100  # the one wait that is for the engine


def test_a_kit_is_measured_graph_by_graph_and_way_by_way_or_says_why_not(
    kit: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ("recommend", "encode")

    def reason(found: Path | None) -> str | None:
        [one] = devices.targets(["tensorrt"], [bundle], [], kinds, [1], [found] if found else [])[1:]
        return one.missing

    assert reason(kit) == "tensorrt is not installed"
    monkeypatch.setattr(devices, "find_spec", lambda package: package)
    assert "no NVIDIA driver" in str(reason(kit))
    monkeypatch.setattr(devices, "open_driver", lambda: None)
    assert "no --kit" in str(reason(None))
    found = devices.targets(["tensorrt"], [bundle], [], kinds, [1], [kit])[1:]
    assert len({one.name for one in found}) == len(found) == 4 * 2 * 2
    assert found[0].name == "student, tensorrt, recommender.fp16, no CUDA graph"
    assert found[-1].name == "student, tensorrt, encoder.int8-qdq, CUDA graph, transfers not counted"
    assert found[0].kinds == ("recommend",) and found[-1].kinds == ("encode",)
    assert all(one.file and one.file.exists() for one in found)
    with pytest.raises(UsageError, match="got 2 kits and 1 bundles"):
        devices.targets(["tensorrt"], [bundle], [], kinds, [1], [kit, kit])
    (kit / "graphs" / "encoder.fp16.onnx").unlink()
    with pytest.raises(UsageError, match=r"encoder\.fp16\.onnx is not there"):
        devices.targets(["tensorrt"], [bundle], [], kinds, [1], [kit])
