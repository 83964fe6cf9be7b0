"""What the runtime adds to an app is measured in fresh processes, and a budget that is broken is named."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

import pytest

from edgerec.benchmarks import lean
from edgerec.runtime.layout import Tower

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_a_bundle_is_measured_beside_a_bare_session(
    ring: Tower, write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lean, "REST", 0.02)
    monkeypatch.setattr(lean, "BUDGETS", dict.fromkeys(lean.BUDGETS, 1e9))
    out = tmp_path / "lean.json"
    found = CliRunner().invoke(lean.main, [str(write(ring)), "--rounds", "1", "--out", str(out)])
    assert found.exit_code == 0, found.output
    result = json.loads(out.read_text("utf-8"))
    assert {*result["rows"]} == {"bare", "runtime", "two threads"}
    assert result["rows"]["runtime"]["resident_mb"] > result["rows"]["bare"]["resident_mb"] > 10
    assert 0 < result["pair"]["proportional_mb"] < result["pair"]["resident_mb"]
    assert out.with_suffix(".md").read_text("utf-8") == lean.table(result)
    monkeypatch.setattr(lean, "BUDGETS", dict.fromkeys(lean.BUDGETS, -1e9))
    assert len(lean.broken(result["over_bare"])) == 3


def test_a_process_that_cannot_answer_ends_the_measurement(tmp_path: Path) -> None:
    (tmp_path / "bad.edgerec").write_bytes(b"nothing")
    found = CliRunner().invoke(lean.main, [str(tmp_path / "bad.edgerec"), "--rounds", "1"])
    assert found.exit_code != 0
