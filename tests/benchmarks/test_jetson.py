"""A board that is a folder of files and shell scripts, and an ssh that is one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

import pytest

from edgerec.benchmarks.bench_commands import bench
from edgerec.benchmarks.jetson import BoardError, board, pinned, remote
from edgerec.errors import UsageError


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


MODES = 'case "$*" in -q) printf "NV Power Mode: MAXN\\n2\\n";; esac'


def test_a_board_is_told_by_its_files(tmp_path: Path, tool: Callable[[str, str], Path]) -> None:
    tool("nvpmodel", MODES)
    assert board(tmp_path) is None
    for name, content in (
        ("proc/device-tree/model", "NVIDIA Jetson Orin Nano\0"),
        ("etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic"),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(content)
    found = board(tmp_path)
    assert found == {
        "model": "NVIDIA Jetson Orin Nano",
        "l4t": "36.4.3",
        "nvpmodel": {"name": "MAXN", "number": 2},
        "jetson_clocks": None,
    }


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
    assert first == "ssh -o BatchMode=yes me@nano edgerec bench run '/data/a file.edgerec' --seconds 1 --json"
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
    words = calls.read_text().split("nano ")[1]
    assert words == "edgerec bench run a.edgerec --device jetson --threads 2 --threads 4 --jetson-clocks --json\n"
