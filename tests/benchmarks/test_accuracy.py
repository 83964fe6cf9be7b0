"""What a measured subject's answers to texts are set against, and what a measured file or folder is."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgerec.benchmarks.accuracy import accuracy_rows, closeness, file_facts, reference_of


def row(subject: str, model: str | None, device: str, answers: list[Any], kind: str = "encode") -> dict[str, Any]:
    return {"subject": subject, "model": model, "device": device, "kind": kind, "answers": answers}


SHIPPED = row("tiny, cpu-ort", "tiny", "cpu-ort", [[1.0, 0.0], [0.6, 0.8]])
OTHER = row("static, cpu-ort", "static", "cpu-ort", [[0.0, 1.0], [1.0, 0.0]])
TORCH = row("tiny, torch", "tiny", "cpu-torch", [[2.0, 0.0], [0.8, 0.6]])
LONGER = [row(name, None, "peer", [[1.0, 0.0, 0.0]]) for name in ("MiniLM", "MiniLM INT8")]
ALL = [row("empty", None, "harness", [[1.0, 0.0]]), SHIPPED, OTHER, TORCH, *LONGER]


def test_cosines_are_of_directions() -> None:
    assert closeness(SHIPPED["answers"], TORCH["answers"]) == pytest.approx({"mean": 0.98, "least": 0.96})
    assert closeness([[0.0, 0.0]], [[1.0, 0.0]]) == {"mean": 0, "least": 0}


@pytest.mark.parametrize(
    ("of", "against"), [(SHIPPED, TORCH), (TORCH, None), (OTHER, SHIPPED), (LONGER[0], None), (LONGER[1], LONGER[0])]
)
def test_a_file_is_set_against_torch_with_its_model_or_the_first_of_as_many_numbers(of: Any, against: Any) -> None:
    assert reference_of(of, ALL) is against


def test_a_row_says_what_it_was_set_against() -> None:
    searched = [row(name, None, "peer", [["a", "b"]], "search") for name in ("first", "second")]
    failed = {"subject": "gone", "model": None, "device": "peer", "kind": "encode", "status": "failed"}
    rows = {one["subject"]: one for one in accuracy_rows([*ALL, *searched, failed], {}, {}, {}, None)}
    shipped, second = rows["tiny, cpu-ort"], rows["second"]
    assert shipped["cosine_with"] == "tiny, torch" and shipped["cosine"]["mean"] == pytest.approx(0.98)
    assert (second["overlap10"], second["overlap_with"], second["cosine"]) == (1, "first", None)
    assert [rows[name]["cosine"] for name in ("empty", "tiny, torch", "gone")] == [None] * 3


def test_a_folder_has_the_sum_of_what_sha256sum_prints(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two").write_bytes(b"22")
    (tmp_path / "one").write_bytes(b"1")
    printed = subprocess.run(["sha256sum", "b/two", "one"], cwd=tmp_path, capture_output=True, check=True).stdout
    assert file_facts(tmp_path) == {"sha256": hashlib.sha256(printed).hexdigest(), "bytes": 3}
    assert file_facts(tmp_path / "one")["sha256"] == hashlib.sha256(b"1").hexdigest()
    assert file_facts(tmp_path / "nothing") == file_facts(None) == {"sha256": None, "bytes": None}
