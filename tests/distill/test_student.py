"""A student is made of the teacher, comes back from disk as it was, and training brings it nearer to the teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers

import pytest

from edgerec.data import load as load_data
from edgerec.distill.augment import views
from edgerec.distill.distillation import Recipe, distill, lengthen
from edgerec.distill.encoder import cached_text_vectors
from edgerec.distill.losses import LossWeights, vector_distance
from edgerec.distill.projection import student_from
from edgerec.distill.student import StudentConfig, load, random_student, save, tokenise
from edgerec.distill.text_training import TextTraining
from edgerec.distill.towers import TowerConfig, Towers
from edgerec.distill.training import TrainOptions
from edgerec.distill.vocabulary import read_tokenizer
from edgerec.errors import DataError, UsageError
from edgerec.splits import split

TEXTS = [f"title red {n}" for n in range(12)] + ["영화 blue", "blue"]
SMALL = StudentConfig(1, 12, 2, 24)


def teacher_model(folder: Path) -> transformers.PreTrainedModel:
    """Open the teacher."""
    return transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()


def test_it_starts_nearer_than_chance_and_survives_the_disk(small_bert: Path, tmp_path: Path) -> None:
    tokenizer = read_tokenizer(small_bert)
    tokens = tokenise(tokenizer, TEXTS)
    goal = torch.from_numpy(cached_text_vectors(TEXTS, small_bert))
    model, kept = teacher_model(small_bert), np.arange(teacher_model(small_bert).config.vocab_size)
    student = student_from(model, SMALL, kept, tokens, goal, 0).eval()
    control = random_student(model, SMALL, kept, goal.shape[1], 0).eval()
    with torch.no_grad():
        made = student(tokens["input_ids"], tokens["attention_mask"])
        drawn = control(tokens["input_ids"], tokens["attention_mask"])
    assert vector_distance(made, goal) < 0.5 * vector_distance(drawn, goal)
    save(tmp_path / "student", student, tokenizer)
    again, saved_tokenizer = load(tmp_path / "student")
    with torch.no_grad():
        torch.testing.assert_close(again(tokens["input_ids"], tokens["attention_mask"]), made)
    assert saved_tokenizer == tokenizer
    assert transformers.AutoModel.from_pretrained(tmp_path / "student").config.hidden_size == 12
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "student")("blue")["input_ids"]
    with pytest.raises(DataError, match="holds no student"):
        load(small_bert)


def test_a_student_larger_than_its_teacher_is_refused(small_bert: Path) -> None:
    tokens = tokenise(read_tokenizer(small_bert), TEXTS)
    goal = torch.zeros(len(TEXTS), 4)
    for config in (StudentConfig(3, 12, 2, 24), StudentConfig(1, 48, 2, 24), StudentConfig(1, 12, 2, 96)):
        with pytest.raises(UsageError):
            student_from(teacher_model(small_bert), config, np.arange(20), tokens, goal, 0)


def test_distillation_brings_the_vectors_nearer(small_bert: Path, cycle: Path, tmp_path: Path) -> None:
    data = load_data(str(cycle))
    divided = split(data)
    towers = Towers(cached_text_vectors(data.texts, small_bert), divided.warm, TowerConfig(8)).eval()
    options = TrainOptions(steps=40, batch_size=8, learning_rate=1e-2, evaluate_every=40)
    recipe = Recipe(LossWeights(next_item=0.05, vectors=30.0, listwise=1.0), sample=12, views=1, held_out=0.1)
    made = distill(towers, small_bert, data.texts, divided, SMALL, options, tmp_path / "run", False, recipe)
    report = made.report
    assert report["texts"]["unseen"] == 1
    assert report["student"]["cosine"]["seen"] >= report["start"]["cosine"]["seen"]
    assert report["student"]["cosine"]["seen"] > report["random"]["cosine"]["seen"]
    with pytest.raises(UsageError, match="expected one per item"):
        distill(towers, small_bert, data.texts[1:], divided, SMALL, options, tmp_path / "other", False, recipe)


def test_only_the_drawn_rows_of_the_table_are_re_encoded() -> None:
    towers = Towers(np.eye(6, dtype=np.float32), np.ones(6, np.bool_), TowerConfig(6))
    weight = torch.nn.Parameter(torch.eye(6) * 2)
    held_out = torch.tensor([False] * 5 + [True])
    training = TextTraining(towers, lambda rows: weight[rows], towers.text.clone(), LossWeights(), 2, held_out)
    before = training.table.clone()
    loss = training(torch.tensor([[0, 1]]), torch.tensor([[1, 2]]), torch.tensor([[0, 1]]))["loss"]
    loss.backward()
    changed = (training.table != before).any(dim=1)
    assert 1 <= int(changed.sum()) <= 2
    assert not changed[5]
    assert torch.equal(weight.grad.abs().sum(1) > 0, changed)
    training.refresh()
    assert torch.equal(training.table, weight)


def test_vectors_get_the_mean_length_of_the_goal(small_bert: Path) -> None:
    student = random_student(teacher_model(small_bert), SMALL, np.arange(20), 4)
    tokens = torch.arange(12).reshape(4, 3), torch.ones(4, 3, dtype=torch.long)
    before, goal = student(*tokens).detach(), torch.full((4, 4), 3.0)
    ratio = lengthen(student, before, goal)
    assert float(student(*tokens).detach().norm(dim=1).mean()) == pytest.approx(6, rel=1e-5)
    torch.testing.assert_close(student(*tokens), before * ratio)


def test_a_text_that_was_held_out_joins_late_and_is_judged_as_it_was_before() -> None:
    towers = Towers(np.eye(6, dtype=np.float32), np.ones(6, np.bool_), TowerConfig(6))
    weight = torch.nn.Parameter(torch.eye(6) * 2)
    held_out = torch.tensor([False] * 5 + [True])
    training = TextTraining(towers, lambda rows: weight[rows], towers.text.clone(), LossWeights(), 4, held_out)
    assert all(5 not in training.draw(torch.tensor([[5, 1]])) for _ in range(20))
    training.admit()
    assert all(5 in training.draw(torch.tensor([[0, 1]])) for _ in range(20))
    before = weight[5].detach().clone()
    with torch.no_grad():
        weight[5] = 0
    training.admit()  # again, as after an interruption
    assert torch.equal(training.unseen[0], before)


def test_views_are_new_distinct_seeded_and_never_blank() -> None:
    texts = ["Star Wars. 1977. Action, Adventure", "기생충. 2019", "🎉", "  "]
    made = views(texts, 30, seed=3)
    assert made == views(texts, 30, seed=3)
    assert len(made) == len(set(made)) and not set(made) & set(texts) and all(view.strip() for view in made)


def test_equal_text_parts_lose_nothing_whatever_was_dropped() -> None:
    towers = Towers(np.eye(6, dtype=np.float32), np.ones(6, np.bool_), TowerConfig(6))
    with torch.no_grad():
        towers.residual_in.normal_()
    weights = LossWeights(next_item=0.0, vectors=0.0, listwise=1.0)
    training = TextTraining(towers, lambda rows: towers.text[rows], towers.text.clone(), weights, 6).train()
    windows = torch.tensor([[0, 1]]), torch.tensor([[1, 2]]), torch.tensor([[0, 1]])
    assert float(training(*windows)["loss"]) == pytest.approx(0, abs=1e-6)
    before = training.score_terms(*windows, 2 * towers.text)["listwise"]
    assert float(before) > 0.01


def test_a_step_re_encodes_fewer_texts_where_they_are_long(small_bert: Path) -> None:
    student = random_student(teacher_model(small_bert), SMALL, np.arange(20), 4)
    assert student.affordable(torch.ones(5, 10)) == 128
    assert student.affordable(torch.ones(5, 100)) == 40
    assert student.affordable(torch.ones(5, 9999)) == 1
