"""``edgerec prune`` makes a student that exports, recovers, resumes, repeats itself, and can be pruned again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from click.testing import CliRunner

import pytest

from edgerec.cli import group
from edgerec.data import load as load_data
from edgerec.distill import checkpoint, importance, prune
from edgerec.distill.compress import distill_checkpoint
from edgerec.distill.options import TrainOptions
from edgerec.distill.teacher import TeacherOptions, fine_tune
from edgerec.distill.towers import TowerConfig
from edgerec.errors import UsageError
from edgerec.splits import split

SHORT = ("--steps", 4, "--batch-size", 8)


def run(*arguments: object) -> Any:
    """Run a command that prints JSON, and raise what it raises."""
    result = CliRunner().invoke(group, [*map(str, arguments), "--json"], catch_exceptions=False)
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(autouse=True)
def few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrate on little."""
    monkeypatch.setattr(importance, "TEXTS", 128)


@pytest.fixture
def teacher(cycle: Path, small_bert: Path, tmp_path: Path) -> Path:
    """A teacher that knows the ring."""
    data = load_data(str(cycle))
    stage = TrainOptions(steps=60, batch_size=16, learning_rate=0.05, evaluate_every=30)
    options = TeacherOptions(TowerConfig(16), "separate", stage, top_layers=0)
    fine_tune(data, split(data), small_bert, options, tmp_path / "teacher")
    return tmp_path / "teacher"


def weights(folder: Path) -> bytes:
    """Return all weights of a model folder's encoder."""
    return b"".join(path.read_bytes() for path in sorted((folder / "encoder").glob("*.safetensors")))


def test_a_teacher_is_pruned_in_every_way_exports_and_is_pruned_again(
    cycle: Path, teacher: Path, tmp_path: Path
) -> None:
    one, sizes = tmp_path / "one", ("--layers", 1, "--heads", 2, "--intermediate", 20, "--hidden", 20)
    first = run("prune", teacher, "--data", cycle, "--out", one, *sizes, *SHORT)
    assert first["before"]["ndcg10"] == pytest.approx(  # the head does what pooling and projection did
        json.loads((teacher / "model.json").read_text())["validation_ndcg10"]["stage_1"], abs=0.02
    )
    assert [step["name"] for step in first["steps"]] == ["vocabulary", "layers", "heads-and-units", "hidden"]
    assert first["after"]["sizes"] == {"hidden": 20, "head_width": 8, "heads": [2], "intermediate": [20]}
    assert first["after"]["parameters"] < first["before"]["parameters"]
    assert first["after"]["bytes"]["encoder"] < first["before"]["bytes"]["encoder"]
    assert first["after"]["bytes"]["item tables"] == first["before"]["bytes"]["item tables"]
    parity = run("export", one, "--precision", "fp32", "--out", tmp_path / "one.edgerec")["targets"]["onnx"]["parity"]
    assert parity["largest_text_distance"] < 1e-5
    again = run("prune", one, "--data", cycle, "--out", tmp_path / "two", "--hidden", 16, *SHORT)
    assert again["after"]["sizes"]["hidden"] == 16
    rows = run("evaluate", cycle, "--no-baselines", "--model", tmp_path / "two")["rows"]
    assert {row["name"] for row in rows} >= {"two: student, re-encoded", "two: random encoder, text-only"}
    told = CliRunner().invoke(group, [str(a) for a in ("prune", one, "--data", cycle, "--out", tmp_path / "3", *SHORT)])
    assert "| token table, bytes |" in told.stdout and "| vocabulary |" in told.stdout


