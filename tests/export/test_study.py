"""A study trains, compresses, exports and ranks; what is there is not made again; its tables say what it found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import pytest

from edgerec.benchmarks.cells import Cell, Cells
from edgerec.benchmarks.evaluate import answers
from edgerec.benchmarks.quality import Subject, diversity, paired, rows, table
from edgerec.data import load
from edgerec.distill.baselines import Popularity, baselines
from edgerec.errors import DataError, UsageError
from edgerec.export import study as module
from edgerec.export.study import Plan, Study, open_study, report, run_study
from edgerec.splits import split


def test_a_study_is_made_once_and_its_shipped_file_knows_the_ring(
    cycle: Path, small_bert: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, said = load(str(cycle)), []
    divided = split(data)
    folder, peer = tmp_path / "study", answers(Popularity(divided), divided)
    arguments = (data, divided, small_bert, folder, said.append, plan)
    first = run_study(open_study(*arguments), [("outside", peer, {"seconds": 1.0})])
    found = {row["name"]: row for row in first["rows"]}
    assert {"ItemKNN", "outside", "teacher", "tiny, shipped", "tiny, re-encoded", "tiny, undistilled"} <= set(found)
    assert found["teacher"]["seeds"] == 2 and len(found["teacher"]["test_ndcg10_by_seed"]) == 2
    assert found["teacher"]["test"]["10"]["ndcg"]["mean"] > 0.9
    assert found["tiny, shipped"]["against_teacher"]["ratio"] == pytest.approx(1, abs=0.05)
    assert found["tiny, shipped"]["facts"][0]["bytes"] == (folder / "seed-0" / "tiny.edgerec").stat().st_size
    assert found["outside"]["test"] == found["popularity"]["test"]
    assert sum(row["best_baseline"] for row in first["rows"]) == 1
    assert {row["name"] for row in first["cold"]} >= {"zero-shot profile", "TF-IDF profile"}
    text = report(first)
    assert "2 seeds" in text and text.count("\n| ") == len(first["rows"]) + len(first["cold"]) + 2
    said.clear()
    for name in ("fine_tune", "distill_checkpoint", "baselines"):
        monkeypatch.delattr(module, name)
    again = run_study(open_study(*arguments), [("outside", peer, {"seconds": 1.0})])
    assert again["rows"] == first["rows"] and again["cold"] == first["cold"] and not said
    with pytest.raises(UsageError, match="holds a study that differs in fingerprint"):
        open_study(replace(data, fingerprint="x"), *arguments[1:])


def test_the_command_goes_on_in_the_folder_and_writes_both_files(
    cycle: Path, small_bert: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from edgerec.cli import group

    made: dict[str, Any] = {}

    def conducted(study: Study, *arguments: Any) -> dict[str, Any]:
        made["plan"] = study.plan
        return run_study(replace(study, plan=replace(plan, seeds=study.plan.seeds)), *arguments)

    monkeypatch.setattr(module, "run_study", conducted)
    options = ["--encoder", small_bert, "--study", tmp_path / "s", "--seeds", 1, "--out", tmp_path / "q.json", "--json"]
    result = CliRunner().invoke(group, ["evaluate", *map(str, [cycle, *options])], catch_exceptions=False)
    assert made["plan"] == Plan(1)
    assert json.loads(result.stdout) == json.loads((tmp_path / "q.json").read_text())
    assert "1 seed. At 10" in (tmp_path / "q.md").read_text()


def test_users_are_averaged_over_seeds_and_compared_in_pairs(cycle: Path) -> None:
    divided = split(load(str(cycle)))
    known = answers(baselines(divided, ["x y"] * 12, None)["ItemKNN"], divided)
    none = known._replace(test=np.full_like(known.test, -1))
    subjects = [Subject("a", "baseline", [known], [{}]), Subject("teacher", "teacher", [known, none], [{}, {}])]
    first, second = rows(subjects, divided, np.eye(12, dtype=np.float32))
    assert second["test"]["10"]["ndcg"]["mean"] == pytest.approx(first["test"]["10"]["ndcg"]["mean"] / 2)
    assert second["against_best_baseline"]["ratio"] == pytest.approx(0.5)
    assert second["test_ndcg10_by_seed"][1] == 0
    assert first["diversity10"] == pytest.approx(1)  # no two items share a direction
    assert "| 50.0% (50.0%, 50.0%) | teacher |" in table([second])


def test_the_interval_of_a_pair_covers_the_truth_and_says_what_could_be_shown() -> None:
    rng = np.random.default_rng(0)
    b = rng.random(4000)
    found = paired(b + 0.1 + 0.2 * rng.normal(size=4000), b)
    assert found["difference_low"] < 0.1 < found["difference_high"]
    assert found["ratio_low"] < 1.2 < found["ratio_high"]
    assert found["detectable"] == pytest.approx(2.8 * 0.2 / np.sqrt(4000), rel=0.05)


def test_a_list_of_equal_items_has_no_diversity() -> None:
    vectors = np.float32([[1, 0], [1, 0], [0, 1]])
    assert diversity(np.int32([[0, 1, -1]]), vectors) == pytest.approx(0)
    assert diversity(np.int32([[0, 1, 2]]), vectors) == pytest.approx(2 / 3)
    assert diversity(np.int32([[0, -1, -1]]), vectors) == 0


def test_a_cell_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    cells = Cells(tmp_path, {"a": 1})
    cells.get("one", lambda: Cell({"x": np.arange(3)}, {"n": 1}))
    stored = cells.get("one", lambda: pytest.fail("it is there"))
    assert stored.arrays["x"].tolist() == [0, 1, 2] and stored.facts == {"n": 1}
    (tmp_path / "cells" / "one.npz").write_bytes(b"no")
    with pytest.raises(DataError, match="cannot be read"):
        cells.get("one", lambda: pytest.fail("it is there"))
