"""From a student to a sparse one, to one for INT8, and to files: every command in a row, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

import pytest

from edgerec.bundle import Bundle
from edgerec.cli import group
from edgerec.errors import ParityError, UsageError


def run(*arguments: object) -> Result:
    """Run a command and raise what it raises."""
    return CliRunner().invoke(group, [str(one) for one in arguments], catch_exceptions=False)


def test_a_student_becomes_sparse_then_int8_and_ships_as_what_it_is(
    untrained: tuple[Path, Path], cycle: Path, tmp_path: Path
) -> None:
    teacher, small = untrained
    sparse, fake = tmp_path / "sparse", tmp_path / "qat"
    common = ("--data", cycle, "--teacher", teacher, "--steps", 3, "--batch-size", 8, "--report-to", "none", "--json")
    told = json.loads(run("sparsify", small, *common, "--out", sparse).stdout.splitlines()[-1])
    assert "dense kernels: " in told["on this machine"] and "(zip)" in told["on this machine"]
    assert json.loads(run("qat", sparse, *common, "--out", fake).stdout.splitlines()[-1])["quantization"]
    for folder, precision in ((sparse, "fp32"), (sparse, "int8-dynamic"), (fake, "qat")):
        path = tmp_path / f"{precision}.edgerec"
        run("export", folder, "--precision", precision, "--out", path)
        claimed = Bundle(path).manifest["sparsity"]
        assert claimed["pattern"] == "2:4" and len(claimed["layers"]) == claimed["weights"] == 7
        assert all(one["two_of_four"] and one["zeros"] >= 0.5 for one in claimed["layers"])
    for folder, precision, told in ((fake, "fp32", "expected qat"), (sparse, "qat", "without quantizers")):
        with pytest.raises(UsageError, match=told):
            run("export", folder, "--precision", precision, "--out", tmp_path / "x.edgerec")
    weights = load_file(sparse / "encoder" / "head.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, sparse / "encoder" / "head.safetensors")
    with pytest.raises(ParityError, match=r"without the pattern: /encoder/head/Gemm"):
        run("export", sparse, "--precision", "fp32", "--out", tmp_path / "x.edgerec")
    assert not (tmp_path / "x.edgerec").exists()
