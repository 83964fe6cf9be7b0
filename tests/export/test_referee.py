"""The referee keeps what is within the budget, chooses by the goal, and writes one file or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

import pytest

from edgerec.bundle import Bundle
from edgerec.cli import group
from edgerec.data import load
from edgerec.errors import DataError, UsageError
from edgerec.export import referee, trials
from edgerec.export.limits import LIMITS
from edgerec.export.package import draft
from edgerec.export.quantization import CANDIDATES, Candidate
from edgerec.export.referee import Terms, disagreement, faults, without_clock, worth
from edgerec.export.trials import Bench, against, overlaps, table_report, text_parts
from edgerec.splits import split

SOME = "fp32,int8-weights,int8-dynamic"


def run(*arguments: object) -> Result:
    """Run a command and raise what it raises."""
    return CliRunner().invoke(group, [str(one) for one in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten items that 40 users walk through in a ring; one more that nobody took."""
    folder = tmp_path_factory.mktemp("referee") / "data"
    folder.mkdir()
    items = [f"i{n},Title {'red' if n % 2 else 'blue'} {n}" for n in range(9)] + ["cold,Title red 11 영화"]
    log = [f"u{u},i{(u + t) % 9},{1_600_000_000 + 60 * t}" for u in range(40) for t in range(6)]
    (folder / "items.csv").write_text("item_id,title\n" + "\n".join(items), encoding="utf-8")
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(log))
    return folder


