"""The kit builds, runs and checks itself with bash, trtexec and numpy alone; nothing is written where it errs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

import pytest

from edgerec.benchmarks import devices
from edgerec.benchmarks.adapters import NotHere
from edgerec.benchmarks.subjects import BundleSubject
from edgerec.cli import group
from edgerec.distill import checkpoint
from edgerec.errors import MissingExtraError, ParityError, UsageError
from edgerec.export import jetson_kit
from edgerec.export.jetson_kit import write_tensorrt
from edgerec.export.kit_run import run_kit
from edgerec.export.package import draft, package
from edgerec.export.tensorrt_recommender import tensorrt_recommender
from edgerec.export.tensorrt_subject import EngineSession, TensorrtSubject, Untimed, nothing
from edgerec.runtime.cuda import NoGPUError
from edgerec.runtime.tensorrt_engine import EngineError
from tests.export.fake_tensorrt import FakeCuda, FakeTensorRT

NAMES = ["encoder.fp16", "encoder.int8-qdq", "recommender.fp16", "recommender.int8-qdq"]


def absent() -> Any:
    raise MissingExtraError("tensorrt is not available")


@pytest.fixture(scope="module")
def graphs(student: checkpoint.Checkpoint) -> dict[str, bytes]:
    """The graphs of the kit, made once: calibrating takes seconds."""
    return jetson_kit.graphs_of(draft(student))


@pytest.fixture(autouse=True, scope="module")
def made_once(graphs: dict[str, bytes]) -> Iterator[None]:
    """Hand every kit the same graphs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jetson_kit, "graphs_of", lambda prepared: graphs)
        yield


@pytest.fixture(scope="module")
def report(student: checkpoint.Checkpoint) -> dict[str, Any]:
    out = student.folder.parent / "whole"
    return {"path": out, **write_tensorrt(student, "fp32", out, absent)}


@pytest.fixture
def kit(report: dict[str, Any], tmp_path: Path) -> Path:
    """A kit of its own for each test."""
    return Path(shutil.copytree(report["path"], tmp_path / "kit"))


def call(kit: Path, version: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run build.sh with the fake trtexec of a version."""
    trtexec = kit.parent / "trtexec"
    fake = Path(__file__).with_name("fake_trtexec.py")
    trtexec.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{fake}" {version} "$@"\n')
    trtexec.chmod(0o755)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "TRTEXEC": str(trtexec), **environment}
    return subprocess.run([str(kit / "build.sh")], capture_output=True, text=True, env=variables, cwd=kit.parent)


def check(kit: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run check.py as a machine without edgerec, torch or onnxruntime does."""
    blocked = (
        "import sys; [sys.modules.__setitem__(name, None) for name in ('edgerec', 'torch', 'onnx', 'onnxruntime')]"
    )
    code = f"{blocked}; import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(kit / "check.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_kit_is_whole_and_says_that_no_engine_was_built_and_why(report: dict[str, Any]) -> None:
    assert {"README.md", "build.sh", "check.py", "kit.json", "tokenizer.json", "ids.utf8"} < set(report["files"])
    assert {f"graphs/{name}.onnx" for name in NAMES} < set(report["files"])
    assert "tensorrt is not available" in report["note"] and "build.sh" in report["note"]
    assert report["parity"]["encoder.fp16"] < 1e-4
    assert report["parity"]["recommender.fp16"] == report["parity"]["recommender.int8-qdq"] == 1
    assert "not measured" in (report["path"] / "README.md").read_text()
    assert os.access(report["path"] / "build.sh", os.X_OK)


@pytest.mark.parametrize(
    ("version", "flags", "absent"),
    [
        ("100300", "cuda_graph=0 (default)|transfers=1 (default)|--stronglyTyped", "--noCudaGraph"),
        (
            "110401",
            "cuda_graph=0 (--noCudaGraph)|spin_wait=0 (--noSpinWait)|(--includeDataTransfers)",
            "--stronglyTyped",
        ),
    ],
)
def test_build_sh_builds_runs_and_checks_every_graph(kit: Path, version: str, flags: str, absent: str) -> None:
    done = call(kit, version)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if "agrees" in line] == [f"{name}: agrees" for name in NAMES]
    record = (kit / "out" / "record.txt").read_text()
    assert f"tensorrt=v{version}" in record and absent not in record
    assert all(flag in record for flag in flags.split("|"))
    assert (kit / "out" / "encoder.fp16.times.json").exists()


def test_build_sh_takes_other_choices_and_refuses_an_old_or_absent_trtexec(kit: Path) -> None:
    script = (kit / "build.sh").read_text()
    (kit / "build.sh").write_text(script[: script.index("engine encoder.int8-qdq")])  # one engine is enough
    done = call(kit, "101600", CUDA_GRAPH="1", SPIN_WAIT="1", TRANSFERS="0")
    assert done.returncode == 0, done.stderr
    record = (kit / "out" / "record.txt").read_text()
    assert "cuda_graph=1 (--useCudaGraph)" in record and "transfers=0 (--noDataTransfers)" in record
    old = call(kit, "8602")
    assert old.returncode == 2 and "TensorRT v8602; expected v100300" in old.stderr
    none = call(kit, "100300", TRTEXEC="/nowhere/trtexec")
    assert none.returncode == 2 and "no trtexec at /nowhere/trtexec" in none.stderr


def swap_first_two(array: Any) -> None:
    array[:, [0, 1]] = array[:, [1, 0]]


def nothing_but_nan(array: Any) -> None:
    array[...] = np.nan


def turn(array: Any) -> None:
    array[...] = array[::-1].copy()


