"""Targets become the largest sizes that meet them, and what cannot be is refused; words are kept by measured damage."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import tokenizers
import torch
from transformers import BertConfig, BertModel

import pytest

from edgerec.distill import safety
from edgerec.distill.shapes import Shape, resized, spread
from edgerec.distill.sizing import STEPS, Plan, Sizes, Target, planned, require_smaller, within
from edgerec.distill.static import StaticConfig
from edgerec.distill.student import StudentEncoder, random_student
from edgerec.distill.vocabulary import open_tokenizer, trim
from edgerec.errors import UsageError

WORDS = ["".join(letters) for letters in product("abcdefg", repeat=2)]
HAVE = Shape(384, 32, (12,) * 6, (1536,) * 6)


def flops(plan: Plan) -> float:
    """Return the share of FLOPs."""
    assert isinstance(plan, Shape)
    return plan.flops(10) / HAVE.flops(10)


def test_flops_and_weights_are_those_of_the_matrices() -> None:
    shape = Shape(8, 4, (2, 1), (16, 3))
    one, two = (2 * (4 * 8 * 4 * heads + 2 * 8 * units) for heads, units in ((2, 16), (1, 3)))
    assert shape.flops(0) == one + two
    assert shape.flops(10) - shape.flops(0) == 2 * 2 * 10 * 4 * 3  # scores and mixture of three heads of width 4
    bert = BertModel(BertConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=1, intermediate_size=1))
    assert sum(one.numel() for one in resized(bert, shape).encoder.parameters()) == shape.layer_parameters()
    assert Shape.of(bert) == shape


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_target_is_met_and_no_larger_scaling_meets_it(share: float) -> None:
    for sizes in (Sizes(), Sizes(layers=6, hidden=384)):
        found = within(HAVE, sizes, Target("flops", share), flops)
        assert flops(found) <= share
        assert isinstance(found, Shape)
        asked = replace(sizes, layers=found.layers)
        larger = [planned(HAVE, asked, step / STEPS) for step in range(1, STEPS + 1)]
        assert max(flops(one) for one in larger if flops(one) <= share) == flops(found) > 0.9 * share
    assert (found.layers, found.hidden) == (6, 384)


def test_given_sizes_stay_and_the_others_are_scaled_to_at_least_one() -> None:
    assert planned(HAVE, Sizes(layers=2, heads=3, intermediate=100), 1.0) == Shape(384, 32, (3, 3), (100, 100))
    assert planned(HAVE, Sizes(), 0.001) == Shape(1, 32, (1,), (2,))
    assert planned(Shape(8, 4, (2, 1), (3, 4)), Sizes(), 1.0) == Shape(8, 4, (2, 1), (4, 3))
    assert spread(7, 3) == (3, 2, 2)


def test_what_cannot_be_is_refused() -> None:
    for sizes, message in (
        (Sizes(layers=7), "got layers 7; expected 1 to 6"),
        (Sizes(heads=0), "got heads 0"),
        (Sizes(hidden=385), "pruning only removes"),
    ):
        with pytest.raises(UsageError, match=message):
            require_smaller(HAVE, sizes)
    with pytest.raises(UsageError, match="a static student has no heads"):
        require_smaller(StaticConfig(8), Sizes(heads=1))
    require_smaller(StaticConfig(8), Sizes(hidden=8, vocabulary=3))
    with pytest.raises(UsageError, match="the model has 1 already"):
        within(HAVE, Sizes(), Target("flops", 1.0), flops)
    with pytest.raises(UsageError, match="the smallest that pruning reaches"):
        within(HAVE, Sizes(layers=6, hidden=384), Target("flops", 0.0001), flops)
    with pytest.raises(UsageError, match="at least one head"):
        Shape(8, 4, (2, 0), (1, 1))


def test_safety_grows_until_titles_to_come_are_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, tokenizer, titles = reader(), word_piece(), [f"one {word}" for word in WORDS]
    monkeypatch.setattr(safety, "SIZES", (0, 20, 999))
    monkeypatch.setattr(safety, "TOLERANCE", -1.0)  # never met: all sizes are tried
    tried = safety.measured_words(encoder, tokenizer, titles).tried
    damage, tokens = ([one[name] for one in tried] for name in ("damage", "tokens"))
    assert [one["words"] for one in tried] == [0, 20, 999]
    assert damage[0] > damage[1] > 1e-3 and abs(damage[2]) < 1e-6
    assert tokens[0] < tokens[1] < tokens[2] == open_tokenizer(tokenizer).get_vocab_size()
    monkeypatch.setattr(safety, "TOLERANCE", damage[1])
    assert safety.measured_words(encoder, tokenizer, titles).words == 20
    trimmed, found = safety.chosen(encoder, tokenizer, titles[:10], titles[:10], None, 0)
    assert found is not None and "damage to unseen titles" in trimmed.reason


def test_a_vocabulary_of_so_many_tokens_keeps_those_of_the_texts() -> None:
    tokenizer, texts = word_piece(), [WORDS[30]]
    total, least = open_tokenizer(tokenizer).get_vocab_size(), len(trim(word_piece(), texts, 0).kept)
    for tokens in (least, least + 7, total):
        assert len(safety.fitting(tokenizer, texts, tokens).kept) == tokens
        assert open_tokenizer(safety.fitting(tokenizer, texts, tokens).tokenizer_json).encode(texts[0]).tokens == texts
    for tokens in (least - 1, total + 1):
        with pytest.raises(UsageError, match=f"at most the {total} that there are, and at least {least}"):
            safety.fitting(tokenizer, texts, tokens)


def word_piece() -> str:
    """Return a tokenizer of letters, and of ``WORDS`` in order of use."""
    letters = "abcdefgno"
    vocabulary = ["[UNK]", *letters, *(f"##{one}" for one in letters), "one", *WORDS]
    model = tokenizers.models.WordPiece({token: row for row, token in enumerate(vocabulary)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return tokenizer.to_str()


def reader() -> StudentEncoder:
    """Return a random student whose tokens differ."""
    bert = BertModel(BertConfig(vocab_size=100, attn_implementation="eager"))
    size = open_tokenizer(word_piece()).get_vocab_size()
    encoder = random_student(bert, Shape(24, 8, (3,), (48,)), np.arange(size), 8)
    assert isinstance(encoder, StudentEncoder)
    with torch.no_grad():
        encoder.bert.embeddings.word_embeddings.weight.normal_()
    return encoder
