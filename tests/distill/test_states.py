"""Hidden states and relations are zero for a student that is its teacher, and pull another one towards it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers

import pytest

from edgerec.distill.losses import LossWeights
from edgerec.distill.states import StateGuide
from edgerec.distill.static import StaticEncoder
from edgerec.distill.student import StudentConfig, StudentEncoder, random_student, tokenise
from edgerec.distill.text_student import TextStudent
from edgerec.distill.vocabulary import read_tokenizer
from edgerec.errors import UsageError

TEXTS = [f"title red {n}" for n in range(12)] + ["영화 blue", "blue"]
BOTH = LossWeights(hidden=1.0, relation=1.0)


def guide(student: TextStudent | None, folder: Path, weights: LossWeights = BOTH) -> StateGuide:
    """Return a guide over ``TEXTS``; without a student, one between the teacher and itself."""
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    student = student or StudentEncoder(model, 4)
    tokens = tokenise(read_tokenizer(folder), TEXTS)
    return StateGuide(student, model, np.arange(model.config.vocab_size), tokens, tokens, weights)


def student(folder: Path) -> TextStudent:
    """Return a random student."""
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModel.from_config(config)
    return random_student(model, StudentConfig(1, 12, 2, 24), np.arange(config.vocab_size), 4)


def test_a_student_that_is_its_teacher_has_nothing_to_learn(small_bert: Path) -> None:
    terms = guide(None, small_bert)(torch.arange(len(TEXTS)))
    assert float(terms["relation"].detach()) == pytest.approx(0.0, abs=1e-6)
    assert float(terms["hidden"].detach()) == pytest.approx(0.0, abs=1e-5)  # the projection was fitted: the identity


def test_training_on_them_alone_lowers_both_and_leaves_the_teacher_alone(small_bert: Path) -> None:
    encoder = student(small_bert)
    both = guide(encoder, small_bert)
    teacher = both.models[1]
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    assert not any(name.startswith("models") for name in both.state_dict())
    optimiser = torch.optim.Adam([*encoder.parameters(), *both.parameters()], lr=1e-2)
    rows, values = torch.arange(len(TEXTS)), []
    for _ in range(40):
        terms = both(rows)
        values.append({name: float(term.detach()) for name, term in terms.items()})
        optimiser.zero_grad()
        sum(terms.values()).backward()
        optimiser.step()
    assert values[-1]["hidden"] < 0.7 * values[0]["hidden"]
    assert values[-1]["relation"] < values[0]["relation"]
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_only_what_has_a_weight_is_computed(small_bert: Path) -> None:
    rows = torch.arange(len(TEXTS))
    hidden = guide(student(small_bert), small_bert, LossWeights(hidden=1.0))
    assert set(hidden(rows)) == {"hidden"}
    relation = guide(student(small_bert), small_bert, LossWeights(relation=1.0))
    assert set(relation(rows)) == {"relation"} and not list(relation.parameters())


def test_a_static_student_learns_states_and_has_no_relations(small_bert: Path) -> None:
    encoder = StaticEncoder(len(read_tokenizer(small_bert)), 6, 4)
    terms = guide(encoder, small_bert, LossWeights(hidden=1.0))(torch.arange(len(TEXTS)))
    terms["hidden"].backward()
    assert encoder.table.weight.grad is not None and bool(encoder.table.weight.grad.any())
    with pytest.raises(UsageError, match="a static student has no attention"):
        guide(encoder, small_bert)
