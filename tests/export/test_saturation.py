"""What multiplies bytes is told by CPU, and what the linter refuses is what saturates on one without VNNI."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import numpy as np
from click.testing import CliRunner

import pytest

from edgerec.benchmarks.documents import RESULTS
from edgerec.benchmarks.environment import has_vnni, read_cpuinfo
from edgerec.errors import EdgerecError
from edgerec.export.rounded_graph import saturates
from edgerec.export.saturation import LARGEST, LENGTH, elsewhere, main, named, product, sums, table
from edgerec.export.tensorrt_ladder import OnnxRuntimeRunner

EXACT = 64 * 255 * 127
ACCOUNT = {"has_vnni": False, "sum": 7, "exact_sum": 9, "rows": [{"graph": "g", "linter": True, "fault": "other"}]}


def printing(text: str) -> str:
    """Return a command that prints a text, whatever follows."""
    return shlex.join([sys.executable, "-c", f"print({text!r})"])


def test_full_range_weights_are_known_to_saturate_and_those_of_seven_bits_not() -> None:
    assert saturates(product(127)) and saturates(product(-128))
    assert not saturates(product(64))
    assert sums(product(64)) == 64 * 255 * 64  # on any CPU


def test_full_range_weights_do_saturate_on_a_cpu_without_vnni() -> None:
    found = sums(product(127))
    if has_vnni(read_cpuinfo()) is not False or found == EXACT:
        pytest.skip(f"this CPU does not saturate: it sums {found}, exactly {EXACT}")
    assert found < EXACT


def test_a_kits_graph_is_answered_without_saturation_on_any_cpu() -> None:
    runner = OnnxRuntimeRunner(product(127), "CPUExecutionProvider")
    assert runner.run({"x": np.full((1, LENGTH), LARGEST, np.uint8)})["y"][0, 0] == EXACT


def test_every_graph_is_told_of_and_another_cpu_has_its_own_rows(
    cycle: Path, untrained: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "saturation.json"
    commands = ["--elsewhere", printing("a warning\n" + json.dumps(ACCOUNT))]
    done = CliRunner().invoke(main, [str(untrained[1]), str(cycle), "--out", str(out), *commands])
    assert done.exit_code == 0, done.output
    own, other = json.loads(out.read_text("utf-8"))["cpus"]
    assert [row["linter"] for row in own["rows"]] == [False, False, True]
    assert {**other, "cpu": None} == {"cpu": None, **ACCOUNT}
    assert own["exact_sum"] == EXACT
    assert "| 7 of 9 | g | may saturate | other |" in out.with_suffix(".md").read_text("utf-8")


def test_a_cpu_that_gives_no_account_is_one_line() -> None:
    with pytest.raises(EdgerecError, match=r"exited with 3 \(it said nothing\); expected a Python with"):
        elsewhere(shlex.join([sys.executable, "-c", "raise SystemExit(3)"]), Path("model"), "data")
    assert named("/somewhere/qemu-x86_64 -cpu Haswell python") == "qemu-x86_64 -cpu Haswell"


def test_on_an_emulated_cpu_without_vnni_the_choice_ranks_the_same_and_the_refused_one_does_not() -> None:
    result = json.loads((RESULTS / "saturation-ml-100k.json").read_text("utf-8"))
    assert (RESULTS / "saturation-ml-100k.md").read_text("utf-8") == table(result["cpus"])
    (old,) = (cpu for cpu in result["cpus"] if cpu["has_vnni"] is False)
    assert old["sum"] < old["exact_sum"]
    for row in old["rows"]:
        assert row["linter"] == (row["fault"] is not None)
