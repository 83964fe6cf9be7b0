"""The README's numbers are those of the committed result, and its tree is the tree."""

from __future__ import annotations

import json
import re
from pathlib import Path

from edgerec.benchmarks.evaluate import table
from edgerec.export.demo import latency_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_is_what_the_committed_result_prints() -> None:
    report = json.loads((ROOT / "benchmarks/results/demo-ml-100k.json").read_text())
    assert table(report["rows"]) in README
    assert latency_table(report["latency"]) in README
    assert f"{report['bundle']['bytes'] / 1e6:.2f} MB" in README


def test_every_file_that_the_tree_names_is_there() -> None:
    tree = README.split("## Where things are")[1]
    for name in re.findall(r"\b([a-z_]+\.(?:py|toml|md))\b", tree):
        assert list(ROOT.glob(name)) or list(ROOT.glob(f"*/{name}")), name
