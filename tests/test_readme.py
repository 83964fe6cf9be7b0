"""The README's code runs, and its numbers are those of the committed result."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from edgerec.benchmarks.evaluate import table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_lines_run(cycle: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(code) == 1
    script = code[0].replace("FOLDER", str(cycle))
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("[[")


def test_the_table_is_what_the_committed_result_prints() -> None:
    rows = json.loads((ROOT / "benchmarks/results/baselines-ml-100k.json").read_text())["rows"]
    assert table(rows) in README


def test_every_file_that_the_tree_names_is_there() -> None:
    tree = README.split("## Where things are")[1]
    for name in re.findall(r"\b([a-z_]+\.(?:py|toml|md))\b", tree):
        assert list(ROOT.glob(name)) or list(ROOT.glob(f"*/{name}")), name
