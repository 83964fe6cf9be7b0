"""The README's lines of Python run on a bundle."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from edgerec.runtime.layout import Tower

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_readmes_lines_run(ring: Tower, write: Callable[..., Path]) -> None:
    code = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(code) == 1
    script = code[0].replace("BUNDLE", str(write(ring))).replace("ITEM_ID", "a")
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("[Recommendation(item='b'")
