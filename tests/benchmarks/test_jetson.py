"""A board that is a folder of files and shell scripts, and an ssh that is one."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner

import pytest

from edgerec.benchmarks import jetson
from edgerec.benchmarks.bench_commands import bench
from edgerec.benchmarks.jetson import TETHERED, BoardError, board, pinned, remote
from edgerec.benchmarks.schema import faults
from edgerec.bundle import Bundle, write_bundle
from edgerec.errors import UsageError
from edgerec.export.synthetic import random_tower, write_random
from edgerec.runtime import Recommender
from edgerec.runtime.layout import GOLDENS


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Put a shell script on PATH; what it is called with goes to ``calls``."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")

    def make(name: str, script: str) -> Path:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{script}\n')
        path.chmod(0o755)
        return tmp_path / "calls"

    return make


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder with the files that tell a board."""
    for name, content in (
        ("proc/device-tree/model", "NVIDIA Jetson Orin Nano\0"),
        ("etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic"),
    ):
        (tmp_path / "board" / name).parent.mkdir(parents=True)
        (tmp_path / "board" / name).write_text(content)
    return tmp_path / "board"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Write a bundle of a random tower, and a golden text, without which it has nothing to ask."""
    drawn, path = tmp_path / "drawn.edgerec", tmp_path / "small.edgerec"
    write_random(random_tower(30, 8), drawn)
    held = Bundle(drawn)
    members = {name: bytes(held[name]) for name in held.manifest["members"]}
    vector = Recommender.load(drawn).encoder.encode(["red wine"]).text[0].tolist()
    goldens = json.loads(members[GOLDENS])
    goldens |= {"texts": [{"text": "red wine", "text_vector": vector}], "text_tolerance": 1e-4}
    write_bundle(path, {"model": held.manifest["model"]}, {**members, GOLDENS: json.dumps(goldens).encode()})
    return path


MODES = 'case "$*" in -q) printf "NV Power Mode: MAXN\\n2\\n";; esac'


BOARD = {
    "model": "NVIDIA Jetson Orin Nano",
    "l4t": "36.4.3",
    "nvpmodel": {"name": "MAXN", "number": 2},
    "jetson_clocks": None,
}


def test_a_board_is_told_by_its_files(tmp_path: Path, files: Path, tool: Callable[[str, str], Path]) -> None:
    tool("nvpmodel", MODES)
    assert board(tmp_path) is None
    assert board(files) == BOARD


def measured(bundle: Path) -> dict[str, Any]:
    """Return the result of a short ``bench run --device jetson``, and say that it has no faults."""
    length = ["--seconds", "0.05", "--count", "70", "--rounds", "1", "--cold", "1"]
    command = ["run", str(bundle), "--device", "jetson", "--kind", "recommend", *length, "--json"]
    said = CliRunner().invoke(bench, command, catch_exceptions=False)
    assert said.exit_code == 0, said.output
    found: dict[str, Any] = json.loads(said.stdout.splitlines()[-1])
    assert list(faults(found)) == []
    return found


def test_a_bundle_is_measured_on_a_board(
    files: Path, bundle: Path, tool: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The board is looked for in this process alone; the one that measures opens the bundle as on any machine."""
    tool("nvpmodel", MODES)
    monkeypatch.setattr(jetson, "board", lambda: board(files))
    found = measured(bundle)
    assert found["environment"]["jetson"] == BOARD
    [cell], [cold], [audit], [worth] = (
        [row for row in found[part] if row["device"] == "jetson"] for part in ("cells", "cold", "audits", "accuracy")
    )
    for row in (cell, cold, audit, worth):
        assert row["subject"] == "small, jetson"
    assert cell["status"] == "measured" and cell["latency_ms"]["n"] >= 70 and cell["latency_ms"]["p50"]["value"] > 0
    assert cell["reason"] is None and cold["total_ms"] > 0 and audit["test01"]["passes"]
    assert worth["goldens"]["passes"] and worth["goldens"]["texts"] == 1 and worth["overlap10"] == 1


def test_without_a_board_the_row_says_why_and_nothing_runs(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetson, "board", lambda: board(tmp_path))
    found = measured(bundle)
    assert found["environment"]["jetson"] is None
    [cell], [cold], [worth] = (
        [row for row in found[part] if row["device"] == "jetson"] for part in ("cells", "cold", "accuracy")
    )
    for row in (cell, cold, worth):
        assert row["status"] == "not measured" and "this machine is no Jetson" in row["reason"]
    assert cell["runs"] == [] and worth["goldens"] is None


def test_what_was_changed_is_put_back_after_a_failure(tool: Callable[[str, str], Path], tmp_path: Path) -> None:
    calls = tool("nvpmodel", MODES)
    tool("jetson_clocks", "")
    with pytest.raises(KeyError), pinned(0, True, tmp_path / "clocks"):
        raise KeyError("the measurement broke")
    assert calls.read_text().splitlines() == [
        "nvpmodel -q",
        "nvpmodel -m 0",
        f"jetson_clocks --store {tmp_path}/clocks",
        "jetson_clocks ",
        f"jetson_clocks --restore {tmp_path}/clocks",
        "nvpmodel -m 2",
    ]