def test_targets_are_met_and_the_same_seed_gives_the_same_bytes(cycle: Path, teacher: Path, tmp_path: Path) -> None:
    found = {}
    for name in ("a", "b"):
        found[name] = run(
            "prune", teacher, "--data", cycle, "--out", tmp_path / name, "--target-flops", 0.5, "--hidden", 24, *SHORT
        )
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    before, after = found["a"]["before"], found["a"]["after"]
    assert 0.4 * before["flops_per_token"] < after["flops_per_token"] <= 0.5 * before["flops_per_token"]
    most = before["parameters"] // 2
    small = run("prune", teacher, "--data", cycle, "--out", tmp_path / "c", "--target-params", most, *SHORT)
    assert 0.8 * most < small["after"]["parameters"] <= most
    with pytest.raises(UsageError, match="expected one of them"):
        run("prune", teacher, "--data", cycle, "--out", tmp_path / "d", "--target-params", 1, "--target-flops", 0.5)
    with pytest.raises(UsageError, match="the model has .* already"):
        run("prune", teacher, "--data", cycle, "--out", tmp_path / "e", "--target-params", 10**9)
    assert not (tmp_path / "e").exists()


def test_a_latency_is_looked_for_with_the_timer(cycle: Path, teacher: Path, tmp_path: Path) -> None:
    model, data = checkpoint.load(teacher), load_data(str(cycle))
    seen = []

    def timer(encoder: Any, tokenizer_json: str) -> float:
        """Take a millisecond per channel."""
        seen.append(encoder.bert.config.hidden_size)
        return float(seen[-1])

    def pruned(most: float, out: str) -> Any:
        options, target = TrainOptions(steps=2, batch_size=8), prune.Target("latency", most)
        return prune.prune_checkpoint(
            model, data, split(data), tmp_path / out, target=target, options=options, timer=timer
        )

    assert pruned(13.0, "a")["after"]["sizes"]["hidden"] == 13
    assert len(seen) < 24  # bisected twice, the second time with the layers that the first one left
    with pytest.raises(UsageError, match="the smallest that pruning reaches is 1; expected a larger target"):
        pruned(0.5, "b")
    assert not (tmp_path / "b").exists()


def test_an_interrupted_run_goes_on_to_the_same_bytes(cycle: Path, teacher: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = ("prune", teacher, "--data", cycle, "--layers", 1, "--hidden", 20, *SHORT)
    run(*arguments, "--out", whole)
    shutil.copytree(whole, cut)
    for left in ("model.json", "encoder", "steps/hidden/step.json", "steps/hidden/checkpoints"):
        path = cut / left
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UsageError, match="exists already"):
        run(*arguments, "--out", cut)
    kept = (cut / "steps/layers/student/model.safetensors").stat().st_mtime_ns
    run(*arguments, "--out", cut, "--resume")
    assert weights(cut) == weights(whole)
    assert (cut / "steps/layers/student/model.safetensors").stat().st_mtime_ns == kept


def test_a_static_student_loses_tokens_and_width_only(cycle: Path, teacher: Path, tmp_path: Path) -> None:
    data, options = load_data(str(cycle)), TrainOptions(steps=2, batch_size=8)
    distill_checkpoint(checkpoint.load(teacher), data, split(data), "static", options, tmp_path / "static")
    out = tmp_path / "narrow"
    found = run("prune", tmp_path / "static", "--data", cycle, "--out", out, "--hidden", 8, *SHORT)
    assert found["after"]["sizes"] == {"hidden": 8}
    assert run("export", out, "--out", tmp_path / "narrow.edgerec")["targets"]["onnx"]["bytes"]
    for refused, message in ((("--layers", 1), "has no layers"), (("--target-flops", 0.5), "no FLOPs to share")):
        with pytest.raises(UsageError, match=message):
            run("prune", tmp_path / "static", "--data", cycle, "--out", tmp_path / "other", *refused)
        assert not (tmp_path / "other").exists()


def test_decoders_and_other_poolings_are_refused(cycle: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = checkpoint.load(teacher)
    config = json.loads((model.encoder / "config.json").read_text())
    (model.encoder / "config.json").write_text(json.dumps({**config, "edgerec_pooling": "last"}))
    with pytest.raises(UsageError, match="--pooling mean"):
        prune.opened(model)
    from transformers import GPT2Config, GPT2Model

    small = GPT2Model(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))
    monkeypatch.setattr(prune, "open_teacher", lambda folder: small)
    with pytest.raises(UsageError, match="got GPT2Model as the teacher's encoder"):
        prune.opened(model)
