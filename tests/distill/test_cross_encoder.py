"""A cross-encoder on small random weights: what it reads, what it learns of the ring, what it reranks."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner, Result
from transformers import BertConfig, BertModel, GPT2Config

import pytest

from edgerec.cli import group
from edgerec.data import load
from edgerec.distill import LOSSES, NEGATIVES, checkpoint, cross_encoder
from edgerec.distill.cross_encoder import CANDIDATE_TOKENS, CrossEncoder, Reranker, open_cross_encoder
from edgerec.distill.cross_training import CrossOptions, examples, fine_tune_cross, pair_loss
from edgerec.distill.training import TrainOptions, Windows
from edgerec.errors import DataError, UsageError
from edgerec.interactions import FloatArray, Ragged, Requests
from edgerec.splits import split

RING = [f"title {'red' if n % 2 else 'blue'} {n}" for n in range(12)]


class Descending:
    """Two towers' stand-in: lower rows score higher, whatever the history."""

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items

    def score(self, requests: Requests) -> FloatArray:
        """Return the same scores for every request."""
        return np.tile(-np.arange(self.n_items, dtype=np.float32), (len(requests), 1))


@pytest.fixture(scope="session")
def pair_bert(small_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of the small one's vocabulary with a tokenizer that puts two texts together, and weights to learn from."""
    folder = tmp_path_factory.mktemp("pairs") / "bert"
    shutil.copytree(small_bert, folder)
    saved = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    special = [
        {"SpecialToken": {"id": name, "type_id": kind}} for name, kind in (("[CLS]", 0), ("[SEP]", 0), ("[SEP]", 1))
    ]
    first, second = ({"Sequence": {"id": name, "type_id": kind}} for name, kind in (("A", 0), ("B", 1)))
    saved["post_processor"]["pair"] = [special[0], first, special[1], second, special[2]]
    (folder / "tokenizer.json").write_text(json.dumps(saved), "utf-8")
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}
    sizes |= {"vocab_size": len(saved["model"]["vocab"]), "max_position_embeddings": 160, "initializer_range": 0.2}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    BertModel(BertConfig(**sizes, **still)).save_pretrained(folder)
    return folder


@pytest.fixture
def cross(pair_bert: Path) -> CrossEncoder:
    """An untrained cross-encoder over the ring's titles."""
    torch.manual_seed(0)
    return open_cross_encoder(pair_bert, RING, RING, history=2)


def asked(histories: list[list[int]]) -> Requests:
    """Return requests without answers."""
    return Requests(np.arange(len(histories), dtype=np.int32), Ragged.from_lists(histories), Ragged.from_lists([]))


def run(*arguments: object) -> Result:
    """Run a command and raise what it raises."""
    return CliRunner().invoke(group, [str(one) for one in arguments], catch_exceptions=False)


