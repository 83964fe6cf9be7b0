"""What a peer is asked and answers: a known scorer's runs give its own metrics back, and every wrong run is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import pytest

from edgerec.benchmarks import peer_sasrec
from edgerec.benchmarks.evaluate import answers, evaluate
from edgerec.benchmarks.runs import PARTS, read_peer, write_requests
from edgerec.data import Columns, load
from edgerec.errors import UsageError
from edgerec.interactions import Dataset, FloatArray, Requests, Split
from edgerec.metrics import to_trec, validation_ndcg
from edgerec.splits import split

Folder = Callable[..., Path]


class Draw:
    """Scores drawn once for every user and item."""

    def __init__(self, data: Dataset) -> None:
        self.scores = np.random.default_rng(0).normal(size=(len(data.user_ids), len(data.item_ids)))

    def score(self, requests: Requests) -> FloatArray:
        return self.scores[requests.users].astype(np.float32)


@pytest.fixture
def data(folder: Folder) -> Dataset:
    """Thirty items with a space in their ids, 40 users of five baskets of two, times that a global cut divides."""
    items = [f"i {n},Title {n}" for n in range(30)]
    log = [f"u {u},i {(u + e) % 30},{1_600_000_000 + 60 * (e // 2) + 40 * u}" for u in range(40) for e in range(10)]
    return load(str(folder("user_id,item_id,timestamp\n" + "\n".join(log), "item_id,title\n" + "\n".join(items))))


def answer(path: Path, data: Dataset, divided: Split) -> Path:
    """Write the requests, then what ``Draw`` answers to them."""
    write_requests(path / "requests", data, divided)
    for name, ranked in zip(PARTS, answers(Draw(data), divided), strict=True):
        users = getattr(divided, name).users
        run = to_trec(ranked, users, data.user_ids.__getitem__, data.item_ids.__getitem__, "draw")
        (path / f"{name}.run").write_text(run)
    asked = json.loads((path / "requests" / "meta.json").read_text())["requests"]
    (path / "peer.json").write_text(json.dumps({"requests": asked, "seed": 7}))
    return path


@pytest.mark.parametrize("kind", ["leave-one-out", "temporal"])
@pytest.mark.parametrize("repeats", [False, True])
def test_runs_of_a_known_scorer_give_its_own_metrics(
    folder: Folder, tmp_path: Path, data: Dataset, kind: str, repeats: bool
) -> None:
    data = load(str(tmp_path / "data"), Columns(repeats=repeats))
    divided = split(data, kind)
    assert divided.mask_seen != repeats
    peer = read_peer(answer(tmp_path / "peer", data, divided), data, divided)
    assert peer.report["seed"] == 7
    (direct, read), ranked = evaluate({"draw": Draw(data)}, divided, (10, 5, 20), {"peer": peer.rankings})
    assert (ranked["draw"] == ranked["peer"]).all()
    assert read["name"] == "peer"
    assert {**read, "name": "draw", "best_on_validation": True} == direct
    assert 0 < read["test"][0]["ndcg"]["mean"] < 1


def test_requests_hold_the_split(data: Dataset, tmp_path: Path) -> None:
    divided = split(data)
    write_requests(tmp_path, data, divided)
    task = peer_sasrec.read_task(tmp_path)
    assert task.meta["item_ids"] == data.item_ids
    assert task.train["u 3"] == [data.item_ids[row] for row in divided.train[3]] == [f"i {n}" for n in range(3, 11)]
    assert task.validation["u 3"] == task.train["u 3"]
    assert task.relevant["u 3"] == {"i 11"}
    assert task.test["u 3"] == [*task.train["u 3"], "i 11"]
    steps = [cells[2] for cells in peer_sasrec.read_rows(tmp_path / "train.tsv")[1:]]
    assert steps == list(map(str, divided.train_steps))
    assert peer_sasrec.read_rows(tmp_path / "test.qrels")[3] == ["u 3", "0", "i 12", "1"]


def test_an_id_that_the_files_cannot_carry_is_refused(data: Dataset, tmp_path: Path) -> None:
    data.item_ids[4] = "i\t4"
    with pytest.raises(UsageError, match=r"'i\\t4' holds a tab"):
        write_requests(tmp_path, data, split(data))
    assert not list(tmp_path.glob("*.json"))


@pytest.fixture
def peer(data: Dataset, tmp_path: Path) -> Path:
    """The answers of ``Draw``."""
    return answer(tmp_path / "peer", data, split(data))


def change(path: Path, edit: Callable[[list[str]], list[str]]) -> None:
    """Edit the lines of a file."""
    path.write_text("".join(edit(path.read_text().splitlines(keepends=True))))


def first(field: int, value: str) -> Callable[[list[str]], list[str]]:
    """Return an edit that sets one field of the first line."""

    def edit(lines: list[str]) -> list[str]:
        fields = lines[0].split("\t")
        return ["\t".join([*fields[:field], value, *fields[field + 1 :]]), *lines[1:]]

    return edit


WRONG = {  # what is done to test.run: what the message says
    "unknown user": (first(0, "nobody"), r"test\.run, line 1 is for user 'nobody', who is in none of the 40 requests"),
    "unknown item": (first(2, "i 99"), r"test\.run, line 1 lists item 'i 99', which is not in the catalogue of data"),
    "seen item": (first(2, "i 4"), r"user 'u 0', has item 'i 4', which is in the history; mask seen items"),
    "item twice": (lambda lines: [lines[0], *lines], r"line 2 lists item 'i \d+' a second time for user 'u 0'"),
    "missing request": (lambda lines: lines[20:], r"user 'u 0', has no line; expected an answer to every request"),
    "too few places": (lambda lines: lines[1:], r"user 'u 0', has 19 places; expected at least 20"),
    "no number": (first(4, "high"), r"test\.run, line 1 is 'u 0\\tQ0.*expected: user Q0 item rank score tag"),
    "not finite": (first(4, "nan"), "expected: user Q0 item rank score tag"),
    "five fields": (lambda lines: ["u Q0 i 1 2\n", *lines], "line 1 is 'u Q0 i 1 2'; expected: user Q0"),
    "empty": (lambda lines: [], "has no line"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_run_is_refused(peer: Path, data: Dataset, wrong: str) -> None:
    edit, message = WRONG[wrong]
    change(peer / "test.run", edit)
    with pytest.raises(UsageError, match=message) as caught:
        read_peer(peer, data, split(data))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["validation.run", "test.run", "peer.json"])
def test_a_missing_file_is_refused(peer: Path, data: Dataset, name: str) -> None:
    (peer / name).unlink()
    with pytest.raises(UsageError, match=f"{name} cannot be read"):
        read_peer(peer, data, split(data))


@pytest.mark.parametrize(
    ("report", "message"),
    [("{", "cannot be read"), ("[]", "holds a list"), ("{}", "answers None"), (b"\xff", "cannot")],
)
def test_a_report_that_is_none_is_refused(peer: Path, data: Dataset, report: str | bytes, message: str) -> None:
    (peer / "peer.json").write_bytes(report if isinstance(report, bytes) else report.encode())
    with pytest.raises(UsageError, match=message):
        read_peer(peer, data, split(data))


def test_answers_to_other_requests_are_refused(peer: Path, data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'split': 'leave-one-out'.*'split': 'temporal'"):
        read_peer(peer, data, split(data, "temporal"))
    unmasked = load(str(tmp_path / "data"), Columns(repeats=True))
    with pytest.raises(UsageError, match="'seen_masked': True.*'seen_masked': False"):
        read_peer(peer, unmasked, split(unmasked))
    change(tmp_path / "data" / "items.csv", lambda lines: [line.replace("Title", "Name") for line in lines])
    other = load(str(tmp_path / "data"))
    with pytest.raises(UsageError, match="run the peer on these requests"):
        read_peer(peer, other, split(other))


def test_places_go_by_score_then_rank_whatever_the_order_of_lines_and_the_tail_is_dropped(
    folder: Folder, tmp_path: Path
) -> None:
    items = "item_id,title\n" + "\n".join(f"i{n},Title {n}" for n in range(30))
    data = load(str(folder("user_id,item_id\n" + "\n".join(f"u,i{n}" for n in range(5)), items)))
    divided = split(data)
    answer(tmp_path / "peer", data, divided)
    lines = [f"u Q0 i{n} {30 - n} {-(n // 2)} tag\r\n" for n in range(4, 30)]  # two to a score, the second ranked first
    (tmp_path / "peer" / "test.run").write_text("".join(lines), newline="")
    ranked = read_peer(tmp_path / "peer", data, divided).rankings.test
    assert ranked.tolist() == [[n ^ 1 for n in range(4, 24)]]


def test_the_peers_own_metric_and_files_agree_with_ours(data: Dataset, tmp_path: Path) -> None:
    divided = split(data, "temporal")
    write_requests(tmp_path, data, divided)
    task = peer_sasrec.read_task(tmp_path)
    draw = answers(Draw(data), divided)
    for name, ranked in zip(PARTS, draw, strict=True):
        users = [data.user_ids[user] for user in getattr(divided, name).users]
        lists = {user: [data.item_ids[row] for row in line] for user, line in zip(users, ranked, strict=True)}
        peer_sasrec.write_run(tmp_path / f"{name}.run", lists)
        if name == "validation":
            assert peer_sasrec.ndcg(lists, task.relevant) == pytest.approx(validation_ndcg(Draw(data), divided, 10))
    peer_sasrec.write(tmp_path / "peer.json", json.dumps({"requests": task.meta["requests"]}).encode())
    for ours, read in zip(draw, read_peer(tmp_path, data, divided).rankings, strict=True):
        assert (ours == read).all()


def test_a_history_that_the_peer_knows_nothing_of_gets_the_most_popular_unseen_items(
    data: Dataset, tmp_path: Path
) -> None:
    write_requests(tmp_path, data, split(data))
    task = peer_sasrec.read_task(tmp_path)
    filled = peer_sasrec.fill(["i 20"], ["i 0"], task)
    assert filled[0] == "i 20"
    assert len({*filled}) == 20
    assert "i 0" not in filled
    counts = [sum(items.count(item) for items in task.train.values()) for item in filled[1:]]
    assert counts == sorted(counts, reverse=True)


def test_candidates_fit_the_log_and_a_large_catalogue_gets_a_sampled_loss(data: Dataset, tmp_path: Path) -> None:
    write_requests(tmp_path, data, split(data))
    task = peer_sasrec.read_task(tmp_path)
    candidates = peer_sasrec.grid(task)
    assert {one["session_max_len"] for one in candidates} == {8}
    assert {one["loss"] for one in candidates} == {"softmax"}
    assert all(candidates.count(one) == 1 for one in candidates)
    large = task._replace(meta={**task.meta, "n_items": 68_000})
    assert {one["loss"] for one in peer_sasrec.grid(large)} == {"gBCE"}


def test_candidates_of_an_interrupted_call_count_only_where_they_answer_the_same(tmp_path: Path) -> None:
    path = tmp_path / "peer.json"
    assert peer_sasrec.earlier(path, {"seed": 0}) == []
    path.write_text(json.dumps({"seed": 0, "tried": [{"n_factors": 64}]}))
    assert peer_sasrec.earlier(path, {"seed": 0}) == [{"n_factors": 64}]
    assert peer_sasrec.earlier(path, {"seed": 1}) == []


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``python -m edgerec evaluate``."""
    command = [sys.executable, "-m", "edgerec", "evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command_writes_requests_and_puts_peers_into_the_table(data: Dataset, tmp_path: Path, peer: Path) -> None:
    source = tmp_path / "data"
    written = run(source, "--no-baselines", "--requests", tmp_path / "again")
    assert written.returncode == 0, written.stderr
    for path in (peer / "requests").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    result = json.loads(run(source, "--no-baselines", "--run", f"drawn={peer}", "--json").stdout)
    assert [row["name"] for row in result["rows"]] == ["drawn"]
    assert result["peers"]["drawn"]["seed"] == 7


@pytest.mark.parametrize("runs", [["{peer}"], ["={peer}"], ["a="], ["a={peer}", "a={peer}"], ["a={peer}/requests"]])
def test_a_wrong_run_option_is_one_line_and_exit_code_2(tmp_path: Path, peer: Path, runs: list[str]) -> None:
    options = [part for one in runs for part in ("--run", one.format(peer=peer))]
    result = run(tmp_path / "data", "--no-baselines", *options)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert ("expected NAME=DIR" in result.stderr) == (runs != ["a={peer}/requests"])
