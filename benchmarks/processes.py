"""Running a worker: in any interpreter, under a limit of time and memory; whatever goes wrong is the task's result."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import edgerec
from edgerec.benchmarks.machine import memory
from edgerec.files import write_json

LOOK = 0.25  # seconds between two looks at a worker: often enough for its memory, seldom enough to stay unnoticed
SOON = 0.01  # seconds from a worker's last word to its end, as a rule
TAIL = 2000  # characters of a worker's output that are kept
ONE_THREAD_EACH = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
HASHING = "0"  # one order of sets in every process


class Limits(NamedTuple):
    """What a worker may take."""

    seconds: float = 300.0
    rss_mb: float = 4096.0


def importable(folder: Path) -> Path:
    """Make ``edgerec`` and nothing else importable from a folder, for interpreters that do not have it."""
    link = folder / "edgerec"
    if not link.is_symlink():
        link.symlink_to(Path(edgerec.__file__).resolve().parent, target_is_directory=True)
    return folder


def perform(task: Mapping[str, Any], folder: Path, limits: Limits, interpreter: str | None = None) -> dict[str, Any]:
    """Do one task in a new process.

    Args:
        task: What ``worker.perform`` takes, without ``out`` and ``spawned``.
        folder: For the files that pass between the processes.
        limits: A worker that takes more is killed, with its children.
        interpreter: The Python to run; None for this one.

    Returns:
        The worker's result, or ``status`` "failed" and the ``reason``.
    """
    out, given = folder / "result.json", folder / "task.json"
    out.unlink(missing_ok=True)
    threads = str(task["options"].get("threads", 1))
    environment = {**os.environ, "PYTHONPATH": str(importable(folder)), "PYTHONHASHSEED": HASHING}
    environment |= dict.fromkeys(ONE_THREAD_EACH, threads)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed module is compiled once, not at every start
    write_json(given, {**task, "out": str(out), "spawned": time.monotonic_ns()})
    command = [interpreter or sys.executable, "-m", "edgerec.benchmarks.worker", str(given)]
    try:
        worker = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    except OSError as error:
        return {"status": "not measured", "reason": f"{command[0]} cannot be started ({error})"}
    try:
        fault, said = watch(worker, limits)
    finally:
        end(worker)
    if fault:
        return {"status": "failed", "reason": fault}
    if not out.exists():
        last = said.strip().splitlines()[-1:] or ["it said nothing"]
        return {"status": "failed", "reason": f"the process ended with code {worker.returncode}: {last[0][:300]}"}
    found: dict[str, Any] = json.loads(out.read_text("utf-8"))
    return found


def watch(worker: subprocess.Popen[bytes], limits: Limits) -> tuple[str | None, str]:
    """Wait for a worker; return why it has to be ended, or None, and the end of what it said."""
    assert worker.stdout
    said, deadline = "", time.monotonic() + limits.seconds
    while True:
        # not reaped: its number stays taken. Its output's end says nothing: it may be closed early, or held by a child
        ended = os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        readable = bool(select.select([worker.stdout], [], [], 0 if ended else LOOK)[0])
        block = os.read(worker.stdout.fileno(), 1 << 16) if readable else b""
        said = (said + block.decode("utf-8", "replace"))[-TAIL:]
        if ended and not block:
            return None, said
        if readable and not block:
            time.sleep(SOON)
        if time.monotonic() > deadline:
            return f"took longer than {limits.seconds:g} s", said
        if (held := memory(worker.pid)["rss_mb"] or 0.0) > limits.rss_mb:
            return f"held {held:.0f} MB; the limit is {limits.rss_mb:g} MB", said


def end(worker: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a worker's process group, and only then let its number be given to another."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    if worker.stdout:
        worker.stdout.close()
