"""A model folder run by torch answers as its file does: a student's, and a teacher's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

import pytest

from edgerec.benchmarks.subjects import BundleSubject
from edgerec.data import load
from edgerec.distill import checkpoint
from edgerec.distill.compress import distill_checkpoint
from edgerec.distill.options import TrainOptions
from edgerec.export.package import package
from edgerec.export.torch_subject import TorchSubject
from edgerec.splits import split

HISTORIES = [["i1"], ["i3", "i4", "i5"], [f"i{row % 12}" for row in range(9)]]


def test_the_import_of_torch_is_a_stage_of_the_cold_start() -> None:
    code = "import sys, edgerec.export.torch_subject; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    stages = TorchSubject("recommend", "nowhere", 1, "eager", "cpu").stages()
    assert [name for name, _ in stages] == ["import", "open"]


@pytest.fixture(scope="module")
def static(student: checkpoint.Checkpoint) -> None:
    """A student without layers, beside the other."""
    home = student.folder.parent
    data, teacher = load(str(home)), checkpoint.load(home / "teacher")
    distill_checkpoint(teacher, data, split(data), "static", TrainOptions(steps=5), home / "static")


@pytest.mark.parametrize("name", ["student", "teacher", "static"])
@pytest.mark.usefixtures("static")
def test_torch_and_the_file_answer_alike(student: checkpoint.Checkpoint, tmp_path: Path, name: str) -> None:
    folder, file = student.folder.parent / name, tmp_path / "model.edgerec"
    package(checkpoint.load(folder), "fp32", file)
    for kind, requests in (("recommend", HISTORIES), ("encode", ["Title red 3"]), ("search", ["Title blue 4"])):
        ours, shipped = TorchSubject(kind, str(folder), 1, "eager", "cpu"), BundleSubject(kind, str(file))
        for subject in (ours, shipped):
            subject.prepare()
        for request in requests:
            got, wanted = ours.run_one(request), shipped.run_one(request)
            if kind == "encode":
                assert np.dot(got, wanted) == pytest.approx(1, abs=1e-5)
            else:
                assert got[:3] == wanted[:3]
