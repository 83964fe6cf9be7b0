"""Measuring on a Jetson: what the board is, and the same ``bench run`` on it over ssh.

Nothing on the board is changed unless that is asked for; what was changed is put back, also after a failure.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgerec.benchmarks.machine import text
from edgerec.errors import EdgerecError, UsageError

RELEASE = re.compile(r"R(\d+).*?REVISION: ([\d.]+)")
MODE = re.compile(r"NV Power Mode: *(\S+)\s+(\d+)", re.DOTALL)
ROOT = Path("/")
# a shell over there ends the command, which then puts back what it changed, once its own input ends: that is when this
# side is gone. Without a terminal, sshd would let the command run on
TETHERED = (
    'exec 3<&0; env "$@" 3<&- & run=$!; '
    "{ read -r _ <&3; kill $run || sudo -n kill $run; } >/dev/null 2>&1 & tether=$!; "
    "wait $run; code=$?; kill $tether; exit $code"
)


class BoardError(EdgerecError):
    """A command on the board failed."""


def said(*command: str) -> str | None:
    """Return what a command printed, or None where it is not there, is not allowed or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def board(root: Path = ROOT) -> dict[str, Any] | None:
    """Return model, L4T release, power mode and clocks of a Jetson, or None on another machine."""
    model, release = text(root / "proc/device-tree/model"), text(root / "etc/nv_tegra_release")
    if release is None:
        return None
    found = RELEASE.search(release)
    return {
        "model": model.rstrip("\0") if model else None,
        "l4t": f"{found[1]}.{found[2]}" if found else release,
        "nvpmodel": power_mode(),
        "jetson_clocks": said("jetson_clocks", "--show"),
    }


def power_mode() -> dict[str, Any] | None:
    """Return the power mode's name and number, or None."""
    found = MODE.search(said("nvpmodel", "-q") or "")
    return {"name": found[1], "number": int(found[2])} if found else None


@contextmanager
def pinned(mode: int | None, clocks: bool, store: Path) -> Iterator[None]:
    """Set the power mode and fix the clocks for a while, where asked for; put both back, whatever happens.

    Args:
        mode: Of ``nvpmodel``, or None.
        clocks: Whether to run ``jetson_clocks``.
        store: File for the clocks as they were.

    Raises:
        BoardError: A command failed, or the mode that would have to be put back is not known.
    """
    before = power_mode() if mode is not None else None
    if mode is not None and before is None:
        raise BoardError("nvpmodel -q tells no power mode; expected one to put back: measure without --power-mode")
    undo: list[tuple[str, ...]] = []
    try:
        if before and before["number"] != mode:
            undo.append(("nvpmodel", "-m", str(before["number"])))
            required("nvpmodel", "-m", str(mode))
        if clocks:
            required("jetson_clocks", "--store", str(store))
            undo.append(("jetson_clocks", "--restore", str(store)))
            required("jetson_clocks")
        yield
    finally:
        failed = [" ".join(command) for command in reversed(undo) if said(*command) is None]
        if failed:
            raise BoardError(f"the board could not be put back: {'; '.join(failed)} failed; run it by hand")


def required(*command: str) -> None:
    """Run a command that must succeed.

    Raises:
        BoardError: It did not.
    """
    if said(*command) is None:
        raise BoardError(f"{' '.join(command)} failed; expected root on a Jetson: measure without changing its state")


def remote(host: str, edgerec: str, arguments: Sequence[str], timeout: float | None = None) -> dict[str, Any]:
    """Run ``bench run`` on another machine, where edgerec and the files are, and return its result.

    However this process ends, the command over there ends with it.

    Args:
        host: As ssh takes it.
        edgerec: The command over there.
        arguments: Of ``bench run``; paths are those of the other machine.
        timeout: Seconds; None waits for as long as the cells over there take, each of which has a limit.

    Raises:
        BoardError: ssh or the command failed, or printed no result.
        UsageError: The host would be read as an option.
    """
    if host.startswith("-") or not host.strip():
        raise UsageError(f"got the host {host!r}; expected a name such as nano or user@nano")
    words = shlex.join(["sh", "-c", TETHERED, "sh", *shlex.split(edgerec), "bench", "run", *arguments, "--json"])
    command, (stdin, held) = ["ssh", "-o", "BatchMode=yes", host, words], os.pipe()  # it ends when ``held`` is closed
    try:
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BoardError(f"ssh {host} did not come back ({error})") from error
    finally:
        os.close(stdin)
        os.close(held)
    last = next((line for line in reversed(done.stdout.splitlines()) if line.strip()), "")
    try:
        found: dict[str, Any] = json.loads(last)
    except ValueError:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BoardError(f"{host} printed no result: {why}") from None
    return found
