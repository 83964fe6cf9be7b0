"""The main job end to end on the ring: every stage's command, from files to recommendations and back to refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

import pytest

from edgerec.bundle import Bundle, write_bundle
from edgerec.cli import group
from edgerec.errors import EdgerecError, ParityError, UsageError


def run(*arguments: object) -> Result:
    """Run a command and raise what it raises."""
    return CliRunner().invoke(group, [str(one) for one in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is trained once."""
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="module")
def source(home: Path) -> Path:
    """The ring with titles of several scripts, and one item that nobody took."""
    folder = home / "data"
    folder.mkdir()
    items = [f"i{n},Title {'red' if n % 2 else 'blue'} {n} 영화 🎉" for n in range(12)] + ["cold,Title red 11 영화"]
    log = [f"u{u},i{(u + t) % 12},{1_600_000_000 + 60 * t}" for u in range(40) for t in range(6)]
    (folder / "items.csv").write_text("item_id,title\n" + "\n".join(items), encoding="utf-8")
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(log))
    return folder


@pytest.fixture(scope="module")
def teacher(home: Path, source: Path, small_bert: Path) -> Path:
    """A trained teacher."""
    out = home / "teacher"
    options = ("--steps", 60, "--batch-size", 16, "--learning-rate", 0.05, "--embedding-size", 16, "--tie", "separate")
    result = run("fine-tune", source, "--encoder", small_bert, "--out", out, "--top-layers", 1, *options, "--json")
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["stage_1"] > 0.8
    assert report["stage_2"] >= report["stage_1"]
    return out


