"""One student, several engines: each is written whole, or not at all where it does not answer as torch does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgerec.data import load as load_data
from edgerec.distill import checkpoint
from edgerec.distill.compress import distill_checkpoint
from edgerec.distill.options import TrainOptions
from edgerec.distill.teacher import TeacherOptions, fine_tune
from edgerec.distill.towers import TowerConfig
from edgerec.errors import ParityError, UsageError
from edgerec.export import TARGETS, mobile
from edgerec.export.targets import WRITERS, compile_for
from edgerec.runtime import Recommender
from edgerec.splits import split

TABLES = {"ids.offsets", "ids.utf8", "titles.offsets", "titles.utf8", "tokenizer.json", "model.json"}


@pytest.fixture
def student(small_bert: Path, cycle: Path, tmp_path: Path) -> checkpoint.Checkpoint:
    data = load_data(str(cycle))
    divided, short = split(data), TrainOptions(steps=30, batch_size=8, evaluate_every=30, learning_rate=0.05)
    towers = TowerConfig(8)
    fine_tune(data, divided, small_bert, TeacherOptions(towers, "separate", short), tmp_path / "teacher")
    sizes = {"layers": 1, "hidden": 8, "heads": 2, "intermediate": 16}
    teacher = checkpoint.load(tmp_path / "teacher")
    distill_checkpoint(teacher, data, divided, "tiny", TrainOptions(steps=5), tmp_path / "student", sizes=sizes)
    return checkpoint.load(tmp_path / "student")


def test_every_target_is_written_and_answers_as_torch_does(student: checkpoint.Checkpoint, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    reports = compile_for(student, TARGETS, "fp32", tmp_path / "out")
    assert list(reports) == list(WRITERS)
    for name, files in {
        "openvino": {"recommender.xml", "recommender.bin", "item_encoder.xml", "item_encoder.bin", *TABLES},
        "ort": {"recommender.ort", "item_encoder.ort", mobile.OPERATORS, "README.md", *TABLES},
        "web": {"model.edgerec", "web.json"},
    }.items():
        assert set(reports[name]["files"]) == files
        assert {path.name for path in Path(reports[name]["path"]).iterdir()} == files
    for name in ("openvino", "ort"):
        assert reports[name]["parity"]["overlap"] >= 0.97
        assert reports[name]["parity"]["largest_text_distance"] < 1e-4
    assert Recommender.load(reports["onnx"]["path"]).recommend(["i3"], k=1)[0].item == "i4"


def test_a_corrupted_graph_fails_and_leaves_nothing(
    student: checkpoint.Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mobile.unpack

    def corrupted(prepared: Any, folder: Path) -> Any:
        model = whole(prepared, folder)
        table = folder / "item_out.i8"
        table.write_bytes(bytes(reversed(table.read_bytes())))
        return model

    monkeypatch.setattr(mobile, "unpack", corrupted)
    with pytest.raises(ParityError, match="overlap"):
        compile_for(student, ["ort"], "fp32", tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_defaults_become_inputs(student: checkpoint.Checkpoint) -> None:
    from edgerec.export.engines import required_inputs
    from edgerec.export.package import draft
    from edgerec.export.recommender_graph import recommender_graph

    graph = recommender_graph(draft(student).rounded)
    names = {value.name for value in graph.graph.input}
    changed = required_inputs(graph)
    assert {"k", "exclude", "score_offset"} <= names
    assert not names & {tensor.name for tensor in changed.graph.initializer}
    assert names & {tensor.name for tensor in graph.graph.initializer}  # the given one stays as it is
    assert [value.name for value in changed.graph.input] == [value.name for value in graph.graph.input]


def test_targets_twice_none_or_a_folder_in_use_are_refused(student: checkpoint.Checkpoint, tmp_path: Path) -> None:
    for targets in ([], ["ort", "ort"]):
        with pytest.raises(UsageError, match="each once"):
            compile_for(student, targets, "fp32", tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").write_text("keep")
    with pytest.raises(UsageError, match="exists already"):
        compile_for(student, ["web"], "fp32", tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["note"]
