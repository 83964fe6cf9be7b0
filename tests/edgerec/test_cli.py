"""The command line as a user meets it: real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import click

import pytest

from edgerec.cli import COMMANDS, group


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m edgerec``."""
    return subprocess.run([sys.executable, "-m", "edgerec", *arguments], capture_output=True, text=True)


def test_help_imports_no_stage_and_nothing_heavy() -> None:
    code = (
        "import sys\nfrom edgerec.cli import main\nsys.argv = ['edgerec', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in {'torch', 'numpy', 'polars', 'onnxruntime'} or m in "
        "{'edgerec.distill', 'edgerec.export', 'edgerec.runtime', 'edgerec.benchmarks'}]\n"
        "assert not bad, bad"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_help_that_the_group_shows(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    assert command.get_short_help_str(200) == COMMANDS[name][1]
    with click.Context(command) as context:
        assert "Usage" in command.get_help(context)


def test_a_users_mistake_is_one_line_and_exit_code_2() -> None:
    result = run("data", "inspect", "nowhere")
    assert result.returncode == 2
    assert result.stderr.startswith("edgerec: nowhere is no folder")
    assert len(result.stderr.splitlines()) == 1


def test_what_is_under_way_is_put_back_when_the_process_is_ended(tmp_path: Path) -> None:
    code = (
        "import tempfile, time\nimport click\nfrom edgerec.cli import main\n"
        "@click.command()\ndef wait():\n"
        f"  with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}):\n"
        "    print('here', flush=True)\n    time.sleep(60)\n"
        "main(wait)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"here\n"
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM and not list(tmp_path.iterdir())
    process.stdout.close()


def test_doctor_prints_one_json_value() -> None:
    found = json.loads(run("doctor", "--json").stdout)
    assert set(found["cpu_features"]) == {"AVX2", "AVX512-VNNI", "AVX-VNNI", "dotprod"}
    assert "CPUExecutionProvider" in found["providers"]


def test_inspect_prepare_and_evaluate_a_catalogue_nobody_has_seen(cycle: Path, tmp_path: Path) -> None:
    inspected = json.loads(run("data", "inspect", str(cycle), "--json").stdout)
    assert inspected["users to score"]["leave-one-out"] == {"validation": 40, "test": 40}
    assert run("data", "prepare", str(cycle), "--out", str(tmp_path / "out")).returncode == 0
    options = ["--no-text", "--json", "--trec", str(tmp_path / "trec"), "--out", str(tmp_path / "quality.json")]
    result = run("evaluate", str(tmp_path / "out"), *options)
    assert result.returncode == 0, result.stderr
    rows = {row["name"]: row for row in json.loads(result.stdout)["rows"]}
    assert set(rows) == {"popularity", "ItemKNN", "EASE", "TF-IDF profile"}
    assert rows["ItemKNN"]["test"][0]["hr"]["mean"] == 1.0  # the ring's next item, among seven unseen ones
    said = (tmp_path / "quality.md").read_text().splitlines()
    assert said[0] == "out, leave-one-out, 40 users, full catalogue of 12, seen items masked" and len(said) == 8
    assert {path.name for path in (tmp_path / "trec").iterdir()} >= {"qrels.txt", "ItemKNN.run"}
