"""Cells, and what becomes of those that misbehave."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import pytest

from edgerec.benchmarks import adapters, worker
from edgerec.benchmarks.devices import peer
from edgerec.benchmarks.harness import Bench, Settings, Target, measure, same
from edgerec.benchmarks.processes import Limits, perform
from edgerec.benchmarks.scenarios import Watch
from edgerec.benchmarks.worker import plain, repeats
from edgerec.errors import UsageError

PLANTED = Path(__file__).with_name("planted.py")
INPUTS = {kind: [[f"{n}", f"{n + 1}", "a"] for n in range(20)] for kind in adapters.KINDS}
QUICK = {"seconds": 0.01, "count": 30, "warmup": 1}


def target(name: str, **options: Any) -> Target:
    return Target(name, "peer", f"{PLANTED}:{name}", ("recommend",), options)


def ran(folder: Path, targets: Sequence[Target], plan: dict[str, Any] = QUICK, limits: Limits | None = None) -> Any:
    settings = Settings(("single-stream",), plan, 1, 0, limits or Limits(60, 1000))
    return measure(targets, Bench(INPUTS, folder, settings, lambda line: None))


def test_a_cell_that_fails_is_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    found = ran(tmp_path, [target("Raises"), target("Dies"), target("Missing"), target("Honest")])
    rows = {row["subject"]: row for row in found["cells"]}
    assert rows["Raises"]["reason"] == "KeyError: 'no such thing'"
    assert "ended with code 7" in rows["Dies"]["reason"]
    assert "planted.py:Missing cannot be used" in rows["Missing"]["reason"]
    assert {row["status"] for name, row in rows.items() if name != "Honest"} == {"failed"}
    assert rows["Honest"]["status"] == "measured" and rows["Honest"]["latency_ms"]["n"] >= 30


@pytest.mark.parametrize(
    ("name", "limits", "reason"),
    [
        ("Hangs", (1.5, 1000), "took longer than 1.5 s"),
        ("Silent", (1.5, 1000), "took longer than 1.5 s"),
        ("Leaks", (60, 200), "MB; the limit is 200 MB"),
        ("LeaksInAChild", (60, 200), "MB; the limit is 200 MB"),
    ],
)
def test_a_subject_that_takes_too_much_is_ended(tmp_path: Path, name: str, limits: Any, reason: str) -> None:
    found = ran(tmp_path, [target(name)], limits=Limits(*limits))
    assert found["cells"][0]["status"] == "failed"
    assert reason in found["cells"][0]["reason"]


def test_what_a_subject_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    found = ran(tmp_path, [target("Orphans")], {"seconds": 0.01, "count": 3}, Limits(15, 1000))
    assert found["cells"][0]["status"] == "measured"  # though what holds its output open lives for longer


def test_what_is_no_answer_fails_its_cell_alone(tmp_path: Path) -> None:
    rows = {row["subject"]: row for row in ran(tmp_path, [target("Babbles"), target("Honest")])["cells"]}
    assert "expected a list of item ids" in rows["Babbles"]["reason"] and rows["Honest"]["status"] == "measured"


@pytest.mark.parametrize(("answer", "fault"), [([1.0, float("nan")], "finite"), ([[1.0]], r"shape \(1, 1\)")])
def test_a_vector_is_flat_and_finite(answer: Any, fault: str) -> None:
    assert plain(np.float32([0.5, 1]), "encode") == [0.5, 1.0]
    with pytest.raises(UsageError, match=fault):
        plain(answer, "encode")


def test_a_subject_that_remembers_is_caught_in_a_process_of_its_own(tmp_path: Path) -> None:
    audits = {row["subject"]: row["test04"] for row in ran(tmp_path, [target("Remembers"), target("Honest")])["audits"]}
    assert audits["Remembers"]["status"] == "measured" and not audits["Remembers"]["passes"]


def test_each_round_visits_every_cell_once_in_an_order_drawn_anew(tmp_path: Path) -> None:
    said = list[str]()
    settings = Settings(("single-stream",), {"seconds": 0.001, "count": 2, "warmup": 0}, 4, 0, Limits(60, 1000))
    names = ["a", "b", "c"]
    targets = [replace(target("Honest"), name=name) for name in names]
    measure(targets, Bench(INPUTS, tmp_path, settings, said.append))
    order = [line.split()[1].rstrip(",") for line in said if line.startswith("run ")]
    rounds = [order[start : start + 3] for start in range(0, 12, 3)]
    assert all(sorted(one) == names for one in rounds) and len({*map(tuple, rounds)}) > 1


def test_a_run_of_no_duration_is_a_failure_of_its_cell(tmp_path: Path) -> None:
    cell = ran(tmp_path, [target("Honest")], {"seconds": 0.0})["cells"][0]
    assert cell["status"] == "failed" and "got seconds = 0.0; expected above 0" in cell["reason"]


def test_every_timed_run_is_a_cold_start_and_more_are_made_where_more_are_asked_for(tmp_path: Path) -> None:
    said = list[str]()
    settings = Settings(("single-stream",), QUICK, 2, 3, Limits(60, 1000))
    found = measure([target("Honest"), target("Raises")], Bench(INPUTS, tmp_path, settings, said.append))
    honest, raises = found["cold"]
    assert len(honest["all_ms"]) == 3 and list(honest["stages_ms"]) == ["process", "prepare", "first result"]
    assert raises["status"] == "failed" and [line.split()[0] for line in said].count("cold") == 1
    assert not any("cold" in run for cell in found["cells"] for run in cell["runs"])


def test_too_few_inputs_are_answered_and_not_audited(tmp_path: Path) -> None:
    settings = Settings(("single-stream",), QUICK, 1, 0, Limits(60, 1000))
    inputs = {**INPUTS, "recommend": [["b", "a"], ["c"], ["b", "a"]]}
    found = measure([target("Honest")], Bench(inputs, tmp_path, settings, lambda line: None))
    assert found["answers"][0]["answers"] == [["a", "b"], ["c"], ["a", "b"]]
    assert found["audits"][0]["test04"]["reason"] == "got 2 different inputs; expected at least 12"
    assert found["audits"][0]["test01"]["passes"]


def test_what_is_not_there_is_not_measured(tmp_path: Path) -> None:
    gone = peer(f"gone=/nowhere/python:{PLANTED}:Honest:recommend", ("recommend",), 1)
    cell = ran(tmp_path, [gone])["cells"][0]
    assert (cell["status"], cell["reason"]) == ("not measured", "/nowhere/python is not there")


def test_a_subject_that_answers_otherwise_while_timed_is_caught(tmp_path: Path) -> None:
    found = ran(tmp_path, [target("Drifts"), target("Honest")], {"seconds": 0.01, "count": 200})
    audits = {row["subject"]: row["test01"] for row in found["audits"]}
    assert audits["Honest"]["passes"] and audits["Honest"]["answers"] > 0
    assert not audits["Drifts"]["passes"]


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.mark.parametrize(("cost_again", "passes"), [(1000, True), (950, True), (10, False)])
def test_a_subject_that_remembers_its_answers_is_caught(cost_again: int, passes: bool) -> None:
    clock, known = Clock(), set()

    def ask(request: int) -> None:
        clock.now += request * (cost_again if request in known else 1000)  # inputs differ in length
        known.add(request)

    found = repeats(ask, range(1, 40), Watch(clock))
    assert found["passes"] is passes
    assert found["least"] <= found["faster"] == pytest.approx(1 - cost_again / 1000)


def test_what_a_changed_length_costs_is_no_remembered_answer() -> None:
    clock, lengths = Clock(), [0]

    def ask(request: str) -> None:
        clock.now += 1000 if len(request) == lengths[-1] else 2000
        lengths.append(len(request))

    found = repeats(ask, [f"{n}" * (1 + n % 3) for n in range(100, 160)], Watch(clock))
    assert found["passes"] and found["faster"] == 0


def test_goldens_are_those_of_the_subject_that_answers(tmp_path: Path) -> None:
    rows = {row["subject"]: row for row in ran(tmp_path, [target("Knows"), target("Honest")])["answers"]}
    assert rows["Knows"]["goldens"] == {"passes": False, "reason": "1 of 2"} and rows["Honest"]["goldens"] is None


def test_accuracy_is_of_first_answers_and_a_broken_golden_costs_no_more_than_itself(tmp_path: Path) -> None:
    found = ran(tmp_path, [target("Fickle"), target("Honest")])
    fickle, honest = found["answers"]
    assert fickle["answers"] == honest["answers"]
    assert fickle["goldens"] == {"passes": False, "reason": "RuntimeError: the engine broke"}
    assert found["cells"][0]["status"] == "measured"


def test_a_slow_subject_is_not_asked_everything_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Any]()

    def run_one(one: Any) -> Any:
        asked.append(one)
        return one

    monkeypatch.setattr(worker, "TWICE", 13)
    subject = SimpleNamespace(prepare=lambda: None, run_one=run_one, close=lambda: None)
    found = worker.answers(subject, "recommend", INPUTS["recommend"])
    assert found["answers"] == INPUTS["recommend"] and len(asked) == 20 + 12 and found["repeat"]["status"] == "measured"


def test_vectors_of_two_lengths_fail_their_cell(tmp_path: Path) -> None:
    ragged = replace(target("Ragged"), kinds=("encode",))
    assert "vectors of 1 and of 2 numbers" in ran(tmp_path, [ragged])["cells"][0]["reason"]


def test_a_scenario_that_fails_leaves_the_cold_start_of_the_others(tmp_path: Path) -> None:
    settings = Settings(("multi-stream", "single-stream"), QUICK, 1, 2, Limits(60, 1000))
    found = measure([target("Serial")], Bench(INPUTS, tmp_path, settings, lambda line: None))
    assert [cell["status"] for cell in found["cells"]] == ["failed", "measured"]
    assert found["cold"][0]["status"] == "measured" and len(found["cold"][0]["all_ms"]) == 2


def test_the_empty_subject_measures_the_harness(tmp_path: Path) -> None:
    empty = Target("empty", "harness", "edgerec.benchmarks.adapters:Empty", ("recommend",))
    found = ran(tmp_path, [empty])
    assert found["cells"][0]["status"] == "measured" and not found["audits"]


def test_a_worker_needs_no_more_than_its_file(tmp_path: Path) -> None:
    """What a peer's interpreter must have: a subprocess where the heavy packages cannot be imported."""
    (tmp_path / "inputs.json").write_text(json.dumps([["a"]]))
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor name in ('click', 'onnxruntime', 'torch', 'polars', 'tokenizers'): sys.modules[name] = None"
    )
    task = {"task": "run", "subject": f"{PLANTED}:Honest", "kind": "recommend", "options": {}, "plan": QUICK}
    found = perform({**task, "inputs": str(tmp_path / "inputs.json")}, tmp_path, Limits())
    assert found["status"] == "measured", found
    found = perform(
        {**task, "subject": f"{PLANTED}:Needs", "inputs": str(tmp_path / "inputs.json")}, tmp_path, Limits()
    )
    assert "import of click halted" in found["reason"]


