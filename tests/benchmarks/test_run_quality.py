"""The planned studies: each is one command, and a set that is not there is passed over."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from click.testing import CliRunner

import pytest

from edgerec.benchmarks import run_quality
from edgerec.benchmarks.run_quality import PLANNED, main


def test_absent_data_are_passed_over_and_the_rest_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands, further = list[list[str]](), list[list[str]]()

    def note(command: list[str], **options: Any) -> None:
        if "--study" in command:
            commands.append(command)
            return
        further.append(command)
        out = Path(command[command.index("--out") + 1])
        out.parent.mkdir(parents=True, exist_ok=True)
        for path in (out, out.with_suffix(".md")):
            path.write_text("made")

    monkeypatch.setattr(subprocess, "run", note)
    monkeypatch.setattr(run_quality, "RESULTS", tmp_path / "results")
    (tmp_path / "data" / "onlineretail").mkdir(parents=True)
    (tmp_path / "work" / "peers" / "quality-ml-100k").mkdir(parents=True)
    (tmp_path / "work" / "peers" / "quality-ml-100k" / "peer.json").write_text("{}")
    options = ["--data", tmp_path / "data", "--work", tmp_path / "work"]
    result = CliRunner().invoke(main, [*map(str, options)], catch_exceptions=False)
    assert "quality-amazon-industrial: data not at hand" in result.stdout
    asked = [command[command.index("evaluate") + 1 : command.index("--study")] for command in commands]
    found = {"ml-100k": "ml-100k", "completejourney": "completejourney"}
    found["onlineretail"] = str(tmp_path / "data" / "onlineretail")
    planned = [one for one in PLANNED if one.data in found]
    assert asked == [[found[one.data], "--split", one.split, "--part", one.part] for one in planned]
    studies = [Path(command[command.index("--study") + 1]).name for command in commands]
    assert studies == [one.study for one in planned] and studies.count("quality-ml-100k") > 1
    assert [command for command in commands if "--run" in command] == commands[:1]
    results = {path.stem for path in (tmp_path / "results").glob("*.json")}
    assert results == {"training-ml-100k", "training-completejourney", "cross-ml-100k"}  # no SASRec on onlineretail
    assert [command[3] for command in further].count("fine-tune-cross") == 1 and "{" not in str(further)
    made = len(further)
    CliRunner().invoke(main, [*map(str, options)], catch_exceptions=False)
    assert len(further) == made  # nothing twice
    commands.clear()
    only = ["--only", "completejourney", "--seeds", "2", "--work", str(tmp_path / "work")]
    CliRunner().invoke(main, only, catch_exceptions=False)
    assert len(commands) == 2 and commands[0][commands[0].index("--seeds") + 1] == "2"
