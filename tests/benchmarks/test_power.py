"""Power readers on made-up trees and lines, in the shapes that JetPack 4 to 7.2 print."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgerec.benchmarks import power
from edgerec.benchmarks.power import Meter, Sensor, board, energy, find, rails, rapl, watts_of, wrapped
from edgerec.benchmarks.tegrastats import parse, stream

NANO = (
    "RAM 1900/3956MB (lfb 3x4MB) SWAP 0/1978MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU [7%@1479,off,off,3%@1479] "
    "EMC_FREQ 0%@1600 GR3D_FREQ 0%@76 APE 25 PLL@31C CPU@33.5C PMIC@100C GPU@31C AO@38C thermal@32.25C "
    "POM_5V_IN 1790/1640 POM_5V_GPU 0/40 POM_5V_CPU 198/160"
)
NANO_BARE = "RAM 1900/3956MB (lfb 3x4MB) CPU [0%,off] GR3D_FREQ 12% PLL@31C POM_5V_IN 2010/2010"
ORIN_NANO = (
    "12-24-2025 08:00:01 RAM 2500/7620MB (lfb 3x2MB) SWAP 12/3810MB (cached 5MB) "
    "CPU [11%@729,0%@729,off,off,0%@806,2%@806] EMC_FREQ 4%@2133 GR3D_FREQ 37%@[305] NVDEC off VIC off OFA off "
    "APE 200 cpu@46.5C soc2@45C cv0@-256C gpu@44C tj@46.5C VDD_IN 5712mW/5650mW "
    "VDD_CPU_GPU_CV 840mW/830mW VDD_SOC 1440mW/1430mW"
)
AGX_ORIN = (
    "RAM 5000/30592MB (lfb 1x4MB) CPU [1%@1190,off] EMC_FREQ 1%@2133 GR3D_FREQ 99%@[1300,1300] CPU@50C Tboard@40C "
    "VDD_GPU_SOC 3000mW/2900mW VDD_CPU_CV 800mW/800mW VIN_SYS_5V0 2500mW/2400mW VDDQ_VDD2_1V8AO 400mW/400mW"
)
THOR = (
    "RAM 4000/125772MB (lfb 2x4MB) CPU [0%@972,1%@972] GR3D_FREQ @[314,314,314] NEW_ENGINE 3x@what cpu@34.3C/34.9C "
    "tj@35C/36.1C VDD_GPU 4900mW/4910mW/4950mW VDD_CPU_SOC_MSS 6000mW/6000mW/6100mW VIN_SYS_5V0 6700mW/6717mW/6770mW "
    "VIN 21000mW/20900mW/21500mW"
)


@pytest.mark.parametrize(
    ("line", "watts", "gpu", "cpu"),
    [
        (NANO, {"POM_5V_IN": 1.79, "POM_5V_GPU": 0.0, "POM_5V_CPU": 0.198}, (0, [76]),
         [(7, 1479), None, None, (3, 1479)]),
        (NANO_BARE, {"POM_5V_IN": 2.01}, (12, []), [(0, None), None]),
        (ORIN_NANO, {"VDD_IN": 5.712, "VDD_CPU_GPU_CV": 0.84, "VDD_SOC": 1.44}, (37, [305]), None),
        (AGX_ORIN, dict(zip(("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"), (3.0, 0.8, 2.5, 0.4),
                            strict=True)), (99, [1300, 1300]), [(1, 1190), None]),
        (THOR, {"VDD_GPU": 4.9, "VDD_CPU_SOC_MSS": 6.0, "VIN_SYS_5V0": 6.7, "VIN": 21.0}, (None, [314, 314, 314]),
         None),
    ],
    ids=["JetPack 4", "JetPack 4, bare", "JetPack 6", "AGX Orin", "JetPack 7.2"],
)  # fmt: skip
def test_a_line_of_every_shape(line: str, watts: Any, gpu: Any, cpu: Any) -> None:
    found = parse(line)
    assert found["watts"] == watts and found["gpu"] == gpu
    assert cpu is None or found["cpu"] == cpu


def test_a_line_leaves_out_what_is_no_reading() -> None:
    found = parse(ORIN_NANO)
    assert found["temperature_c"] == {"cpu": 46.5, "soc2": 45.0, "gpu": 44.0, "tj": 46.5}
    assert (found["ram_mb"], found["swap_mb"], found["emc"]) == ((2500, 7620), (12, 3810), (4, [2133]))
    assert parse(THOR)["temperature_c"] == {"cpu": 34.3, "tj": 35.0}
    assert parse("what is this")["watts"] == {} and parse("")["ram_mb"] is None


def write(home: Path, **values: Any) -> None:
    home.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (home / name).write_text(f"{value}\n")


def test_an_orin_nanos_total_is_one_rail(tmp_path: Path) -> None:
    home = tmp_path / "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    write(home, in1_label="VDD_IN", in1_input=5000, curr1_input=1200, update_interval=250)
    write(home, in2_label="VDD_SOC", in2_input=5000, curr2_input=300, in7_label="sum of shunt voltages")
    found = rails(tmp_path)
    total = board(found)
    assert total and total.watts and (total.rail, total.watts(), total.period) == ("VDD_IN", 6.0, 0.25)
    assert {name: one.watts() for name, one in found.items() if one.watts} == {"VDD_IN": 6.0, "VDD_SOC": 1.5}


def test_an_agx_orins_total_is_a_sum_that_says_so(tmp_path: Path) -> None:
    home = tmp_path / "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    for place, name in enumerate(("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), 1):
        values = {f"in{place}_label": name, f"in{place}_input": 10_000, f"curr{place}_input": 100 * place}
        write(home, **values)
    total = board(rails(tmp_path))
    assert total and total.watts and total.rail == "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"
    assert total.watts() == pytest.approx(6.0)
    (home / "curr2_input").unlink()
    assert board(rails(tmp_path)) is None and total.watts() is None


def test_jetpack_4_and_thor_have_other_trees(tmp_path: Path) -> None:
    write(tmp_path / "a/bus/i2c/drivers/ina3221x/6-0040/iio:device0", rail_name_0="POM_5V_IN", in_power0_input=1800)
    write(
        tmp_path / "b/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon2", in1_label="VIN", in1_input=20_000, curr1_input=1000
    )
    totals = [board(rails(tmp_path / one)) for one in "ab"]
    assert [(one.rail, one.watts()) for one in totals if one and one.watts] == [("POM_5V_IN", 1.8), ("VIN", 20.0)]


def test_no_sensor_is_a_reason(tmp_path: Path) -> None:
    sensor, reason = find(sys=tmp_path)
    assert sensor is None and reason and "RAPL" in reason


def test_a_counter_wraps_around(tmp_path: Path) -> None:
    home = tmp_path / "class/powercap/intel-rapl:0"
    write(home, name="package-0", energy_uj=9_000_000, max_energy_range_uj=10_000_000)
    write(tmp_path / "class/powercap/intel-rapl:0:0", name="core", energy_uj=1)
    sensor = rapl(tmp_path)
    assert sensor and sensor.rail == "package-0"
    times = iter([0.0, 1.0, 2.0])
    meter = Meter(sensor, lambda: next(times))
    for value in (9_000_000, 500_000, 2_000_000):
        write(home, energy_uj=value)
        meter.sample()
    assert meter.joules == pytest.approx(3.0) and watts_of(meter) == pytest.approx(1.5)
    assert wrapped(1, 5, None) == 4


def test_net_energy_is_above_idle_and_a_gap_is_spanned() -> None:
    watts, times = iter([5.0, None, 7.0]), iter([0.0, 1.0, 2.0])
    sensor = Sensor("VDD_IN", lambda: next(watts))
    meter = Meter(sensor, lambda: next(times))
    for _ in range(3):
        meter.sample()
    found = energy(sensor, meter, baseline=4.0, samples=100)
    assert (found["gross_watts"], found["lost"]) == (6.0, 1)
    assert found["net_joules_per_sample"] == pytest.approx(2.0 * 2 / 100)
    assert energy(sensor, meter, None, 100)["net_joules_per_sample"] is None


def test_a_sensor_that_goes_silent_gives_none() -> None:
    sensor = Sensor("VDD_IN", lambda: None)
    meter = Meter(sensor)
    meter.start()
    meter.stop()
    found = energy(sensor, meter, 1.0, 10)
    assert found["gross_watts"] is None and found["net_joules_per_sample"] is None and "0 readings" in found["reason"]


def test_tegrastats_is_followed_where_sysfs_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "tegrastats"
    tool.write_text(f"#!/bin/sh\nwhile echo '{ORIN_NANO}'; do sleep 0.05; done\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = stream()
    assert found and (found.rail, found.watts()) == ("VDD_IN", 5.712)
    found.close()
    assert found.watts() is None
    tool.write_text(f"#!/bin/sh\nwhile echo '{AGX_ORIN}'; do sleep 0.05; done\n")
    found = stream()
    assert found and (found.rail, found.watts()) == ("VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0", pytest.approx(6.3))
    found.close()
    tool.write_text("#!/bin/sh\necho RAM 1/2MB\n")
    assert stream() is None


def test_a_discrete_gpu_is_read_through_nvml_where_it_knows_its_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(handle: str) -> int:
        assert handle == "the first"
        return 75_500  # milliwatts

    driver = ModuleType("pynvml")
    driver.__dict__.update(nvmlInit=lambda: None, nvmlDeviceGetHandleByIndex=lambda place: "the first")
    driver.__dict__["nvmlDeviceGetPowerUsage"] = usage
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    sensor, reason = power.find(gpu=True, sys=tmp_path)
    assert sensor and sensor.watts and reason is None
    assert sensor.rail == "GPU 0" and sensor.watts() == pytest.approx(75.5)

    def unsupported(handle: str) -> int:
        raise RuntimeError("Not Supported")  # as on Tegra

    driver.__dict__["nvmlDeviceGetPowerUsage"] = unsupported
    assert power.find(gpu=True, sys=tmp_path) == (None, "no NVML power sensor")
