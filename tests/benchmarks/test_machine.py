"""Readers of /proc and /sys, on made-up trees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgerec.benchmarks.machine import Meter, busy_seconds, clocks, memory, processor_seconds, threads


def write(home: Path, **values: Any) -> None:
    home.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (home / name).write_text(f"{value}\n")


def process(proc: Path, pid: int, name: str, ticks: int) -> None:
    write(proc / str(pid), stat=f"{pid} ({name}) S " + " ".join(["0"] * 10) + f" {ticks} 0 0")


def test_memory_is_in_megabytes_and_unknown_is_none(tmp_path: Path) -> None:
    write(
        tmp_path / "7", status="Name:\tx\nVmHWM:\t 4096 kB\nVmRSS:\t 2048 kB\nThreads:\t3", smaps_rollup="Pss: 1024 kB"
    )
    assert memory(7, tmp_path) == {"rss_mb": 2.0, "pss_mb": 1.0, "peak_mb": 4.0}
    assert memory(8, tmp_path) == {"rss_mb": None, "pss_mb": None, "peak_mb": None}
    (tmp_path / "7").rename(tmp_path / "self")
    assert threads(tmp_path) == 3


def test_clocks_and_heat(tmp_path: Path) -> None:
    core = tmp_path / "devices/system/cpu/cpu0/cpufreq"
    write(core, scaling_governor="powersave", scaling_min_freq=800_000, scaling_cur_freq=1_200_000)
    write(tmp_path / "class/thermal/thermal_zone0", type="cpu-thermal", temp=41_500)
    write(tmp_path / "class/thermal/thermal_zone1", type="asleep", temp=-256_000)
    found = clocks(tmp_path)
    assert found["governor"] == {"cpu0": "powersave"}
    assert found["mhz"] == {"cpu0": {"min": 800.0, "cur": 1200.0, "max": None}}
    assert found["temperature_c"] == {"cpu-thermal": 41.5}
    assert clocks(tmp_path / "nothing") == {"governor": None, "mhz": None, "temperature_c": None}


def test_who_else_was_at_work_is_named(tmp_path: Path) -> None:
    process(tmp_path, 1_000_001, "a (strange) name", 100)
    process(tmp_path, 1_000_002, "idle", 100)
    meter = Meter(tmp_path)
    process(tmp_path, 1_000_001, "a (strange) name", 100_000)
    found = meter.read()
    assert list(found["foreign"]) == ["a (strange) name"] and found["foreign_cores"] > 0
    assert processor_seconds(tmp_path)[1_000_002][0] == "idle"


def test_who_came_and_went_counts_and_what_this_process_started_does_not(tmp_path: Path) -> None:
    def told(busy: int, own: int, started: int) -> None:
        (tmp_path / "stat").write_text(f"cpu  {busy} 0 0 900 900 0 0 900\ncpu0 1 1")
        process(tmp_path, os.getpid(), "mine", own)
        process(tmp_path, 1_000_003, "started", started)

    (tmp_path / f"{os.getpid()}/task/1").mkdir(parents=True)
    (tmp_path / f"{os.getpid()}/task/1/children").write_text("1000003")
    told(100, 10, 10)
    alone, beside = Meter(tmp_path), Meter(tmp_path)
    told(100 + 3_000_000, 10 + 1_000_000, 10 + 2_000_000)
    assert alone.read()["foreign_cores"] == 0 and alone.read()["foreign"] == {}
    told(100 + 8_000_000, 10 + 1_000_000, 10 + 2_000_000)
    assert beside.read()["foreign_cores"] > 0 and beside.read()["foreign"] == {}


@pytest.mark.skipif(busy_seconds() is None, reason="no /proc/stat")
def test_what_this_process_started_and_waited_for_is_its_own() -> None:
    meter, busy = Meter(), busy_seconds()
    spin = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", spin], check=True)
    own, after = meter._own_seconds() - meter._own, busy_seconds()
    assert busy is not None and after is not None and 0.4 <= own <= after - busy + 0.1