@pytest.fixture(scope="module")
def student(home: Path, source: Path, teacher: Path, monkeypatch_module: pytest.MonkeyPatch) -> Path:
    """A distilled student, of a size that the small teacher can give."""
    from edgerec.distill import student as sizes

    monkeypatch_module.setitem(sizes.PRESETS, "tiny", sizes.StudentConfig(1, 12, 2, 24))
    out = home / "student"
    result = run("distill", source, "--teacher", teacher, "--out", out, "--steps", 60, "--batch-size", 16, "--json")
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["student"]["cosine"]["seen"] > report["random"]["cosine"]["seen"]
    return out


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    """A monkeypatch that lasts as long as the module."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def bundle(home: Path, student: Path) -> Path:
    """The exported student."""
    path = home / "ring.edgerec"
    run("export", student, "--out", path)
    return path


def test_the_bundle_recommends_the_next_of_the_ring_and_verifies(bundle: Path) -> None:
    found = json.loads(run("recommend", bundle, "i3", "i4", "--k", 3, "--json").stdout)
    assert found[0]["item"] == "i5"
    assert found[0]["title"] == "Title red 5 영화 🎉"
    assert json.loads(run("verify", bundle, "--json").stdout)["texts"] > 0
    assert json.loads(run("search", bundle, "Title red 5 영화 🎉", "--json").stdout)


@pytest.mark.parametrize("precision", ["fp32", "int8-weights"])
def test_a_teacher_can_ship_too(teacher: Path, tmp_path: Path, precision: str) -> None:
    exported = run("export", teacher, "--precision", precision, "--out", tmp_path / "t.edgerec", "--json").stdout
    result = json.loads(exported)["targets"]["onnx"]
    assert result["parity"]["top10_overlap_with_fp32"] > 0.9
    assert result["parity"]["largest_text_distance"] < (1e-5 if precision == "fp32" else 0.1)


@pytest.mark.parametrize("precision", ["fp32", "int8-weights"])
def test_a_static_student_of_two_teachers_ships_searches_and_adds_items(
    source: Path, teacher: Path, tmp_path: Path, precision: str
) -> None:
    from edgerec.runtime import Recommender

    out, path = tmp_path / "static", tmp_path / "static.edgerec"
    chosen = ["--loss", "hidden=0.1", "--loss", "logits=0.1", "--temperature", 2, "--confidence", 0.5]
    opinions = ["--teacher", teacher, "--teacher", "itemknn=0.5", "--teacher", f"{teacher}=0.1"]
    options = ["--preset", "static", "--hidden", 8, "--out", out, "--steps", 40, "--batch-size", 16]
    report = json.loads(run("distill", source, *opinions, *chosen, *options, "--json").stdout.splitlines()[-1])
    assert report["student"]["cosine"]["seen"] > report["random"]["cosine"]["seen"]
    info = json.loads((out / "model.json").read_text("utf-8"))
    assert info["sizes"] == {"hidden": 8} and info["recipe"]["weights"]["hidden"] == 0.1
    assert [one["name"] for one in info["further_teachers"]] == ["itemknn", str(teacher)]
    parity = json.loads(run("export", out, "--precision", precision, "--out", path, "--json").stdout)["targets"][
        "onnx"
    ]["parity"]
    assert parity["largest_text_distance"] < (1e-5 if precision == "fp32" else 0.02)
    recommender = Recommender.load(path)
    assert recommender.search("Title red 5 영화 🎉", 1)[0].item == "i5"
    recommender.add_items({"new": "Title red 11 영화"})
    scores = {entry.item: entry.score for entry in recommender.recommend(["i3"], 20)}
    close = 0.1 if precision == "fp32" else 1.0  # a map fitted to twelve items enlarges what INT8 did to the text part
    assert scores["new"] == pytest.approx(scores["cold"], abs=close)
    rows = json.loads(run("evaluate", source, "--no-baselines", "--model", out, "--json").stdout)["rows"]
    kinds = {row["name"].removeprefix("static: ") for row in rows}
    assert kinds == {f"{one}, {how}" for one in ("student", "random encoder") for how in ("re-encoded", "text-only")}


def test_losses_sizes_and_teachers_that_cannot_work_are_refused_before_anything_is_written(
    source: Path, teacher: Path, student: Path, tmp_path: Path
) -> None:
    refusals: dict[tuple[object, ...], str] = {
        ("--loss", "hidden"): "expected NAME=WEIGHT",
        ("--loss", "kl=1"): "unknown loss 'kl'",
        ("--preset", "static", "--layers", 2): "a static student has no layers",
        ("--teacher", student): "is a student of split leave-one-out; expected a teacher",
        ("--teacher", "itemknn=-1"): "expected none below 0",
        ("--hidden", 13): "a width that the heads divide",
    }
    for options, message in refusals.items():
        with pytest.raises(UsageError, match=message):
            run("distill", source, "--teacher", teacher, "--out", tmp_path / "s", *options)
        assert not (tmp_path / "s").exists()


def test_an_added_item_scores_as_the_exported_cold_item_of_the_same_text(student: Path, tmp_path: Path) -> None:
    from edgerec.runtime import Recommender

    run("export", student, "--precision", "fp32", "--out", tmp_path / "fp32.edgerec")
    recommender = Recommender.load(tmp_path / "fp32.edgerec")
    recommender.add_items({"new": "Title red 11 영화"})
    scores = {entry.item: entry.score for entry in recommender.recommend(["i3"], 20)}
    assert scores["new"] == pytest.approx(scores["cold"], abs=0.1)  # the one in an INT8 table


def test_items_exported_with_the_bundle_rank_as_items_added_on_the_device(
    student: Path, bundle: Path, tmp_path: Path
) -> None:
    from edgerec.runtime import Recommender

    later = {"n1": "Title red 3", "n2": "Title blue 8 영화", "n3": "red"}
    lines = [f"{item},{title}" for item, title in later.items()]
    (tmp_path / "later.csv").write_text("item_id,title\n" + "\n".join(lines), encoding="utf-8")
    run("export", student, "--add", tmp_path / "later.csv", "--out", tmp_path / "with.edgerec")
    run("verify", tmp_path / "with.edgerec")
    exported, added = Recommender.load(tmp_path / "with.edgerec"), Recommender.load(bundle)
    added.add_items(later)
    for history in ([], ["i3"], ["i3", "n1"], ["n3", "n2", "n3"], ["cold", "i1"]):
        found, wanted = exported.recommend(history, 20), added.recommend(history, 20)
        assert [one.item for one in found] == [one.item for one in wanted]
        assert [one.score for one in found] == pytest.approx([one.score for one in wanted], abs=1e-4)
    assert [one.item for one in exported.search("red 3", 20)] == [one.item for one in added.search("red 3", 20)]
    assert [one.item for one in exported.similar("n1", 20)] == [one.item for one in added.similar("n1", 20)]
    with pytest.raises(UsageError, match="'n1', 'n2', 'n3' are in the catalogue already"):
        from edgerec.export.latecomers import add_catalogue

        add_catalogue(tmp_path / "with.edgerec", tmp_path / "later.csv")


def test_a_graph_that_computes_something_else_stops_the_export_and_nothing_is_written(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from edgerec.distill.checkpoint import load
    from edgerec.export import package
    from edgerec.export.recommender_graph import recommender_graph

    monkeypatch.setattr(package, "recommender_graph", lambda tower: recommender_graph(replace(tower, mix=-tower.mix)))
    with pytest.raises(ParityError, match="goldens fail"):
        package.package(load(student), "fp32", tmp_path / "out" / "bad.edgerec")
    assert not list((tmp_path / "out").iterdir())


def test_an_interrupted_export_leaves_nothing(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgerec.distill.checkpoint import load
    from edgerec.export import package

    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(package, "referee", interrupted)
    with pytest.raises(KeyboardInterrupt):
        package.package(load(student), "fp32", tmp_path / "out" / "bad.edgerec")
    assert not list((tmp_path / "out").iterdir())


def test_a_corrupted_encoder_with_right_hashes_fails_verify(bundle: Path, tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    opened = Bundle(bundle)
    members = {name: bytes(opened[name]) for name in opened.manifest["members"]}
    graph = onnx.load_from_string(members["item_encoder.onnx"])
    last = next(node for node in graph.graph.node if "text_vector" in node.output)
    last.output[0] = "before"
    graph.graph.node.append(helper.make_node("Neg", ["before"], ["text_vector"]))
    members["item_encoder.onnx"] = graph.SerializeToString()
    write_bundle(tmp_path / "bad.edgerec", opened.manifest, members)
    with pytest.raises(ParityError, match="golden text"):
        run("verify", tmp_path / "bad.edgerec")


def test_a_folder_in_use_other_data_and_a_model_folder_that_is_none_are_refused(
    home: Path, source: Path, teacher: Path, student: Path, small_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="exists already"):
        run("fine-tune", source, "--encoder", small_bert, "--out", teacher)
    other = tmp_path / "other"
    shutil.copytree(source, other)
    (other / "items.csv").write_text((source / "items.csv").read_text("utf-8").replace("red", "green"), "utf-8")
    with pytest.raises(UsageError, match="was made from"):
        run("distill", other, "--teacher", teacher, "--out", tmp_path / "s")
    with pytest.raises(UsageError, match="expected a folder that fine-tune wrote"):
        run("distill", source, "--teacher", student, "--out", tmp_path / "s")
    with pytest.raises(EdgerecError, match="holds no finished model"):
        run("export", source, "--out", tmp_path / "x.edgerec")


def test_the_demo_repeats_no_finished_step_and_reports_the_shipped_file_beside_the_baselines(
    source: Path, teacher: Path, student: Path, small_bert: Path, tmp_path: Path
) -> None:
    from edgerec.data import load
    from edgerec.export.demo import demo
    from edgerec.splits import split

    for name, folder in (("teacher", teacher), ("student", student)):
        shutil.copytree(folder, tmp_path / name)
    data, lines = load(str(source)), []
    report = demo(data, split(data), small_bert, tmp_path, lines.append)
    assert set(report["seconds"]) == {"export", "verify", "recommend", "evaluate", "measure"}
    hr = {row["name"]: row["test"][0]["hr"]["mean"] for row in report["rows"]}
    assert hr["shipped file"] == pytest.approx(hr["teacher"], abs=0.1)
    assert {"ItemKNN", "student, re-encoded", "random encoder, text-only"} <= set(hr)
    assert report["latency"]["search, one query"]["n"] == 300
    assert json.loads((tmp_path / "demo.json").read_text("utf-8"))["rows"] == report["rows"]
    assert any("what the user took next: Title" in line for line in lines)


def test_ctrl_c_in_training_leaves_a_checkpoint_that_resume_goes_on_from(
    source: Path, small_bert: Path, tmp_path: Path
) -> None:
    out = tmp_path / "teacher"
    options = ["--encoder", str(small_bert), "--out", str(out), "--top-layers", "0", "--batch-size", "8"]
    command = [sys.executable, "-m", "edgerec", "fine-tune", str(source), *options]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([*command, "--steps", "100000"], stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    for line in process.stderr:  # the first evaluation: training is under way
        if "step 100/" in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert "--resume" in rest and "Traceback" not in rest
    saved = sorted((out / "stage-1-shared" / "checkpoints").glob("checkpoint-*/trainer_state.json"))
    steps = max(json.loads(path.read_text())["global_step"] for path in saved)
    assert steps >= 100
    again = subprocess.run(
        [*command, "--steps", str(steps + 1), "--resume", "--json"], capture_output=True, text=True, env=environment
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[-1])["stage_1"] > 0
    assert (out / "model.json").exists()


def test_evaluate_scores_models_and_bundles_of_the_same_data_only(
    source: Path, teacher: Path, bundle: Path, tmp_path: Path
) -> None:
    options = ("--no-baselines", "--model", teacher, "--bundle", bundle, "--json")
    rows = json.loads(run("evaluate", source, *options).stdout)["rows"]
    assert [row["name"] for row in rows] == [
        "teacher: teacher",
        "teacher: teacher, text-only",
        "shipped file ring.edgerec",
    ]
    with pytest.raises(UsageError, match="nothing to score"):
        run("evaluate", source, "--no-baselines")
    other = tmp_path / "other"
    shutil.copytree(source, other)
    (other / "items.csv").write_text((source / "items.csv").read_text("utf-8").replace("red", "green"), "utf-8")
    with pytest.raises(UsageError, match="was made from"):
        run("evaluate", other, "--no-baselines", "--bundle", bundle)


@pytest.mark.parametrize(("users", "n_items"), [(1, 6), (5, 1), (5, 2)])
def test_one_user_one_item_and_two_items_go_all_the_way(
    users: int, n_items: int, small_bert: Path, tmp_path: Path
) -> None:
    items = [f"i{n},Title red {n}" for n in range(n_items)]
    log = [f"u{u},i{t % n_items},{1_600_000_000 + t}" for u in range(users) for t in range(6)]
    (tmp_path / "items.csv").write_text("item_id,title\n" + "\n".join(items))
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(log))
    teacher, path = tmp_path / "teacher", tmp_path / "one.edgerec"
    run("fine-tune", tmp_path, "--encoder", small_bert, "--out", teacher, "--top-layers", 0, "--steps", 2)
    run("export", teacher, "--out", path)
    run("verify", path)
    found = json.loads(run("recommend", path, *["i0"] * 500, "--k", 50, "--include-seen", "--json").stdout)
    assert {entry["item"] for entry in found} == {f"i{n}" for n in range(n_items)}


def test_a_log_of_repeat_purchases_ships_what_the_user_takes_often(small_bert: Path, tmp_path: Path) -> None:
    """Each user takes two items of their own again and again, in baskets: only the history can tell which."""
    from edgerec.benchmarks.shipped import BundleScorer
    from edgerec.data import load
    from edgerec.distill import checkpoint
    from edgerec.metrics import rank, validation_ndcg
    from edgerec.splits import split

    items = [f"i{n},Title red {n}" for n in range(12)]
    log = [f"u{u},i{(u * 5 + e) % 12},{1_600_000_000 + 60 * t}" for u in range(30) for t in range(6) for e in (0, 3)]
    (tmp_path / "items.csv").write_text("item_id,title\n" + "\n".join(items))
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(log))
    teacher, path = tmp_path / "teacher", tmp_path / "repeat.edgerec"
    run("fine-tune", tmp_path, "--encoder", small_bert, "--out", teacher, "--top-layers", 0, "--steps", 20)
    run("export", teacher, "--out", path)
    data = load(str(tmp_path))
    divided = split(data)
    assert not divided.mask_seen
    towers, shipped = checkpoint.load(teacher).towers, BundleScorer(path, data)
    assert towers.arrays().repeat_weights.size == 3
    assert validation_ndcg(shipped, divided, 10) > 0.95
    ranks = [rank(scorer, divided.test, 2, mask_seen=False) for scorer in (towers, shipped)]
    assert (ranks[0] == ranks[1]).mean() > 0.9  # the tables were rounded


def test_a_history_longer_than_any_window_is_answered_as_its_session_is(bundle: Path) -> None:
    from edgerec.runtime import Recommender

    recommender = Recommender.load(bundle)
    history = [f"i{n % 12}" for n in range(700)]
    session = recommender.session()
    session.observe(*history)
    whole = recommender.recommend(history, 13, exclude_seen=False)
    assert [entry.item for entry in whole] == [entry.item for entry in session.recommend(13, exclude_seen=False)]
    assert whole[0].item == "i4"  # after i3, the 700th