@pytest.fixture(scope="module")
def model(source: Path, small_bert: Path) -> Path:
    """A trained teacher: a model folder like any other."""
    out = source.parent / "teacher"
    options = ("--steps", 60, "--batch-size", 16, "--learning-rate", 0.05, "--embedding-size", 16, "--tie", "separate")
    run("fine-tune", source, "--encoder", small_bert, "--out", out, "--top-layers", 0, *options)
    return out


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time a few calls only."""
    monkeypatch.setattr(
        referee, "times", lambda bench, made: trials.times(bench, made, dict.fromkeys(trials.ROUNDS, 3))
    )


@pytest.fixture
def bench(source: Path, model: Path) -> Bench:
    """What the candidates are compared on."""
    data = load(str(source))
    divided = split(data)
    return Bench(draft(referee.open_model(model)), data, divided.validation, divided.mask_seen)


def quantize(source: Path, model: Path, out: Path, *options: object) -> dict[str, Any]:
    """Run the command."""
    found = run("quantize", model, "--data", source, "--out", out, "--json", *options)
    report: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return report


def test_the_file_is_what_was_chosen_and_says_why(source: Path, model: Path, tmp_path: Path) -> None:
    out, figure = tmp_path / "one.edgerec", tmp_path / "one.png"
    report = quantize(source, model, out, "--candidates", SOME, "--goal", "size", "--budget", 0.5, "--figure", figure)
    rows = {row["name"]: row for row in report["rows"]}
    assert set(rows) == set(SOME.split(","))
    assert report["chosen"] == min(rows, key=lambda name: rows[name]["bytes"])
    manifest = Bundle(out).manifest
    assert manifest["precision"]["text_encoder"] == report["chosen"]
    assert manifest["selection"]["reason"] == report["reason"]
    assert manifest["selection"]["calibration"] == {"titles": 10, "seed": 0}
    assert rows["fp32"]["ndcg10"]["re-encoded"] == {**rows["fp32"]["ndcg10"]["re-encoded"], "ratio": 1.0, "low": 1.0}
    assert rows["fp32"]["top10_overlap"]["search"]["mean"] == 1
    assert all(row["times"]["encode_batch"]["n"] == 3 for row in rows.values())
    assert figure.read_bytes().startswith(b"\x89PNG")
    run("verify", out)


def test_the_goal_size_gives_the_same_file_again(source: Path, model: Path, tmp_path: Path) -> None:
    options = ("--candidates", "int8-static,int8-weights", "--goal", "size", "--budget", 0.9)
    for name in ("one", "two"):
        quantize(source, model, tmp_path / name, *options)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert "times" not in Bundle(tmp_path / "one").manifest["selection"]["rows"][0]


def test_a_candidate_that_ruins_the_text_is_refused_for_what_was_measured(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx
    from onnx import numpy_helper

    def ruined(graph: bytes, titles: Any) -> bytes:
        made = onnx.load_from_string(graph)
        for tensor in made.graph.initializer:
            if "word_embeddings" in tensor.name:
                noise = (
                    np.random.default_rng(0).normal(size=tensor.dims).astype(np.float32)
                )  # nothing of a text is left
                tensor.CopyFrom(numpy_helper.from_array(noise, tensor.name))
        return made.SerializeToString()

    monkeypatch.setitem(CANDIDATES, "int8-weights", Candidate(ruined))
    monkeypatch.setitem(LIMITS, "int8-weights", LIMITS["int8-weights"]._replace(text_distance=2.0))
    report = quantize(source, model, tmp_path / "x.edgerec", "--candidates", "int8-weights")
    assert report["chosen"] == "fp32"
    row = report["rows"][1]
    assert not row["kept"] and "re-encoded NDCG@10 may be as low as" in row["reasons"][0]
    assert row["ndcg10"]["re-encoded"]["ratio"] < 1
    assert row["ndcg10"]["shipped"]["ratio"] == 1  # the tables are the teacher's


def test_a_candidate_that_cannot_be_made_or_answers_wrongly_is_told_apart_without_a_path(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(graph: bytes, titles: Any) -> bytes:
        raise UsageError("no such thing")

    monkeypatch.setitem(CANDIDATES, "int8-static", Candidate(never))
    monkeypatch.setitem(LIMITS, "int8-dynamic", LIMITS["int8-dynamic"]._replace(text_distance=0.0))
    report = quantize(source, model, tmp_path / "x.edgerec", "--candidates", "int8-static,int8-dynamic")
    reasons = {row["name"]: row["reasons"] for row in report["rows"]}
    assert reasons["int8-static"] == ["no such thing"]
    assert "goldens fail here" in reasons["int8-dynamic"][0] and "tmp" not in reasons["int8-dynamic"][0]


def test_a_folder_without_quantizers_is_no_trained_one(source: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no quantizers; expected a folder that `edgerec qat` wrote"):
        run("quantize", model, "--data", source, "--out", tmp_path / "x.edgerec", "--qat", model)


def test_ranks_that_depend_on_how_bytes_are_multiplied_refuse_the_first_choice(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(bench: Bench, trial: Any) -> str | None:
        return None if trial.name == "fp32" else "differs elsewhere"

    monkeypatch.setattr(referee, "rank_fault", fault)
    options = ("--candidates", "int8-weights", "--goal", "size", "--budget", 0.9)
    report = quantize(source, model, tmp_path / "x.edgerec", *options)
    assert report["chosen"] == "fp32"
    assert {row["name"]: row["reasons"] for row in report["rows"]}["int8-weights"] == ["differs elsewhere"]


def test_the_encoder_ranks_alike_without_saturating_products(bench: Bench, tmp_path: Path) -> None:
    made = trials.make_trials(bench, ["int8-dynamic"], tmp_path, 0, lambda name: None).made
    assert referee.rank_fault(bench, made["int8-dynamic"]) is None


def test_nothing_within_the_budget_or_an_interruption_writes_nothing(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "x.edgerec"
    monkeypatch.setattr(referee, "faults", lambda found, budget: ["too bad"])
    with pytest.raises(referee.NothingKept, match="fp32: too bad"):
        quantize(source, model, out, "--candidates", "fp32")
    assert not out.parent.exists()
    out.parent.mkdir()
    out.write_text("what was there")
    monkeypatch.undo()

    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(referee, "choose", interrupted)
    data = load(str(source))
    with pytest.raises(KeyboardInterrupt):
        referee.quantize(referee.open_model(model), data, split(data), out, Terms(["fp32"]), lambda name: None)
    assert list(out.parent.iterdir()) == [out] and out.read_text() == "what was there"


def test_a_bundle_other_data_and_unknown_words_are_refused(source: Path, model: Path, tmp_path: Path) -> None:
    run("export", model, "--precision", "int8-weights", "--out", tmp_path / "b.edgerec")
    with pytest.raises(UsageError, match="is a file; expected a student or teacher folder"):
        quantize(source, tmp_path / "b.edgerec", tmp_path / "x.edgerec")
    with pytest.raises(DataError, match="holds no finished model"):
        quantize(source, tmp_path, tmp_path / "x.edgerec")
    with pytest.raises(UsageError, match="got the candidate 'int3'"):
        quantize(source, model, tmp_path / "x.edgerec", "--candidates", "fp32,int3")
    with pytest.raises(UsageError, match=r"ends in \.png, \.svg"):
        quantize(source, model, tmp_path / "x.edgerec", "--figure", tmp_path / "x.xyz")
    for terms in ({"goal": "speed"}, {"budget": -0.1}, {"budget": float("nan")}):
        with pytest.raises(UsageError, match="expected"):
            Terms(**terms)  # type: ignore[arg-type]
    other = tmp_path / "other"
    other.mkdir()
    (other / "interactions.csv").write_bytes((source / "interactions.csv").read_bytes())
    (other / "items.csv").write_text((source / "items.csv").read_text("utf-8").replace("red", "green"), "utf-8")
    with pytest.raises(UsageError, match="was made from"):
        quantize(other, model, tmp_path / "x.edgerec")
    assert not (tmp_path / "x.edgerec").exists()


def test_text_parts_are_those_of_torch(bench: Bench, tmp_path: Path) -> None:
    from edgerec.distill.text_encoder import text_encoder
    from edgerec.export.package import encode_texts

    checkpoint = bench.prepared.checkpoint
    made = trials.make_trials(bench, [], tmp_path, 0, lambda name: None).made["fp32"]
    vectors = made.recommender.encoder.encode(checkpoint.texts)
    wanted = encode_texts(text_encoder(checkpoint), bench.prepared.tokenizer, checkpoint.texts)
    np.testing.assert_allclose(text_parts(vectors, checkpoint.towers.cold_map()), wanted, atol=1e-4)


def test_tables_are_reported_beside_fp32_ones(bench: Bench) -> None:
    found = table_report(bench)
    assert found["fp32"]["top10_overlap"]["mean"] == found["fp32"]["ratio"] == 1
    assert found["plain"]["top10_overlap"]["mean"] > 0.9 < found["compensated"]["top10_overlap"]["mean"]


def test_the_budget_is_for_the_lower_end_of_both_ways() -> None:
    def found(shipped: float, again: float) -> dict[str, dict[str, float]]:
        return {"shipped": {"low": shipped}, "re-encoded": {"low": again}}

    assert not faults(found(0.99, 0.995), 0.01)
    assert [one.split()[0] for one in faults(found(0.98, 0.97), 0.01)] == ["shipped", "re-encoded"]
    assert faults(found(1.0, float("nan")), 0.01)


def test_a_ratio_is_the_difference_over_fp32s_mean() -> None:
    a, b = np.array([1.0, 0.0, 0.5, 0.0]), np.array([1.0, 0.5, 0.5, 0.0])
    found = against(a, b)
    assert found["mean"] == 0.375 and found["ratio"] == 0.75
    assert found["low"] < 0.75 < found["high"] <= 1
    with pytest.raises(DataError, match="answers no request right"):
        against(a, b * 0)


def test_goals_rank_by_bytes_milliseconds_or_both() -> None:
    def row(size: int, clock: float) -> dict[str, Any]:
        return {"bytes": size, "times": {"encode_one": {"p50_ms": clock}}}

    fp32, small = row(100, 2.0), row(25, 4.0)
    assert [worth(small, fp32, goal) for goal in ("size", "latency", "balanced")] == [0.25, 2.0, 0.5**0.5]


def test_overlap_counts_what_is_returned_only() -> None:
    wanted = np.int32([[1, 2, 3, 4], [1, 2, -1, -1], [-1, -1, -1, -1]])
    got = np.int32([[4, 9, 3, 8], [2, 1, -1, -1], [-1, -1, -1, -1]])
    assert overlaps(got, wanted).tolist() == [0.5, 1, 1]


def test_ranks_may_differ_in_ties_only() -> None:
    scores = np.float32([[3, 2, 1], [3, 2, 2]])
    assert disagreement(scores, scores[:, [0, 1, 2]] + np.float32([[0, 0, 0], [0, 0, 1e-6]])) is None
    assert disagreement(scores, np.float32([[3, 1, 2], [3, 2, 2]])) == (0, 1)


def test_what_depends_on_the_clock_or_the_machine_is_left_out() -> None:
    report = {"goal": "size", "has_vnni": True, "rows": [{"name": "fp32", "times": {}, "bytes": 1}]}
    assert without_clock(report) == {"goal": "size", "rows": [{"name": "fp32", "bytes": 1}]}
