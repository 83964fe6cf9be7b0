"""One line of ``tegrastats``, of JetPack 4 to 7.2; what it does not know, it leaves out.

The tool has printed power with and without ``mW``, as now/average and as now/average/most, with a time stamp and
without, temperatures with and without their peak, names in either case, and engines that are ``off``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Container
from typing import Any

RAM = re.compile(r"\bRAM (\d+)/(\d+)MB")
SWAP = re.compile(r"\bSWAP (\d+)/(\d+)MB")
CORES = re.compile(r"\bCPU \[([^\]]*)\]")
CORE = re.compile(r"(\d+)%(?:@(\d+))?")
ENGINE = re.compile(r"\b(EMC_FREQ|GR3D_FREQ) (?:(\d+)%)?(?:@\[?(\d+(?:,\d+)*)\]?)?")
HEAT = re.compile(r"\b([A-Za-z][\w-]*)@(-?\d+(?:\.\d+)?)C(?:/-?\d+(?:\.\d+)?C)?")
POWER = re.compile(r"\b([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/(\d+)(?:mW)?(?:/(\d+)(?:mW)?)?(?=\s|$)")
TOTALS = ("VDD_IN", "POM_5V_IN", "VIN")  # the board's total: Orin Nano/NX and Xavier NX; Nano; Thor
AGX_ORIN = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")  # has no total: the sum of its rails stands for one
WAIT = 5.0  # seconds for the first line
NO_READING = -200.0  # degrees; the tool prints -256 for a sensor that is asleep


def parse(line: str) -> dict[str, Any]:
    """Return memory in MB, load in percent, clocks in MHz, temperatures in degrees Celsius and power in watts.

    Returns:
        ``ram_mb``, ``swap_mb`` (used, whole) or None; ``cpu`` a list of (load, clock), None for a core that is off;
        ``emc`` and ``gpu`` (load, clocks) or None; ``temperature_c`` and ``watts`` by name, power as of now.
    """
    ram, swap, cores = RAM.search(line), SWAP.search(line), CORES.search(line)
    engines = {found[1]: engine(found) for found in ENGINE.finditer(line)}
    heat = {found[1].lower(): float(found[2]) for found in HEAT.finditer(line)}
    rest = re.sub(r"\b(RAM|SWAP|IRAM) \d+/\d+[kM]B(\([^)]*\))?", "", line)
    return {
        "ram_mb": None if not ram else (int(ram[1]), int(ram[2])),
        "swap_mb": None if not swap else (int(swap[1]), int(swap[2])),
        "cpu": [core(one) for one in cores[1].split(",")] if cores else [],
        "emc": engines.get("EMC_FREQ"),
        "gpu": engines.get("GR3D_FREQ"),
        "temperature_c": {name: value for name, value in heat.items() if value > NO_READING},
        "watts": {found[1]: int(found[2]) / 1e3 for found in POWER.finditer(rest)},
    }


def core(entry: str) -> tuple[int, int | None] | None:
    """Return a core's load and clock, or None where it is off."""
    found = CORE.fullmatch(entry.strip())
    return None if not found else (int(found[1]), int(found[2]) if found[2] else None)


def engine(found: re.Match[str]) -> tuple[int | None, list[int]]:
    """Return an engine's load, None where the tool gives none, and its clocks."""
    return int(found[2]) if found[2] else None, [int(clock) for clock in found[3].split(",")] if found[3] else []


def whole_board(rails: Container[str]) -> tuple[str, ...]:
    """Return the rails whose sum is the board's power: its total, or on AGX Orin the three that make it up, or none."""
    total = next(((name,) for name in TOTALS if name in rails), ())
    return total or (AGX_ORIN if all(name in rails for name in AGX_ORIN) else ())


class Stream:
    """A running ``tegrastats``, and what its latest line said of one rail."""

    def __init__(self, command: str, interval_ms: int = 100) -> None:
        self._process = subprocess.Popen([command, "--interval", str(interval_ms)], stdout=subprocess.PIPE, text=True)
        self._first, self._watts = threading.Event(), dict[str, float]()
        threading.Thread(target=self._follow, daemon=True).start()
        self._first.wait(WAIT)
        self._rails = whole_board(self._watts)
        self.rail = " + ".join(self._rails) or None

    def _follow(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._watts = parse(line)["watts"]
            self._first.set()

    def watts(self) -> float | None:
        """Return the latest power, or None once the tool has ended."""
        latest = self._watts
        if self._process.poll() is not None or not all(name in latest for name in self._rails):
            return None
        return sum(latest[name] for name in self._rails)

    def close(self) -> None:
        """End the tool."""
        self._process.terminate()
        self._process.wait()


def stream() -> Stream | None:
    """Start ``tegrastats`` where it is installed and names a rail of the whole board, else None."""
    command = shutil.which("tegrastats")
    if command is None:
        return None
    if (found := Stream(command)).rail is None:
        found.close()
        return None
    return found
