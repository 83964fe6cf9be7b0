"""The examples of docs/runtime.md run, in order, on a small shop."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from edgerec.runtime.catalogue import optional_members
from edgerec.runtime.layout import Tower

DOCUMENT = (Path(__file__).parents[2] / "docs" / "runtime.md").read_text(encoding="utf-8")


def test_the_examples_run(ring: Tower, write: Callable[..., Path], tmp_path: Path) -> None:
    columns = {"year": [1990, 1990, 1994, 2001, 1970, 1995, None, 1980], "color": [["red"], [], [], ["red"], *"blue"]}
    path = write(ring, lambda members, model: members.update(optional_members(ring.titles, columns)))
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    assert len(blocks) == 16
    script = "\n".join(blocks).replace("BUNDLE", str(path)).replace("OVERLAY", str(tmp_path / "shop.overlay"))
    exec(compile(script, "docs/runtime.md", "exec"), {})
