"""A plan of a study that takes seconds, and models of twelve items."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgerec.distill.checkpoint import Checkpoint
    from edgerec.export.study import Plan


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan of seconds, whose tiny student the small teacher can give."""
    from edgerec.distill import student as sizes
    from edgerec.distill.options import TrainOptions
    from edgerec.distill.teacher import TeacherOptions
    from edgerec.distill.towers import TowerConfig
    from edgerec.export.study import Plan

    monkeypatch.setitem(sizes.PRESETS, "tiny", sizes.StudentConfig(1, 12, 2, 24))
    stage = TrainOptions(steps=60, batch_size=16, learning_rate=0.05, evaluate_every=30)
    teacher = TeacherOptions(TowerConfig(16), "separate", stage, top_layers=0)
    return Plan(2, teacher, replace(stage, learning_rate=3e-3, steps=30), ("tiny",))


@pytest.fixture(scope="session")
def student(small_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A student of the ring: twelve items, each user goes on by one; its teacher lies beside it."""
    from edgerec.data import load as load_data
    from edgerec.distill import checkpoint
    from edgerec.distill.compress import distill_checkpoint
    from edgerec.distill.options import TrainOptions
    from edgerec.distill.teacher import TeacherOptions, fine_tune
    from edgerec.distill.towers import TowerConfig
    from edgerec.splits import split

    home = tmp_path_factory.mktemp("ring")
    items = [f"i{n},Title {'red' if n % 2 else 'blue'} {n}" for n in range(12)]
    log = [f"u{u},i{(u + t) % 12},{1_600_000_000 + 60 * t}" for u in range(40) for t in range(6)]
    (home / "items.csv").write_text("item_id,title\n" + "\n".join(items))
    (home / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(log))
    data = load_data(str(home))
    divided, short = split(data), TrainOptions(steps=30, batch_size=8, evaluate_every=30, learning_rate=0.05)
    fine_tune(data, divided, small_bert, TeacherOptions(TowerConfig(8), "separate", short), home / "teacher")
    sizes = {"layers": 1, "hidden": 8, "heads": 2, "intermediate": 16}
    teacher = checkpoint.load(home / "teacher")
    distill_checkpoint(teacher, data, divided, "tiny", TrainOptions(steps=5), home / "student", sizes=sizes)
    return checkpoint.load(home / "student")


@pytest.fixture(scope="session")
def graphs(student: Checkpoint) -> dict[str, bytes]:
    """The graphs of its kit, made once: calibrating takes seconds."""
    from edgerec.export import jetson_kit
    from edgerec.export.package import draft

    return jetson_kit.graphs_of(draft(student))


@pytest.fixture
def made_once(graphs: dict[str, bytes]) -> Iterator[None]:
    """Hand every kit the same graphs."""
    from edgerec.export import jetson_kit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jetson_kit, "graphs_of", lambda prepared: graphs)
        yield


@pytest.fixture(scope="session")
def report(student: Checkpoint, graphs: dict[str, bytes]) -> dict[str, Any]:
    """What an export without TensorRT says, and where the kit lies."""
    from edgerec.export import jetson_kit
    from tests.export.fake_tensorrt import absent

    out = student.folder.parent / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jetson_kit, "graphs_of", lambda prepared: graphs)
        return {"path": out, **jetson_kit.write_tensorrt(student, "fp32", out, absent)}


@pytest.fixture
def kit(report: dict[str, Any], tmp_path: Path) -> Path:
    """A kit of its own for each test."""
    return Path(shutil.copytree(report["path"], tmp_path / "kit"))
