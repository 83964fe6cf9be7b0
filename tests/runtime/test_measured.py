"""A bundle measured by ``edgerec bench run``, end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from edgerec.benchmarks.accuracy import reference_answers
from edgerec.benchmarks.bench_commands import bench
from edgerec.benchmarks.schema import faults
from edgerec.runtime.layout import Tower

PLANTED = Path(__file__).parents[1] / "benchmarks" / "planted.py"


def test_a_bundle_is_measured_end_to_end(ring: Tower, write: Callable[..., Path], tmp_path: Path) -> None:
    bundle, out = write(ring), tmp_path / "out.json"
    options = ["--seconds", "0.01", "--count", "20", "--rounds", "1", "--cold", "1", "--out", str(out), "--json"]
    peers = ["--peer", f"broken=:{PLANTED}:Raises:recommend", "--device", "cpu-ort", "--device", "tensorrt"]
    kinds = [word for kind in ("recommend", "session", "search") for word in ("--kind", kind)]
    said = CliRunner().invoke(bench, ["run", str(bundle), *options, *peers, *kinds])
    assert said.exit_code == 1, said.output  # the broken peer
    found = json.loads(said.stdout.splitlines()[-1])
    assert found == json.loads(out.read_text()) and list(faults(found)) == []
    status = {(row["subject"], row["kind"]): row["status"] for row in found["cells"]}
    assert status["broken", "recommend"] == "failed" and status["test, tensorrt", "session"] == "not measured"
    mine = [row for row in found["accuracy"] if row["device"] == "cpu-ort"]
    assert all(row["goldens"]["passes"] for row in mine)
    assert [row["overlap10"] for row in mine] == [1, 1, None]  # a search is set against other subjects alone
    audits = [row["test01"]["passes"] for row in found["audits"] if row["device"] == "cpu-ort"]
    assert audits == [True] * 3
    stages = next(row for row in found["cold"] if row["device"] == "cpu-ort")["stages_ms"]
    assert list(stages) == ["process", "import", "open", "session", "first result"]


def test_the_reference_follows_the_ring(ring: Tower, write: Callable[..., Path]) -> None:
    assert reference_answers(write(ring), [["a"], ["h"]])[0][0] == "b"
