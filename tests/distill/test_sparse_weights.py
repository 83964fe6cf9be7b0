"""Planted weights survive, the others are zero after every step, and a run is what its seed makes it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import pytest

from edgerec.data import load as load_data
from edgerec.distill import checkpoint, student
from edgerec.distill.options import TrainOptions
from edgerec.distill.quantization_aware import quantization_aware
from edgerec.distill.sparse_weights import linear_weights, masks_of, sparsify, two_of_four
from edgerec.errors import UsageError
from edgerec.splits import split

QUICK = TrainOptions(steps=4, batch_size=8, evaluate_every=2, keep_best=False, report_to=())
WEIGHTS = Path(checkpoint.ENCODER) / "model.safetensors"


def opened(models: tuple[Path, Path], source: Path) -> dict[str, Any]:
    """Return what a recovery starts from."""
    teacher, trained = (checkpoint.load(one) for one in models)
    data = load_data(str(source))
    return {"trained": trained, "teacher": teacher, "data": data, "split": split(data), "options": QUICK}


def test_the_larger_two_of_each_four_inputs_stay() -> None:
    weight = torch.tensor([[5.0, 1.0, -4.0, 0.5, 0.0, 0.0, 0.0, 0.0], [0.1, -0.2, 0.3, -0.4, 9.0, 8.0, 7.0, 6.0]])
    expected = [[1, 0, 1, 0, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 0, 0]]  # of equal ones, the first
    assert two_of_four(weight, "head.weight").int().tolist() == expected
    with pytest.raises(UsageError, match=r"head\.weight has 6 inputs"):
        two_of_four(torch.ones(2, 6), "head.weight")


def test_magnitude_takes_the_smallest_weights_of_each_layer(untrained: tuple[Path, Path]) -> None:
    encoder, _ = student.load(untrained[1] / checkpoint.ENCODER)
    masks, weights = masks_of(encoder, "magnitude", 0.75), linear_weights(encoder)
    assert set(masks) == set(weights) and "head.weight" in masks
    for name, mask in masks.items():
        size = weights[name].abs()
        assert mask.float().mean() == pytest.approx(0.25, abs=1 / mask.numel())
        assert size[mask].min() > size[~mask].max()


@pytest.mark.parametrize(("pattern", "ratio"), [("magnitude", 0.0), ("magnitude", 1.0), ("2:4", 0.6), ("1:4", 0.5)])
def test_a_pattern_that_cannot_be_is_refused(untrained: tuple[Path, Path], pattern: str, ratio: float) -> None:
    encoder, _ = student.load(untrained[1] / checkpoint.ENCODER)
    with pytest.raises(UsageError, match="expected magnitude with one between 0 and 1, or 2:4 with 0.5"):
        masks_of(encoder, pattern, ratio)


@pytest.mark.parametrize("pattern", ["2:4", "magnitude"])
def test_zeros_stay_zero_while_the_others_learn(
    untrained: tuple[Path, Path], cycle: Path, tmp_path: Path, pattern: str
) -> None:
    given, out = opened(untrained, cycle), tmp_path / "sparse"
    before, _ = student.load(untrained[1] / checkpoint.ENCODER)
    report = sparsify(**given, pattern=pattern, ratio=0.5, out=out)
    masks = masks_of(before, pattern, 0.5)
    after, _ = student.load(out / checkpoint.ENCODER)
    for name, weight in linear_weights(after).items():
        assert torch.equal(weight != 0, masks[name])
        assert not torch.equal(weight, linear_weights(before)[name] * masks[name])
    info = json.loads((out / "model.json").read_text("utf-8"))
    assert info["sparsity"] == report["sparsity"]
    assert info["sparsity"]["zeros"] == pytest.approx(0.5, abs=0.02)


def test_a_run_is_what_its_seed_makes_it_cut_off_or_not(
    untrained: tuple[Path, Path], cycle: Path, tmp_path: Path
) -> None:
    given = opened(untrained, cycle)
    runs = {name: tmp_path / name for name in ("whole", "resumed", "other")}
    sparsify(**given, pattern="2:4", ratio=0.5, out=runs["whole"])
    shutil.copytree(runs["whole"] / "checkpoints" / "checkpoint-2", runs["resumed"] / "checkpoints" / "checkpoint-2")
    sparsify(**given, pattern="2:4", ratio=0.5, out=runs["resumed"], resume=True)
    sparsify(**{**given, "options": replace(QUICK, seed=1)}, pattern="2:4", ratio=0.5, out=runs["other"])
    found = {name: (folder / WEIGHTS).read_bytes() for name, folder in runs.items()}
    assert found["whole"] == found["resumed"] != found["other"]


def test_training_for_int8_moves_weights_keeps_scales_and_a_sparse_students_zeros(
    untrained: tuple[Path, Path], cycle: Path, tmp_path: Path
) -> None:
    given = opened(untrained, cycle)
    sparsify(**given, pattern="2:4", ratio=0.5, out=tmp_path / "sparse")
    given["trained"] = checkpoint.load(tmp_path / "sparse")
    for name in ("qat", "again"):
        quantization_aware(**given, out=tmp_path / name)
    folders = [tmp_path / name / checkpoint.ENCODER for name in ("sparse", "qat", "again")]
    sparse, trained = (linear_weights(student.load(folder)[0]) for folder in folders[:2])
    for name, weight in sparse.items():
        assert torch.equal(weight != 0, trained[name] != 0)
        assert not torch.equal(weight, trained[name])
    for name in ("model.safetensors", student.QUANTIZERS):
        assert (folders[1] / name).read_bytes() == (folders[2] / name).read_bytes()
    given["trained"] = checkpoint.load(tmp_path / "qat")
    with pytest.raises(UsageError, match="trained for INT8 already"):
        quantization_aware(**given, out=tmp_path / "more")
    with pytest.raises(UsageError, match="sparsify, then qat"):
        sparsify(**given, pattern="2:4", ratio=0.5, out=tmp_path / "more")


def test_who_is_no_student_and_who_is_no_teacher_is_told(
    untrained: tuple[Path, Path], cycle: Path, tmp_path: Path
) -> None:
    given = opened(untrained, cycle)
    with pytest.raises(UsageError, match="is a teacher; expected a folder that distill wrote"):
        quantization_aware(**{**given, "trained": given["teacher"]}, out=tmp_path / "x")
    with pytest.raises(UsageError, match="is a student; expected the teacher of"):
        quantization_aware(**{**given, "teacher": given["trained"]}, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()
