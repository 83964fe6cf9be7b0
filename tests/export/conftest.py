"""A plan of a study that takes seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
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