def test_clocks_that_cannot_be_fixed_leave_the_mode_as_it_was(tool: Callable[[str, str], Path], tmp_path: Path) -> None:
    calls = tool("nvpmodel", MODES)
    tool("jetson_clocks", "exit 1")
    with pytest.raises(BoardError, match="jetson_clocks --store .* failed"), pinned(0, True, tmp_path / "clocks"):
        pass
    assert calls.read_text().splitlines()[-1] == "nvpmodel -m 2"


def test_a_board_that_cannot_be_put_back_is_an_error(tool: Callable[[str, str], Path], tmp_path: Path) -> None:
    tool("nvpmodel", f'{MODES}; case "$*" in "-m 2") exit 1;; esac')
    with pytest.raises(BoardError, match="nvpmodel -m 2 failed; run it by hand"), pinned(0, False, tmp_path / "x"):
        pass


def test_nothing_is_changed_unasked(tool: Callable[[str, str], Path], tmp_path: Path) -> None:
    calls = tool("nvpmodel", MODES)
    with pinned(None, False, tmp_path / "x"):
        pass
    assert not calls.exists()


def test_the_same_command_runs_over_ssh(tool: Callable[[str, str], Path]) -> None:
    """The script does what sshd does: it gives the words to a shell."""
    said = json.dumps({"schema": "edgerec-bench-1"})
    tool("edgerec", f"echo a table; echo '{said}'")
    calls = tool("ssh", 'shift 3; eval "$*"')
    found = remote("me@nano", "edgerec", ["/data/a file.edgerec", "--seconds", "1"])
    assert found == {"schema": "edgerec-bench-1"}
    first, second = calls.read_text().splitlines()
    words = f"sh -c {shlex.quote(TETHERED)} sh edgerec bench run '/data/a file.edgerec' --seconds 1 --json"
    assert first == f"ssh -o BatchMode=yes me@nano {words}"
    assert second == "edgerec bench run /data/a file.edgerec --seconds 1 --json"


def test_a_host_that_fails_is_one_line(tool: Callable[[str, str], Path]) -> None:
    tool("ssh", "echo 'ssh: connect to host nano: no route' >&2; exit 255")
    with pytest.raises(BoardError, match="nano printed no result: ssh: connect to host nano: no route"):
        remote("nano", "edgerec", [])
    with pytest.raises(UsageError, match="-oProxyCommand"):
        remote("-oProxyCommand=x", "edgerec", [])


def test_a_board_is_measured_with_the_options_that_were_given(tool: Callable[[str, str], Path]) -> None:
    calls = tool("ssh", "exit 1")
    given = ["run", "a.edgerec", "--device", "jetson", "--threads", "2", "--threads", "4", "--jetson-clocks"]
    CliRunner().invoke(bench, [*given, "--host", "nano", "--out", "here.json"])
    words = calls.read_text().split(" sh edgerec ")[1]
    assert words == "bench run a.edgerec --device jetson --threads 2 --threads 4 --jetson-clocks --json\n"


def until(text: str, log: Path) -> None:
    """Wait for a line of a log."""
    deadline = time.monotonic() + 30
    while not log.exists() or text not in log.read_text().splitlines():
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "nothing"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_runs_over_ssh_ends_with_this_side(
    tool: Callable[[str, str], Path], tmp_path: Path, number: signal.Signals
) -> None:
    log = tmp_path / "log"
    end = f"trap 'kill $!; echo put back >> {log}; exit 143' TERM"
    tool("edgerec", f"sleep 60 & {end}; echo began >> {log}; wait; echo ran on >> {log}")
    tool("ssh", 'shift 3; eval "$*"')
    code = "from edgerec.benchmarks.jetson import remote; remote('nano', 'edgerec', [])"
    # of its own group: a terminal would interrupt the other side too, ssh does not
    here = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, start_new_session=True)
    until("began", log)
    here.send_signal(number)
    until("put back", log)
    assert here.wait(30) == -number


def test_a_host_that_takes_too_long_is_left_and_its_command_ended(
    tool: Callable[[str, str], Path], tmp_path: Path
) -> None:
    tool("edgerec", f"sleep 60 & trap 'kill $!; echo put back >> {tmp_path}/log; exit 143' TERM; wait")
    tool("ssh", 'shift 3; eval "$*"')
    with pytest.raises(BoardError, match="ssh nano did not come back"):
        remote("nano", "edgerec", [], timeout=2)
    until("put back", tmp_path / "log")


def test_the_other_sides_exit_and_words_come_back_through_the_shell(tool: Callable[[str, str], Path]) -> None:
    tool("edgerec", 'echo "$SETTING" >&2; exit 3')
    tool("ssh", 'shift 3; eval "$*"')
    with pytest.raises(BoardError, match="nano printed no result: of the command"):
        remote("nano", "SETTING='of the command' edgerec", [])
    tool("edgerec", "exit 3")
    with pytest.raises(BoardError, match="nano printed no result: exit code 3"):
        remote("nano", "edgerec", [])
