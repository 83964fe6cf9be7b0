"""Energy: Jetson's sensors, RAPL, NVML. A sensor that is not there gives None and the reason, never 0.

Jetson    INA3221 and INA238 in sysfs (JetPack 5 and later, and the older layout of JetPack 4), else ``tegrastats``
RAPL      energy counters of Intel and AMD processors, which wrap around
NVML      discrete NVIDIA GPUs, through ``pynvml`` where it is installed; on Tegra it knows no power

Rails of a Jetson overlap the board's total, so they are never added to it. What an inference costs is the energy above
the idle baseline, over the samples answered meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgerec.benchmarks import tegrastats
from edgerec.benchmarks.machine import SYS, number, text

PERIOD = 0.1  # seconds between two samples, where no sensor asks for more
MILLI, MICRO = 1e-3, 1e-6


@dataclass(frozen=True)
class Sensor:
    """Something whose power or energy can be read.

    Attributes:
        rail: Its name.
        watts: Reads power, or None for a counter.
        joules: Reads a counter's energy since any moment, or None.
        wraps: Where the counter starts again, in joules.
        period: Seconds between two samples that make sense.
    """

    rail: str
    watts: Callable[[], float | None] | None = None
    joules: Callable[[], float | None] | None = None
    wraps: float | None = None
    period: float = PERIOD


def rails(sys: Path = SYS) -> dict[str, Sensor]:
    """Return a Jetson's rails by name, from sysfs."""
    found = {}
    for label in sorted(sys.glob("bus/i2c/drivers/ina*/*/hwmon/hwmon*/in*_label")):
        place, home = label.name.removeprefix("in").removesuffix("_label"), label.parent
        name = text(label)
        if name and (home / f"curr{place}_input").exists():
            period = max(PERIOD, (number(home / "update_interval") or 0) * MILLI)
            found[name] = Sensor(name, volts_times_amperes(home, place), period=period)
    for label in sorted(sys.glob("bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*")):  # JetPack 4
        place, name = label.name.rpartition("_")[2], text(label)
        if name:
            found[name] = Sensor(name, partial(number, label.with_name(f"in_power{place}_input"), MILLI))
    return found


def volts_times_amperes(home: Path, place: str) -> Callable[[], float | None]:
    """Return a reader of watts from millivolts and milliamperes."""

    def watts() -> float | None:
        volts, amperes = (number(home / f"{kind}{place}_input", MILLI) for kind in ("in", "curr"))
        return None if volts is None or amperes is None else volts * amperes

    return watts


def board(found: Mapping[str, Sensor]) -> Sensor | None:
    """Return the sensor of the whole board: its total rail, or on AGX Orin the sum of the rails that make it up."""
    if not (names := tegrastats.whole_board(found)):
        return None
    parts = [found[name] for name in names]

    def watts() -> float | None:
        read = [part.watts() if part.watts else None for part in parts]
        return None if None in read else sum(value for value in read if value is not None)

    return Sensor(" + ".join(names), watts, period=max(part.period for part in parts))


def rapl(sys: Path = SYS) -> Sensor | None:
    """Return the counter of the first processor package, or None; the kernel lets root alone read it."""
    homes = [home for home in sorted(sys.glob("class/powercap/*-rapl:[0-9]*")) if home.name.count(":") == 1]
    homes = [home for home in homes if number(home / "energy_uj") is not None]
    if not homes:
        return None
    # counters wrap one by one, so they cannot be added up first: one package stands for itself, and says so
    name = text(homes[0] / "name") or homes[0].name
    rail = name if len(homes) == 1 else f"{name}, one of {len(homes)} packages"
    wraps = number(homes[0] / "max_energy_range_uj", MICRO)
    return Sensor(rail, joules=lambda: number(homes[0] / "energy_uj", MICRO), wraps=wraps)


def nvml() -> Sensor | None:
    """Return the first discrete GPU's power, or None."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        pynvml.nvmlDeviceGetPowerUsage(handle)
    except Exception:  # not installed, no driver, no device, or a Tegra: pynvml's errors are its own
        return None
    return Sensor("GPU 0", lambda: pynvml.nvmlDeviceGetPowerUsage(handle) * MILLI)


def find(gpu: bool = False, sys: Path = SYS) -> tuple[Sensor | None, str | None]:
    """Return the sensor that stands for what is measured, or None and why there is none."""
    if (total := board(rails(sys))) is not None:
        return total, None
    if (stream := tegrastats.stream()) is not None:
        return Sensor(f"{stream.rail}, tegrastats", stream.watts), None
    if gpu:
        return (found, None) if (found := nvml()) else (None, "no NVML power sensor")
    if (counter := rapl(sys)) is not None:
        return counter, None
    return None, "no INA3221, INA238, tegrastats or readable RAPL sensor on this machine"


def wrapped(before: float, after: float, wraps: float | None) -> float:
    """Return what a counter rose by, across one wrap-around."""
    return after - before if after >= before or wraps is None else after - before + wraps


class Meter:
    """Integrates a sensor in a thread: ``start``, then ``stop``.

    Args:
        sensor: What is read.
        clock: Seconds; for tests.
    """

    def __init__(self, sensor: Sensor, clock: Callable[[], float] = time.monotonic) -> None:
        self._sensor, self._clock, self._over = sensor, clock, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.joules, self.seconds, self.samples, self.lost = 0.0, 0.0, 0, 0
        self._last: tuple[float, float] | None = None

    def start(self) -> None:
        """Begin."""
        self.sample()
        self._thread.start()

    def stop(self) -> None:
        """End, with a last sample."""
        self._over.set()
        self._thread.join()
        self.sample()

    def _watch(self) -> None:
        while not self._over.wait(self._sensor.period):
            self.sample()

    def sample(self) -> None:
        """Read once; power counts by the trapezoidal rule, a counter by its rise."""
        read = self._sensor.joules or self._sensor.watts
        value, now = read() if read else None, self._clock()
        if value is None:  # a missed reading: the next one spans the gap
            self.lost += 1
            return
        if self._last is not None:
            before, then = self._last
            counter = self._sensor.joules is not None
            self.joules += (
                wrapped(before, value, self._sensor.wraps) if counter else (before + value) / 2 * (now - then)
            )
            self.seconds += now - then
        self._last, self.samples = (value, now), self.samples + 1


def watts_of(meter: Meter) -> float | None:
    """Return the mean power that a meter saw, or None where it saw less than two readings."""
    return meter.joules / meter.seconds if meter.samples > 1 and meter.seconds > 0 else None


def idle(sensor: Sensor, seconds: float = 2.0) -> float | None:
    """Return the mean power while nothing of ours runs."""
    meter = Meter(sensor)
    meter.start()
    time.sleep(seconds)
    meter.stop()
    return watts_of(meter)


def energy(sensor: Sensor, meter: Meter, baseline: float | None, samples: int) -> dict[str, Any]:
    """Return gross and net energy: net is above the idle baseline, per answered sample."""
    gross = watts_of(meter)
    net = None if gross is None or baseline is None else max(gross - baseline, 0.0)
    return {
        "rail": sensor.rail,
        "period_s": sensor.period,
        "readings": meter.samples,
        "lost": meter.lost,
        "idle_watts": baseline,
        "gross_watts": gross,
        "net_joules_per_sample": None if net is None or not samples else net * meter.seconds / samples,
        "reason": None if gross is not None else f"{meter.samples} readings of {sensor.rail}; expected two or more",
    }


def nothing(reason: str | None) -> dict[str, Any]:
    """Return the energy of a run without a sensor."""
    return {"rail": None, "net_joules_per_sample": None, "reason": reason}
