"""The kit builds, runs and checks itself with bash, trtexec and numpy alone; nothing is written where it errs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

import pytest

from edgerec.cli import group
from edgerec.distill import checkpoint
from edgerec.errors import ParityError, UsageError
from edgerec.export import jetson_kit
from edgerec.export.jetson_kit import write_tensorrt
from edgerec.export.kit_run import run_kit
from edgerec.export.package import draft
from edgerec.export.tensorrt_recommender import tensorrt_recommender
from edgerec.runtime.cuda import NoGPUError
from tests.export.fake_tensorrt import FakeCuda, FakeTensorRT, absent

NAMES = ["encoder.fp16", "encoder.int8-qdq", "recommender.fp16", "recommender.int8-qdq"]


pytestmark = pytest.mark.usefixtures("made_once")


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