def test_a_cold_start_compiles_no_module_that_an_earlier_one_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "inputs.json").write_text(json.dumps([["a"]]))
    task = {"task": "run", "subject": f"{PLANTED}:Compiled", "kind": "recommend", "options": {}, "plan": QUICK}
    found = perform({**task, "inputs": str(tmp_path / "inputs.json")}, tmp_path, Limits())
    assert found["status"] == "measured", found


def test_answers_are_equal_where_vectors_nearly_are() -> None:
    assert same([0.1, 0.2], [0.1, 0.20005]) and not same([0.1], [0.2])
    assert same(["a"], ["a"]) and not same(["a"], ["b"]) and not same(["a"], [])


def test_a_peer_is_named_by_one_option() -> None:
    found = peer("mine=/usr/bin/env:x.py:Mine:search:model=/m:file=/usr/bin/env:precision=fp32", ("search",), 2)
    assert (found.name, found.interpreter, found.kinds) == ("mine", "/usr/bin/env", ("search",))
    assert found.options == {"model": "/m", "threads": 2}  # what the class is made with
    assert (found.file, found.precision) == (Path("/usr/bin/env"), "fp32")
    with pytest.raises(UsageError, match="file=/nowhere, which is not there"):
        peer("mine=:x.py:Mine:search:file=/nowhere", ("search",), 1)
    with pytest.raises(UsageError, match=r"expected NAME=\[PYTHON\]"):
        peer("mine=x.py", ("search",), 1)