@pytest.mark.parametrize(
    ("name", "output", "harm", "message"),
    [
        ("recommender.fp16", "items", swap_first_two, "request 0: place 1 has row"),
        ("recommender.int8-qdq", "scores", nothing_but_nan, "with score nan"),
        ("encoder.fp16", "text_vector", nothing_but_nan, "cosine distance nan"),
        ("encoder.int8-qdq", "text_vector", turn, "cosine distance"),
    ],
)
def test_check_py_tells_a_wrong_answer_by_engine(
    kit: Path, name: str, output: str, harm: Callable[[Any], None], message: str
) -> None:
    described = json.loads((kit / "kit.json").read_text())["graphs"]
    for one, graph in described.items():
        for kind in graph["outputs"]:
            (kit / "raw" / one).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(kit / "goldens" / graph["kind"] / f"{kind}.bin", kit / "raw" / one / f"{kind}.bin")
    done = check(kit, "--answers", str(kit / "raw"))
    assert done.returncode == 0, done.stderr
    path, kind = kit / "raw" / name / f"{output}.bin", described[name]["outputs"][output]
    array = np.fromfile(path, kind["dtype"]).reshape(kind["shape"])
    harm(array)
    array.tofile(path)
    done = check(kit, "--answers", str(kit / "raw"))
    assert done.returncode == 1
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert message in lines[name]
    assert [one for one, said in lines.items() if said != "agrees"] == [name]


def test_check_py_reads_what_c_plus_plus_calls_a_number_and_misses_nothing(kit: Path) -> None:
    (kit / "out").mkdir()
    values = ["nan", "-nan", "inf", "-inf"]
    text = json.dumps([{"name": "text_vector", "dimensions": "1", "values": []}]).replace(
        "[]", f"[{', '.join(values)}]"
    )
    described = {"graphs": {"encoder.fp16": {"outputs": {"text_vector": {"dtype": "float32", "shape": [4]}}}}}
    (kit / "out" / "encoder.fp16.json").write_text(text)
    from edgerec.export.kit_check import read_answers

    got = read_answers(kit / "out", "encoder.fp16", described)["text_vector"]
    assert np.isnan(got[:2]).all() and got[2:].tolist() == [np.inf, -np.inf]
    done = check(kit)
    assert done.returncode == 1 and "no answers" in done.stdout


@pytest.mark.parametrize("version", ["10.3.0", "11.4.1"])
def test_where_tensorrt_is_engines_are_built_and_checked(
    student: checkpoint.Checkpoint, tmp_path: Path, version: str
) -> None:
    device = FakeCuda()
    trt = FakeTensorRT(version, device)
    report = write_tensorrt(student, "fp32", tmp_path / "kit", lambda: trt, lambda: device)
    assert f"TensorRT {version} for SM 87" in report["note"]
    record = json.loads((tmp_path / "kit" / "engines" / "recommender.fp16.json").read_text())
    assert record["read_back"]["profiles"] == len(record["profiles"]) == 4
    assert {f"engines/{name}.plan" for name in NAMES} < set(report["files"])
    assert not device.memory  # given back


@pytest.mark.parametrize("version", ["10.3.0", "11.4.1"])
def test_a_kit_is_run_by_the_best_way_here(kit: Path, version: str) -> None:
    device = FakeCuda()
    trt = FakeTensorRT(version, device)
    first, again = (run_kit(kit, None, lambda: trt, lambda: device) for _ in range(2))
    assert {name: row["step"] for name, row in first.items()} == dict.fromkeys(NAMES, "rebuild")
    assert {name: row["step"] for name, row in again.items()} == dict.fromkeys(NAMES, "engine")
    assert not any(row["faults"] for row in [*first.values(), *again.values()])


def test_a_kit_without_a_gpu_runs_on_the_cpu_and_a_wrong_graph_is_named(kit: Path) -> None:
    def invoke(*options: str) -> Any:
        return CliRunner().invoke(group, ["run-kit", str(kit), *options])

    done = invoke("--json")
    found = json.loads(done.stdout.splitlines()[-1])["graphs"]
    assert done.exit_code == 0 and {row["step"] for row in found.values()} == {"onnxruntime-cpu"}
    assert "tensorrt" in found[NAMES[0]]["reasons"]["engine"]
    shutil.copy(kit / "graphs" / "recommender.fp16.onnx", kit / "graphs" / "recommender.int8-qdq.onnx")
    entry = kit / "goldens" / "recommender" / "items.bin"
    entry.write_bytes(np.fromfile(entry, np.int64)[::-1].tobytes())
    failed = invoke()
    assert "recommender.fp16: onnxruntime-cpu, request 0" in failed.stdout and "encoder.fp16" in failed.stdout
    assert isinstance(failed.exception, ParityError)
    (kit / "kit.json").write_text("{}")
    assert "holds no usable kit.json" in str(invoke().exception)


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
    for name in NAMES:
        for kind in devices.TENSORRT_GRAPHS[name]:
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


def test_an_error_anywhere_leaves_nothing(
    student: checkpoint.Checkpoint, graphs: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_gpu() -> Any:
        raise NoGPUError("no NVIDIA driver")

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").write_text("keep")
    with pytest.raises(UsageError, match="exists already"):
        write_tensorrt(student, "fp32", tmp_path / "mine", absent)
    tower = draft(student).rounded
    other = tensorrt_recommender(replace(tower, mix=-tower.mix), "fp16")
    monkeypatch.setattr(jetson_kit, "graphs_of", lambda prepared: {**graphs, "recommender.fp16": other})
    with pytest.raises(ParityError, match="first: recommender.fp16: request"):
        write_tensorrt(student, "fp32", tmp_path / "kit", absent, no_gpu)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
