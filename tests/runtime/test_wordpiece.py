"""Plain texts get the tokens that ``tokenizers`` gives them; what is not plain is left to it."""

from __future__ import annotations

import string
from typing import Any

import tokenizers

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerec.runtime.wordpiece import WordPiece, word_piece

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = ["red", "wine", "a", "b", "1995", "!", "-", "'", "##s", "##ed", "##d", "##a", "##b", "#", "s", "x" * 120]
MOST = 12
PARTS = st.sampled_from(["red", "Wine", "a", "b", "1995", "reds", "redab", "##s", " ", "  ", "-", "qq", "x" * 120])
TEXTS = st.lists(PARTS | st.text(string.printable + "é中\x00[", max_size=4), max_size=30).map("".join)


def bert(lowercase: bool = True, around: tuple[str, str] = ("[CLS]", "[SEP]")) -> Any:
    """Return a small tokenizer of BERT's parts."""
    vocabulary = {word: place for place, word in enumerate([*SPECIAL, *WORDS, "RED"])}
    made = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100)
    )
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{around[0]} $A {around[1]}", special_tokens=[(word, vocabulary[word]) for word in around]
    )
    made.add_special_tokens(SPECIAL)
    made.enable_truncation(MOST)
    return made


LOWERS, KEEPS = bert(), bert(lowercase=False)


def reader(tokenizer: Any) -> WordPiece:
    """Return what reads a tokenizer's plain texts."""
    found = word_piece(tokenizer, MOST)
    assert found
    return found


@settings(deadline=None)
@given(text=TEXTS)
@pytest.mark.parametrize("tokenizer", [LOWERS, KEEPS], ids=["lowers", "keeps"])
def test_tokens_are_those_of_tokenizers(tokenizer: Any, text: str) -> None:
    found = reader(tokenizer).ids(text)
    assert found is None or found == tokenizer.encode(text).ids


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Red-wine!", ["red", "-", "wine", "!"]),
        ("reds, redab", ["red", "##s", "[UNK]", "red", "##a", "##b"]),  # no comma is known
        ("redq " + "x" * 120, ["[UNK]", "[UNK]"]),  # no piece for q; a word beyond 100 characters, known or not
        ("", []),
        ("a " * 20, ["a"] * (MOST - 2)),  # cut to what fits between the two around
    ],
)
def test_a_plain_text_is_read_here(text: str, words: list[str]) -> None:
    expected = [LOWERS.token_to_id(word) for word in ("[CLS]", *words, "[SEP]")]
    assert reader(LOWERS).ids(text) == expected == LOWERS.encode(text).ids


@pytest.mark.parametrize("text", ["café", "a\tb", "a\x00b", "[CLS]", "a [b"])
def test_what_is_not_plain_is_left_to_tokenizers(text: str) -> None:
    assert reader(LOWERS).ids(text) is None


def other(**parts: Any) -> Any:
    """Return the tokenizer with some parts replaced."""
    made = bert()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def with_word(word: str) -> Any:
    """Return the tokenizer with a further token that it looks for in texts."""
    made = bert()
    made.add_tokens([word])
    return made


@pytest.mark.parametrize(
    "tokenizer",
    [
        other(normalizer=tokenizers.normalizers.NFC()),
        other(pre_tokenizer=tokenizers.pre_tokenizers.Whitespace()),
        other(model=tokenizers.models.BPE()),
        other(model=tokenizers.models.WordPiece({"a": 0}, unk_token="[UNK]")),
        with_word("redwine"),
        bert(around=("!", "[SEP]")),
    ],
    ids=["normalizer", "words", "model", "no unknown", "word of its own", "frame of text"],
)
def test_another_tokenizer_is_left_alone(tokenizer: Any) -> None:
    assert word_piece(tokenizer, MOST) is None


def test_a_tokenizer_without_room_for_a_word_is_left_alone() -> None:
    cramped = bert()
    cramped.enable_truncation(2)
    assert word_piece(cramped, 2) is None
