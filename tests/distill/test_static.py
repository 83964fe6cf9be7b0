"""A static student is a weighted mean of rows that fit the teacher, and the other commands cannot tell it apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers

import pytest

from edgerec.data import load as load_data
from edgerec.distill.distillation import Recipe, distill
from edgerec.distill.encoder import cached_text_vectors
from edgerec.distill.losses import LossWeights, vector_distance
from edgerec.distill.static import StaticConfig, StaticEncoder, static_from, token_parts
from edgerec.distill.student import StudentConfig, control, load, save, sized, tokenise
from edgerec.distill.towers import TowerConfig, Towers
from edgerec.distill.training import TrainOptions
from edgerec.distill.vocabulary import read_tokenizer, trim, whole
from edgerec.errors import DataError, UsageError
from edgerec.interactions import Split
from edgerec.splits import split

TOKENS = {
    "input_ids": torch.tensor([[2, 4, 5, 3], [2, 4, 3, 0], [2, 5, 3, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0]]),
}


@pytest.fixture
def taught(cycle: Path, small_bert: Path) -> tuple[Towers, list[str], Split]:
    """The towers of the ring, their texts and the split."""
    data = load_data(str(cycle))
    divided = split(data)
    return Towers(cached_text_vectors(data.texts, small_bert), divided.warm, TowerConfig(8)).eval(), data.texts, divided


def test_it_is_the_weighted_mean_of_real_tokens_and_a_linear_head() -> None:
    encoder = StaticEncoder(6, 2, 3)
    with torch.no_grad():
        encoder.table.weight.copy_(torch.arange(12.0).view(6, 2))
        encoder.log_weights.weight.copy_(torch.tensor([9.0, 0, -30, -30, 0, np.log(3)])[:, None])  # brackets: nothing
        encoder.head.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [1, 1]]))
        encoder.head.bias.zero_()
        parts = encoder(TOKENS["input_ids"], TOKENS["attention_mask"])
    rows = [0.25 * np.array([8, 9]) + 0.75 * np.array([10, 11]), np.array([8, 9]), np.array([10, 11])]
    np.testing.assert_allclose(parts, [[*row, row.sum()] for row in rows], rtol=1e-5)
    nothing = encoder(torch.tensor([[0]]), torch.tensor([[0]]))  # a text of no token at all
    assert torch.isfinite(nothing).all()


def test_the_fit_gives_texts_that_are_means_of_tokens_and_leaves_unused_tokens_at_the_prior() -> None:
    torch.manual_seed(0)
    prior, goal = torch.randn(7, 4), torch.randn(2, 4)
    alone = {"input_ids": torch.tensor([[4], [5]] * 50), "attention_mask": torch.ones(100, 1, dtype=torch.long)}
    encoder = static_from(StaticConfig(9), prior, alone, goal.repeat(50, 1))
    assert encoder.student_config == StaticConfig(4)  # no wider than what it has to give
    with torch.no_grad():
        parts = encoder(torch.tensor([[4], [5], [6]]), torch.ones(3, 1))
    np.testing.assert_allclose(parts[:2], goal, atol=0.02)
    np.testing.assert_allclose(parts[2], prior[6], atol=1e-4)


def test_a_token_alone_has_the_vector_that_the_teacher_gives_its_text(small_bert: Path) -> None:
    texts = ["red", "blue", "영화"]
    model = transformers.AutoModel.from_pretrained(small_bert, attn_implementation="eager").eval()
    ids = tokenise(read_tokenizer(small_bert), texts[:2])["input_ids"][:, 1]
    projection = torch.randn(24, 5)
    parts = token_parts(model, ids, [2, 3], projection)
    np.testing.assert_allclose(parts, cached_text_vectors(texts[:2], small_bert) @ projection.numpy(), atol=1e-5)


def test_it_starts_near_training_brings_it_nearer_and_it_survives_the_disk(
    small_bert: Path, taught: tuple[Towers, list[str], Split], tmp_path: Path
) -> None:
    towers, texts, divided = taught
    recipe = Recipe(LossWeights(next_item=0.05, vectors=30.0, listwise=1.0), views=1, held_out=0.1)
    options = TrainOptions(steps=40, batch_size=8, learning_rate=1e-2, evaluate_every=40, keep_best=False)
    config = sized("static", {"hidden": 6})
    made = distill(towers, small_bert, texts, divided, config, options, tmp_path / "run", False, recipe)
    cosines = {name: made.report[name]["cosine"]["seen"] for name in ("student", "start", "random")}
    assert cosines["student"] >= cosines["start"] > cosines["random"]
    save(tmp_path / "static", made.encoder, made.tokenizer_json)
    again, tokenizer_json = load(tmp_path / "static")
    tokens = tokenise(tokenizer_json, texts)
    with torch.no_grad():
        assert torch.equal(again(**tokens), made.encoder.eval()(**tokens))
        drawn = control(again, len(trim(tokenizer_json, texts).kept))(**tokens)
    assert drawn.shape == (12, 8)
    assert vector_distance(made.encoder(**tokens), towers.text) < vector_distance(drawn, towers.text)
    (tmp_path / "static" / "static.safetensors").write_bytes(b"cut")
    with pytest.raises(DataError, match="holds no student"):
        load(tmp_path / "static")


def test_vocabulary_and_start_can_be_left_alone(
    small_bert: Path, taught: tuple[Towers, list[str], Split], tmp_path: Path
) -> None:
    towers, texts, divided = taught
    options = TrainOptions(steps=1, batch_size=8, learning_rate=1e-9, evaluate_every=1, keep_best=False)
    for config in (StaticConfig(6), StudentConfig(1, 12, 2, 24)):
        recipe = Recipe(LossWeights(vectors=0.0), words=None, from_scratch=True)  # undistilled: the next item alone
        folder = tmp_path / type(config).__name__
        made = distill(towers, small_bert, texts, divided, config, options, folder, False, recipe)
        assert made.tokenizer_json == read_tokenizer(small_bert)
        assert made.report["vocabulary"] == f"all {len(whole(made.tokenizer_json).kept)} tokens kept"
        # the same shape, the same seed, no teacher: the start is the control
        assert made.report["start"]["cosine"] == made.report["random"]["cosine"]


def test_sizes_are_chosen_one_by_one_and_those_that_a_preset_lacks_are_refused() -> None:
    assert sized("tiny", {"layers": 3, "hidden": 64}) == StudentConfig(3, 64, 4, 512)
    assert sized("static", {"hidden": 32}) == StaticConfig(32)
    with pytest.raises(UsageError, match="a static student has no heads; expected hidden"):
        sized("static", {"heads": 2})
    with pytest.raises(UsageError, match="expected one of static, tiny, small"):
        sized("huge", {})
    with pytest.raises(UsageError, match="expected at least 1"):
        sized("static", {"hidden": 0})
