"""A plan of a study that takes seconds, and models of twelve items."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

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


@pytest.fixture(scope="module")
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
