"""What does nothing is found and goes, and the outputs stay; what is pruned comes back from disk as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers

import pytest

from edgerec.distill import student as sizes
from edgerec.distill.importance import gated, read
from edgerec.distill.projection import norms
from edgerec.distill.pruning import keep_channels, keep_heads_and_units, keep_layers, keep_tokens
from edgerec.distill.shapes import Shape
from edgerec.distill.sizing import best, best_over_layers, best_within
from edgerec.distill.static import StaticConfig
from edgerec.distill.student import StudentConfig, StudentEncoder, load, random_student, save, tokenise
from edgerec.distill.text_student import TextStudent
from edgerec.distill.vocabulary import read_tokenizer

TEXTS = [f"title red {n}" for n in range(12)] + ["영화 blue", "blue"]
DEAD_HEADS, DEAD_UNITS, DEAD_CHANNELS = [(0, 1), (1, 0), (1, 2)], [(0, 5), (0, 40), (1, 7)], [3, 11, 20]


def roberta() -> transformers.RobertaModel:
    """Return a random RoBERTa of the small BERT's sizes, that counts positions from 2."""
    config = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}
    more = {"vocab_size": 21, "max_position_embeddings": 160, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
    of = transformers.RobertaConfig(**config, **more, attn_implementation="eager")
    return transformers.RobertaModel(of, add_pooling_layer=False)


def encoder_of(small_bert: Path, kind: str = "bert") -> StudentEncoder:
    """Return a student with weights of a size that shows, the small BERT's or a RoBERTa's."""
    torch.manual_seed(1)
    if kind == "bert":
        bert = transformers.AutoModel.from_pretrained(small_bert, attn_implementation="eager", add_pooling_layer=False)
    else:
        bert = roberta()
    encoder = StudentEncoder(bert, 8, normalised=True)
    with torch.no_grad():
        for name, one in encoder.named_parameters():
            if "LayerNorm" not in name:
                one.normal_(std=0.3)
    return encoder.eval()


@pytest.fixture(params=["bert", "roberta"])
def encoder(small_bert: Path, request: pytest.FixtureRequest) -> StudentEncoder:
    """Return either kind."""
    return encoder_of(small_bert, request.param)


@pytest.fixture
def tokens(small_bert: Path) -> dict[str, torch.Tensor]:
    """Return texts as tokens."""
    return tokenise(read_tokenizer(small_bert), TEXTS)


@torch.no_grad()
def answers(encoder: TextStudent, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return text parts."""
    return encoder.eval()(tokens["input_ids"], tokens["attention_mask"])


@torch.no_grad()
def plant(encoder: StudentEncoder) -> None:
    """Make some heads, units and channels do nothing.

    A dead channel is written by nobody and read by nobody; the others have a mean of 0 before each norm, so that what
    the norm's mean and variance lose with it is one factor.
    """
    for layer, head in DEAD_HEADS:
        encoder.bert.encoder.layer[layer].attention.output.dense.weight[:, 8 * head : 8 * head + 8] = 0
    for layer, unit in DEAD_UNITS:
        encoder.bert.encoder.layer[layer].output.dense.weight[:, unit] = 0
    live = [channel for channel in range(24) if channel not in DEAD_CHANNELS]
    embeddings = encoder.bert.embeddings
    for table in (embeddings.word_embeddings, embeddings.position_embeddings, embeddings.token_type_embeddings):
        table.weight[:, DEAD_CHANNELS] = 0
        table.weight[:, live] -= table.weight[:, live].mean(1, keepdim=True)
    for norm in norms(encoder.bert):
        norm.weight[DEAD_CHANNELS] = norm.bias[DEAD_CHANNELS] = 0
        norm.bias[live] -= norm.bias[live].mean()  # with equal scales, what a norm gives has a mean of 0 too
    for layer in encoder.bert.encoder.layer:
        for writes in (layer.attention.output.dense, layer.output.dense):
            writes.weight[DEAD_CHANNELS] = writes.bias[DEAD_CHANNELS] = 0
            writes.weight[live] -= writes.weight[live].mean(0)
            writes.bias[live] -= writes.bias[live].mean()


def test_exactly_what_does_nothing_goes_and_outputs_stay(
    encoder: StudentEncoder, tokens: dict[str, torch.Tensor]
) -> None:
    plant(encoder)
    before = answers(encoder, tokens)
    with gated(encoder) as gates:
        encoder(tokens["input_ids"], tokens["attention_mask"]).square().sum().backward()
        gates.collect()
    torch.testing.assert_close(answers(encoder, tokens), before, rtol=0, atol=0)  # the factors are gone again
    found = read(gates, encoder)
    heads, units = best_over_layers(found.heads, 3), best_over_layers(found.units, 2 * 48 - 3)
    channels = torch.tensor(best(found.channels, 21))
    assert gone([3, 3], heads) == DEAD_HEADS and gone([48, 48], units) == DEAD_UNITS
    assert sorted(set(range(24)) - set(channels.tolist())) == DEAD_CHANNELS
    assert [int((one == 0).sum()) for one in (*found.heads, *found.units, found.channels)] == [1, 2, 2, 1, 3]
    pruned = keep_heads_and_units(encoder, heads, units)
    assert Shape.of(pruned.bert) == Shape(24, 8, (2, 1), (46, 47))
    torch.testing.assert_close(answers(pruned, tokens), before, rtol=0, atol=1e-5)
    narrow = keep_channels(pruned, channels, tokens)
    assert Shape.of(narrow.bert) == Shape(21, 8, (2, 1), (46, 47))
    torch.testing.assert_close(answers(narrow, tokens), before, rtol=0, atol=1e-5)
    torch.testing.assert_close(answers(encoder, tokens), before, rtol=0, atol=0)  # surgery leaves its patient alone


def gone(sizes: list[int], kept: list[torch.Tensor]) -> list[tuple[int, int]]:
    """Return layer and place of what is not kept."""
    return [
        (layer, place)
        for layer, (size, rows) in enumerate(zip(sizes, kept, strict=True))
        for place in range(size)
        if place not in rows
    ]


def test_a_layer_that_adds_nothing_goes_first(encoder: StudentEncoder, tokens: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        first = encoder.bert.encoder.layer[0]
        for writes in (first.attention.output.dense, first.output.dense):
            writes.weight.zero_()
            writes.bias.zero_()
    before = answers(encoder, tokens)
    with gated(encoder) as gates:
        encoder(tokens["input_ids"], tokens["attention_mask"]).square().sum().backward()
        gates.collect()
    scores = read(gates, encoder).layers
    assert best(scores, 1) == [1] and scores[1] > 1e4 * scores[0]
    torch.testing.assert_close(answers(keep_layers(encoder, [1]), tokens), before, rtol=0, atol=1e-5)


def test_an_importance_is_what_the_loss_changes_by_where_a_head_fades(
    small_bert: Path, tokens: dict[str, torch.Tensor]
) -> None:
    encoder, one = encoder_of(small_bert), {name: value[:1] for name, value in tokens.items()}
    loss: Callable[[], torch.Tensor] = lambda: encoder(one["input_ids"], one["attention_mask"])[:, 0].sum()  # noqa: E731
    with gated(encoder) as gates:
        loss().backward()
        gates.collect()
    found, dense = read(gates, encoder), encoder.bert.encoder.layer[1].attention.output.dense
    with torch.no_grad():
        before = loss()
        dense.weight[:, 8:16] *= 1 - 1e-2
        changed = abs(float(loss() - before)) / 1e-2
    assert float(found.heads[1][1]) ** 0.5 == pytest.approx(changed, rel=0.05)


def test_tokens_go_without_a_trace_and_positions_that_no_text_reaches(
    encoder: StudentEncoder, tokens: dict[str, torch.Tensor]
) -> None:
    kept = torch.arange(1, 19)  # neither token 0, so that a RoBERTa's padding moves, nor the last ones
    few = {name: value[:12] for name, value in tokens.items()}
    pruned = keep_tokens(encoder, kept)
    assert isinstance(pruned, StudentEncoder) and pruned.bert.config.vocab_size == 18
    renamed = few | {"input_ids": torch.searchsorted(kept, few["input_ids"])}
    torch.testing.assert_close(answers(pruned, renamed), answers(encoder, few), rtol=0, atol=1e-5)
    longest = torch.ones(1, encoder.max_tokens, dtype=torch.long) * 2
    assert torch.isfinite(pruned(longest, torch.ones_like(longest))).all()
    assert pruned.bert.config.max_position_embeddings - encoder.max_tokens in (0, 1)


def test_a_pruned_student_comes_back_from_disk_as_it_was(
    encoder: StudentEncoder, small_bert: Path, tokens: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    rows = [[torch.tensor(one) for one in part] for part in ([[0, 2], [1]], [[0, 5, 9], list(range(40))])]
    pruned = keep_channels(keep_heads_and_units(encoder, *rows), torch.arange(0, 24, 2), tokens)
    save(tmp_path / "one", pruned, read_tokenizer(small_bert))
    again, _ = load(tmp_path / "one")
    assert again.student_config == pruned.student_config == Shape(12, 8, (2, 1), (3, 40))
    torch.testing.assert_close(answers(again, tokens), answers(pruned, tokens), rtol=0, atol=0)
    with pytest.raises((RuntimeError, ValueError)):  # no configuration of transformers can say it
        transformers.AutoModel.from_pretrained(tmp_path / "one")
    control = sizes.control(again, 21)
    assert control.student_config == again.student_config
    assert torch.isfinite(answers(control, tokens)).all()


def test_layers_that_are_left_whole_stay_what_transformers_opens(
    encoder: StudentEncoder, small_bert: Path, tmp_path: Path
) -> None:
    pruned = keep_layers(encoder, [0])
    assert pruned.student_config == StudentConfig(1, 24, 3, 48)
    save(tmp_path / "one", pruned, read_tokenizer(small_bert))
    assert len(transformers.AutoModel.from_pretrained(tmp_path / "one").encoder.layer) == 1
    again, _ = load(tmp_path / "one")
    assert isinstance(again, StudentEncoder) and again.normalised


def test_a_static_student_loses_tokens_and_channels_that_do_nothing(tokens: dict[str, torch.Tensor]) -> None:
    encoder = random_student(None, StaticConfig(8), np.arange(21), 8)
    with torch.no_grad():
        encoder.head.weight[:, [2, 5]] = 0
    before = answers(encoder, tokens)
    with gated(encoder) as gates:
        encoder(tokens["input_ids"], tokens["attention_mask"]).square().sum().backward()
        gates.collect()
    kept = torch.tensor(best(read(gates, encoder).channels, 6))
    assert kept.tolist() == [0, 1, 3, 4, 6, 7]
    torch.testing.assert_close(answers(keep_channels(encoder, kept, tokens), tokens), before, rtol=0, atol=1e-6)
    assert keep_tokens(encoder, torch.arange(5, 21)).student_config == StaticConfig(8)


def test_a_budget_is_spent_on_what_is_worth_most_for_its_cost() -> None:
    heads, units = torch.tensor([8.0, 1.0]), torch.tensor([3.0, 2.0, 0.1])
    kept = best_within([heads, units], [4.0, 1.0], 6.0)
    assert [one.tolist() for one in kept] == [[0], [0, 1]]  # 8 + 3 + 2 for 6
    assert [one.tolist() for one in best_within([heads, units], [4.0, 1.0], 0.0)] == [[0], [0]]  # one of each stays
    assert [one.tolist() for one in best_within([heads, units], [4.0, 1.0], 99.0)] == [[0, 1], [0, 1, 2]]
