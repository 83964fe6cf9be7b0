"""However a step is parted, it is the same step; schedules, precisions and reports are what the flag says."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import TrainerCallback

import pytest

from edgerec.cli import group
from edgerec.data import load
from edgerec.distill import training
from edgerec.distill.histories import Augmentation
from edgerec.distill.options import TrainOptions
from edgerec.distill.towers import TowerConfig, Towers
from edgerec.distill.training import Windows, fit
from edgerec.errors import MissingExtraError, UsageError
from edgerec.interactions import Ragged, Split
from edgerec.splits import split

EXACT = TowerConfig(8, history_dropout=0.0, residual_dropout=0.0)
STEP = TrainOptions(steps=12, batch_size=8, window=3, learning_rate=0.02, evaluate_every=6, keep_best=False)


class Rates(TrainerCallback):
    """Keeps the learning rates that Trainer used."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])


class Stop(TrainerCallback):
    """Ends training after a step, as if the machine had gone."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == self.step


@pytest.fixture
def uneven(folder: Any) -> Path:
    """A ring of which 40 users saw very different numbers of steps, so that means of means go wrong."""
    items = [f"i{n},Title red {n}" for n in range(12)]
    log = [f"u{u},i{(u + t) % 12},{1_600_000_000 + 60 * t}" for u in range(40) for t in range(4 + u * u % 9)]
    return folder("user_id,item_id,timestamp\n" + "\n".join(log), "item_id,title\n" + "\n".join(items))


def towers(divided: Split, config: TowerConfig = EXACT) -> Towers:
    """Return untrained towers over random vectors, the same each time."""
    rows = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32)
    torch.manual_seed(0)
    return Towers(rows / np.linalg.norm(rows, axis=1, keepdims=True), divided.warm, config)


def trained(divided: Split, options: TrainOptions, out: Path, *callbacks: Any, **more: Any) -> Towers:
    """Train towers."""
    made = towers(divided, more.pop("config", EXACT))
    groups = made.parameter_groups(options.learning_rate, options.weight_decay)
    fit(made, groups, divided, options, out, "test", callbacks=callbacks, **more)
    return made


def assert_same(one: Towers, other: Towers, atol: float) -> None:
    """Compare all numbers of two towers."""
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, atol=atol, rtol=0, msg=name)


def test_accumulated_batches_are_one_large_batch(uneven: Path, tmp_path: Path) -> None:
    divided = split(load(str(uneven)))
    whole = trained(divided, STEP, tmp_path / "whole")
    parted = trained(divided, replace(STEP, batch_size=2, accumulate=4), tmp_path / "parted")
    assert not torch.equal(whole.residual_in, towers(divided).residual_in)
    assert_same(whole, parted, 1e-5)
    halved = replace(STEP, batch_size=2, accumulate=2)
    assert not torch.allclose(whole.bias, trained(divided, halved, tmp_path / "halved").bias, atol=1e-3)


def test_a_run_that_was_cut_off_ends_where_it_would_have(uneven: Path, tmp_path: Path) -> None:
    divided = split(load(str(uneven)))
    dropping = TowerConfig(8)  # dropout on: the state of the random numbers is part of the checkpoint
    whole = trained(divided, STEP, tmp_path / "whole", config=dropping)
    cut = trained(divided, STEP, tmp_path / "cut", Stop(6), config=dropping)
    assert not torch.allclose(whole.bias, cut.bias, atol=1e-4)
    assert_same(whole, trained(divided, STEP, tmp_path / "cut", config=dropping, resume=True), 1e-6)


def test_two_processes_compute_what_one_does(uneven: Path, small_bert: Path, tmp_path: Path) -> None:
    options = ["fine-tune", uneven, "--encoder", small_bert, "--tie", "shared", "--top-layers", 0, "--window", 3]
    options += ["--steps", 40, "--learning-rate", 0.02, "--history-dropout", 0, "--residual-dropout", 0]
    options += ["--embedding-size", 8, "--report-to", "none", "--json"]
    one, two = tmp_path / "one", tmp_path / "two"
    CliRunner().invoke(group, list(map(str, [*options, "--out", one, "--batch-size", 8])), catch_exceptions=False)
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", 2, "--num_machines", 1]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", 0, "-m", "edgerec"]
    command = [sys.executable, *launch, *options, "--out", two, "--batch-size", 4]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.startswith("{")]) == 1  # one process speaks
    losses = []
    for out in (one, two):
        state = json.loads((out / "stage-1-shared/checkpoints/checkpoint-40/trainer_state.json").read_text())
        losses.append([entry["loss"] for entry in state["log_history"] if "loss" in entry])
    assert len(losses[0]) == 2
    np.testing.assert_allclose(losses[0], losses[1], atol=1.01e-4)  # Trainer logs four places
    first, second = (load_file(out / "towers.safetensors") for out in (one, two))
    assert first["residual_in"].abs().max() > 0.01
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=1e-4, rtol=0, msg=name)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0, 0.5, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0, 0.5, 1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4]),
        ("constant", [0, 0.5, 1, 1, 1, 1]),
    ],
)
def test_a_schedule_rises_and_then_does_what_its_name_says(
    schedule: str, expected: list[float], cycle: Path, tmp_path: Path
) -> None:
    seen = Rates()
    options = TrainOptions(steps=6, warmup=2, schedule=schedule, learning_rate=0.1, batch_size=40)
    trained(split(load(str(cycle))), options, tmp_path / "run", seen)
    np.testing.assert_allclose(seen.rates, 0.1 * np.array(expected), atol=1e-9)


@pytest.mark.parametrize(
    ("judged", "steps", "kept"),
    [
        ([0.5, 0.497, 0.3, 0.3, 0.9], 4, 0.497),  # two worse ones end it; the second was as good as the first
        ([0.5, 0.2, 0.6, 0.597, 0.595], 5, 0.595),
        ([0.2, 0.6, 0.3, 0.5, 0.6], 4, 0.6),
    ],
)
def test_patience_ends_a_run_that_gets_worse_and_the_latest_good_step_is_kept(
    cycle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judged: list[float], steps: int, kept: float
) -> None:
    seen, answers = Rates(), iter([0.0, *judged])  # the first is that of the model as given
    monkeypatch.setattr(training, "judge", lambda model, divided: next(answers))
    options = TrainOptions(steps=5, evaluate_every=1, patience=2, batch_size=40)
    divided = split(load(str(cycle)))
    made = towers(divided)
    got = fit(made, made.parameter_groups(1e-3, 0), divided, options, tmp_path / "run", "x", callbacks=[seen])
    assert (len(seen.rates), got) == (steps, kept)


def test_bf16_learns_the_ring_with_weights_that_stay_float32(cycle: Path, tmp_path: Path) -> None:
    divided = split(load(str(cycle)))
    options = TrainOptions(steps=60, batch_size=16, learning_rate=0.05, evaluate_every=20, mixed_precision="bf16")
    made = trained(divided, options, tmp_path / "half", config=TowerConfig(16, shared=False))
    assert made.residual_in.dtype == torch.float32
    assert training.judge(made, divided) > 0.9
    exact = trained(divided, STEP, tmp_path / "exact")
    half = trained(divided, replace(STEP, mixed_precision="bf16"), tmp_path / "rough")
    assert not torch.equal(exact.bias, half.bias)
    assert_same(exact, trained(divided, STEP, tmp_path / "again"), 0)  # a half run leaves nothing behind


def test_reports_lie_in_the_folder_or_nowhere(cycle: Path, tmp_path: Path) -> None:
    divided = split(load(str(cycle)))
    for report_to in ((), ("tensorboard",)):
        options = TrainOptions(steps=1, report_to=report_to)
        trained(divided, options, tmp_path / f"run{len(report_to)}")
    assert not list((tmp_path / "run0").rglob("events.*"))
    assert list((tmp_path / "run1").rglob("events.*"))


def test_what_the_machine_cannot_do_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="fp16 needs a CUDA device"):
        training.require_support(TrainOptions(mixed_precision="fp16"))
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install wandb"):
        training.require_support(TrainOptions(report_to=("wandb",)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"steps": 0, "accumulate": 0}, "steps 0, accumulate 0; expected at least 1"),
        ({"learning_rate": -1.0}, "no negative number"),
        ({"schedule": "square"}, "unknown schedule square; expected one of linear, cosine, constant"),
        ({"mixed_precision": "int8"}, "expected one of no, bf16, fp16"),
        ({"report_to": ("paper",)}, "expected one of tensorboard, wandb"),
    ],
)
def test_options_that_cannot_work_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TrainOptions(**wrong)


def test_masking_drops_events_and_reordering_keeps_them() -> None:
    events, steps = np.arange(1000, dtype=np.int32), np.arange(1000, dtype=np.int32) // 2
    rng = np.random.default_rng(0)
    kept, kept_steps = Augmentation(mask=0.2)(events, steps, rng)
    assert 750 < len(kept) < 850
    np.testing.assert_array_equal(kept // 2, kept_steps)
    assert (np.diff(kept) > 0).all()
    mixed, mixed_steps = Augmentation(reorder=0.1)(events, steps, rng)
    moved = np.flatnonzero(mixed != events)
    assert len(moved) > 80 and moved[-1] - moved[0] < 100
    np.testing.assert_array_equal(np.sort(mixed), events)
    np.testing.assert_array_equal(mixed_steps, steps)
    for values in zip(Augmentation()(events, steps, rng), (events, steps), strict=True):
        np.testing.assert_array_equal(*values)
    assert len(Augmentation(mask=0.999)(events[:2], steps[:2], rng)[0]) == 2


def test_windows_depend_on_seed_epoch_and_user_alone() -> None:
    histories, augment = Ragged.from_lists([range(200), range(200)]), Augmentation(0.1, 0.2)
    windows = Windows(histories, np.tile(np.arange(200), 2), 10, augment, seed=3)
    other = copy.copy(windows)
    both, alone = windows([0, 1]), other([1])
    length = alone["history"].shape[1]
    assert torch.equal(both["history"][1, :length], alone["history"][0])
    assert not torch.equal(both["history"][0], both["history"][1])
    other.epoch = 1
    assert not torch.equal(other([1])["history"], alone["history"])


def test_augmentation_is_read_from_one_option() -> None:
    assert Augmentation.parse("mask=0.1, reorder=0.2") == Augmentation(0.1, 0.2)
    assert Augmentation.parse("reorder=1") == Augmentation(0.0, 1.0)
    for wrong in ("crop=0.1", "mask", "mask=few", ""):
        with pytest.raises(UsageError, match="expected such as mask=0.1,reorder=0.1"):
            Augmentation.parse(wrong)
    with pytest.raises(UsageError, match="a mask below 1"):
        Augmentation.parse("mask=1")


def test_a_batch_has_more_users_where_histories_are_short(cycle: Path) -> None:
    divided = split(load(str(cycle)))
    lengths = {1: 64, 20: 40, 400: 16, 0: 16}  # events each -> users: 800 events, within 16 and 64
    for length, users in lengths.items():
        histories = Ragged.from_lists([range(max(length, 2)) if length else [], []])
        assert training.users_per_batch(replace(divided, train=histories), window=200) == users


def test_the_last_step_is_judged_where_evaluations_do_not_meet_it(cycle: Path, tmp_path: Path) -> None:
    divided = split(load(str(cycle)))
    options = replace(STEP, steps=5, evaluate_every=3)
    made = towers(divided)
    got = fit(made, made.parameter_groups(0.05, 0), divided, options, tmp_path / "run", "x")
    assert got == training.judge(made, divided)
