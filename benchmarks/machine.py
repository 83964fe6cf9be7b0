"""What the machine does meanwhile, from /proc and /sys: memory of this process, clocks, heat, and who else is at work.

What cannot be read is None, never 0.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

PROC, SYS = Path("/proc"), Path("/sys")
BUSY = 0.05  # of one core: a foreign process above is named
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
MB = 1024  # kB, the unit of /proc


def text(path: Path) -> str | None:
    """Return a small file's text, or None where it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return None


def number(path: Path, scale: float = 1.0) -> float | None:
    """Return a small file's number times ``scale``, or None."""
    found = text(path)
    try:
        return None if found is None else float(found) * scale
    except ValueError:
        return None


def fields(path: Path) -> dict[str, float]:
    """Return the ``Name:  123 kB`` lines of a file in MB, and bare numbers as they are."""
    found = {}
    for line in (text(path) or "").splitlines():
        name, _, value = line.partition(":")
        parts = value.split()
        if parts and parts[0].isdigit():
            found[name] = float(parts[0]) / (MB if parts[1:] == ["kB"] else 1)
    return found


def family(pid: int | str, proc: Path = PROC) -> list[int | str]:
    """Return a process and what it started, and they in turn."""
    tasks = [text(path) or "" for path in (proc / str(pid) / "task").glob("*/children")]
    return [pid, *(one for listed in tasks for child in listed.split() for one in family(child, proc))]


def memory(pid: int | str = "self", proc: Path = PROC) -> dict[str, float | None]:
    """Return resident, proportional and peak memory of a process and all that it started, in MB.

    The peaks of several processes need not have been at once: their sum is the most that it can have been.
    """
    found: dict[str, float | None] = dict.fromkeys(("rss_mb", "pss_mb", "peak_mb"))
    for one in family(pid, proc):
        status, maps = fields(proc / str(one) / "status"), fields(proc / str(one) / "smaps_rollup")
        for name, value in zip(found, (status.get("VmRSS"), maps.get("Pss"), status.get("VmHWM")), strict=True):
            if value is not None:
                found[name] = (found[name] or 0.0) + value
    return found


def threads(proc: Path = PROC) -> int | None:
    """Return how many threads this process has."""
    found = fields(proc / "self" / "status").get("Threads")
    return None if found is None else int(found)


def affinity() -> list[int] | None:
    """Return the cores that this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def clocks(sys: Path = SYS) -> dict[str, Any]:
    """Return each core's governor and clock in MHz, and the zones' temperatures in degrees Celsius; None if unknown."""
    cores = sorted(sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq"))
    zones = sorted(sys.glob("class/thermal/thermal_zone*"))
    heat = {text(zone / "type") or zone.name: number(zone / "temp", 1e-3) for zone in zones}
    return {
        "governor": {core.parent.name: text(core / "scaling_governor") for core in cores} or None,
        "mhz": {
            core.parent.name: {
                name: number(core / f"scaling_{name}_freq", 1e-3) if name != "cur" else current(core)
                for name in ("min", "cur", "max")
            }
            for core in cores
        }
        or None,
        "temperature_c": {name: value for name, value in heat.items() if value is not None and value > -200} or None,
    }


def current(core: Path) -> float | None:
    """Return a core's clock in MHz."""
    return number(core / "scaling_cur_freq", 1e-3)


def times(pid: int | str, proc: Path = PROC) -> tuple[str, float, float] | None:
    """Return a process's name, its processor seconds, and those of children that it waited for; None if it is gone."""
    line = text(proc / str(pid) / "stat")
    if not line or ")" not in line:
        return None
    name, rest = line[line.index("(") + 1 : line.rindex(")")], line[line.rindex(")") + 2 :].split()
    return name, sum(map(int, rest[11:13])) / TICKS, sum(map(int, rest[13:15])) / TICKS


def processor_seconds(proc: Path = PROC) -> dict[int, tuple[str, float]]:
    """Return the name and processor time in seconds of every process that can be seen."""
    found = {int(path.name): times(path.name, proc) for path in proc.glob("[0-9]*")}
    return {pid: one[:2] for pid, one in found.items() if one}


def busy_seconds(proc: Path = PROC) -> float | None:
    """Return for how long all cores together have been at work: neither idle, nor waiting, nor another machine's."""
    found = (text(proc / "stat") or "").splitlines()
    if not found or not found[0].startswith("cpu "):
        return None
    user, nice, system, _, _, interrupts, soft = map(int, found[0].split()[1:8])
    return (user + nice + system + interrupts + soft) / TICKS


class Meter:
    """Watches who else used the processor between its making and ``read``: neither this process nor what it started."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc, self._start, self._before = proc, time.monotonic(), processor_seconds(proc)
        self._busy, self._own = busy_seconds(proc), self._own_seconds()

    def _own_seconds(self) -> float:
        """Return the time of this process, of all that it started, and of the one that waits for it."""
        mine = [times(pid, self._proc) for pid in family(os.getpid(), self._proc)]
        parent = times(os.getppid(), self._proc)
        return sum(own + waited for _, own, waited in filter(None, mine)) + (parent[1] if parent else 0.0)

    def read(self) -> dict[str, Any]:
        """Return load average, the foreign processes that took more than 5% of a core, and how many cores all took.

        Who came and went meanwhile has no name, but counts.
        """
        seconds = max(time.monotonic() - self._start, 1e-9)
        own = {*map(int, family(os.getpid(), self._proc)), os.getppid()}
        foreign: dict[str, float] = {}
        for pid, (name, used) in processor_seconds(self._proc).items():
            share = (used - self._before.get(pid, (name, 0.0))[1]) / seconds
            if pid not in own and share > BUSY:
                foreign[name] = round(foreign.get(name, 0.0) + share, 3)
        cores, busy = sum(foreign.values()), busy_seconds(self._proc)
        if self._busy is not None and busy is not None:
            cores = max((busy - self._busy - self._own_seconds() + self._own) / seconds, 0.0)
        average = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
        return {"load_average": average, "foreign": foreign, "foreign_cores": round(cores, 3)}