def test_a_pair_is_the_last_titles_newest_first_then_the_candidate(
    cross: CrossEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    tokenizer = cross.tokenizer

    def listen(*texts: object, **options: object) -> object:
        tokens = tokenizer(*texts, **options)
        read.extend(tokenizer.batch_decode(tokens["input_ids"]))
        return tokens

    monkeypatch.setattr(cross, "tokenizer", listen)
    cross.logits([cross.told(np.array([3, 4, 5]))], [cross.candidates[6]])
    assert read == ["[CLS] title red 5 [UNK] title blue 4 [SEP] title blue 6 [SEP]"]


def test_a_long_history_is_cut_at_the_oldest_and_a_long_candidate_at_its_end(pair_bert: Path) -> None:
    long = [f"{'red ' * 200}{n}" for n in range(3)]
    cross = open_cross_encoder(pair_bert, long, long, history=3)
    assert all(len(text.split()) == CANDIDATE_TOKENS for text in cross.candidates)
    both = cross.interest(Ragged.from_lists([[0, 1], [2, 1]]), np.array([[0], [0]], np.int32))
    np.testing.assert_allclose(*both, atol=1e-6)  # the newest title leaves no room for another
    assert np.isfinite(cross.interest(Ragged.from_lists([[]]), np.array([[1]], np.int32))).all()


def test_interest_is_the_same_in_any_batch_and_none_is_minus_infinity(
    cross: CrossEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories, candidates = [[0], [4, 5, 6], []], np.array([[1, 2], [7, -1], [0, 3]], np.int32)
    together = cross.interest(Ragged.from_lists(histories), candidates)
    assert together[1, 1] == -np.inf
    monkeypatch.setattr(cross_encoder, "BATCH", 1)
    done: list[int] = []
    alone = cross.interest(Ragged.from_lists(histories), candidates, done.append)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert done == [1, 2, 3, 4, 5]
    with torch.no_grad():
        direct = cross([np.array(one, np.int32) for one in histories], np.abs(candidates))
    np.testing.assert_allclose(direct[:, 0], together[:, 0], atol=1e-5)


def test_examples_are_one_asked_target_per_window_with_what_came_before() -> None:
    windows = Windows(Ragged.from_lists([[5, 6, 7, 8], [1, 2, 3], [9, 9]]), np.array([0, 0, 1, 2, 0, 1, 2, 4, 4]), 10)
    batch = windows([0, 1, 2])
    torch.manual_seed(0)
    seen: set[tuple[tuple[int, ...], int]] = set()
    for _ in range(50):
        histories, positives = examples(**batch)
        seen |= {(tuple(map(int, one)), int(item)) for one, item in zip(histories, positives, strict=True)}
    assert seen == {((5, 6), 7), ((5, 6, 7), 8), ((1,), 2), ((1, 2), 3)}  # 5 and 6 are one basket, and so are the 9s
    nothing = windows([2])
    assert examples(**nothing)[0] == []


def test_losses_are_least_where_they_should_be() -> None:
    right, wrong = torch.tensor([[9.0, -9.0, -9.0]]), torch.tensor([[-9.0, 9.0, -9.0]])
    for loss in LOSSES:
        assert pair_loss(right, right, loss) < 1e-3 < pair_loss(wrong, right, loss)
    assert pair_loss(right + 5, right, "mse") == pytest.approx(0, abs=1e-6)  # a group's mean is left open


@pytest.mark.parametrize("mask_seen", [True, False])
def test_the_top_is_ordered_by_the_cross_encoder_and_the_rest_stays_below(cross: CrossEncoder, mask_seen: bool) -> None:
    requests = asked([[0, 2], [5]])
    before = Descending(12).score(requests)
    after = Reranker(cross, Descending(12), mask_seen, top=4).score(requests)
    top = np.array([[1, 3, 4, 5], [0, 1, 2, 3]] if mask_seen else [[0, 1, 2, 3]] * 2, np.int32)
    interest = cross.interest(requests.histories, top)
    for line, old, items, values in zip(after, before, top, interest, strict=True):
        rest = np.setdiff1d(np.arange(12), items)
        assert line[items].min() > line[rest].max()
        assert np.array_equal(line[rest], old[rest])
        np.testing.assert_allclose(line[items] - line[items[0]], values - values[0], atol=1e-5)


class RingScores:
    """Two towers that know the ring."""

    def score(self, requests: Requests) -> FloatArray:
        """Return 8 for the item after the last, 0 for the rest."""
        last = np.array([requests.histories[row][-1] for row in range(len(requests))])
        return 8 * np.eye(12, dtype=np.float32)[(last + 1) % 12]


@pytest.mark.parametrize(("loss", "least"), [("ce", 0.9), ("bce", 0.75), ("mse", 0.9)])
def test_the_ring_is_learned(loss: str, least: float, pair_bert: Path, cycle: Path, tmp_path: Path) -> None:
    """Random weights, one title told: which of twelve comes next is in the pair alone."""
    data = load(str(cycle))
    train = TrainOptions(150, 16, learning_rate=3e-3, evaluate_every=150, keep_best=False)
    options = CrossOptions(loss, ("uniform", "popularity"), history=1, train=train)
    first = RingScores() if loss == "mse" else Descending(12)
    report = fine_tune_cross(data, split(data), pair_bert, first, options, tmp_path / "cross")
    trained = cross_encoder.load(tmp_path / "cross", data)
    everything = np.tile(np.arange(12, dtype=np.int32), (12, 1))
    interest = trained.interest(Ragged.from_lists([[row] for row in range(12)]), everything)
    own = interest[np.arange(12), (np.arange(12) + 1) % 12]
    assert (own[:, None] > interest).mean() * 12 / 11 > least  # share of others that the next beats: chance is a half
    assert report["users"] == "32 of 40"
    assert report["examples"] == "2400 drawn of 120"


def test_a_cross_encoder_from_the_command_line_reranks_in_evaluate(
    pair_bert: Path, cycle: Path, tmp_path: Path
) -> None:
    teacher, out = tmp_path / "teacher", tmp_path / "cross"
    options = ("--steps", 20, "--embedding-size", 16, "--tie", "shared", "--top-layers", 0)
    run("fine-tune", cycle, "--encoder", pair_bert, "--out", teacher, *options)
    command = ("fine-tune-cross", cycle, "--teacher", teacher, "--out", out, "--pairs", 16, "--batch-size", 4)
    mixed = [word for kind in NEGATIVES for word in ("--negatives", kind)]
    report = json.loads(run(*command, *mixed, "--json").stdout.splitlines()[-1])
    assert report["examples"] == "16 drawn of 120"
    scored = (
        "evaluate",
        cycle,
        "--no-baselines",
        "--model",
        teacher,
        "--model",
        out,
        "--rerank",
        teacher,
        "--users",
        10,
    )
    result = json.loads(run(*scored, "--json").stdout)
    assert [row["name"] for row in result["rows"]][-1] == "cross: top 50 of teacher, reranked"
    assert all(row["test"][0]["users"] == 10 for row in result["rows"])
    assert result["split"]["test_users"] == 10 and result["split"]["of_users"] == 40
    assert "10 of 40 users" in run(*scored).stdout
    with pytest.raises(UsageError, match="is a cross-encoder, which ranks no catalogue; name two towers with --rerank"):
        run("evaluate", cycle, "--no-baselines", "--model", out)
    with pytest.raises(UsageError, match="exists already"):
        run(*command)
    with pytest.raises(DataError, match="a cross-encoder has no towers"):
        run("export", out, "--out", tmp_path / "ring.edgerec")


def test_refusals(pair_bert: Path, cycle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown loss 'hinge'; expected one of ce, bce, mse"):
        CrossOptions(loss="hinge")
    with pytest.raises(UsageError, match="a history of 0 events"):
        CrossOptions(history=0)
    with pytest.raises(DataError, match="holds no text encoder"):
        open_cross_encoder(tmp_path / "nothing", RING, RING)
    decoder = GPT2Config(vocab_size=20, n_positions=16, n_embd=8, n_layer=1, n_head=1)
    decoder.save_pretrained(tmp_path / "decoder")
    with pytest.raises(UsageError, match=r"holds a decoder \(gpt2\)"):
        open_cross_encoder(tmp_path / "decoder", RING, RING)
    data = load(str(cycle))
    options = CrossOptions(top_layers=3)
    with pytest.raises(UsageError, match="has 2 layers, the top 3 are to be trained"):
        fine_tune_cross(data, split(data), pair_bert, Descending(12), options, tmp_path / "deep")
    written = {**checkpoint.origin(data, split(data)), "kind": "cross-encoder", "options": {"history": 1}}
    (tmp_path / "model.json").write_text(json.dumps(written))
    with pytest.raises(UsageError, match="was made from data"):
        cross_encoder.load(tmp_path, replace(data, fingerprint="0" * 64))
    with pytest.raises(DataError, match="holds no finished cross-encoder"):
        cross_encoder.load(tmp_path / "decoder", data)
