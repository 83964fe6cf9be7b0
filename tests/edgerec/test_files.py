"""Whole or not at all."""

import json
from pathlib import Path

import pytest

from edgerec.files import atomic_path, write_bytes, write_result


def test_an_interrupted_write_keeps_the_old_file_and_leaves_no_temporary(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a") as temporary:
        temporary.write_bytes(b"ne")
        raise KeyboardInterrupt
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_result_keeps_numbers_on_a_line_and_all_else_as_it_was(tmp_path: Path) -> None:
    result = {
        "ms": [0.5, -1e-07, 3],
        "kept": "[\n  1,\n  2\n]",
        "none": [],
        "mixed": [1, None],
        "deep": [[1], ["a  b"]],
    }
    write_result(tmp_path / "result.json", result, "report\n")
    written = (tmp_path / "result.json").read_text()
    assert json.loads(written) == result and '"ms": [0.5, -1e-07, 3],\n' in written
    assert (tmp_path / "result.md").read_text() == "report\n"
