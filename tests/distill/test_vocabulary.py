"""A trimmed WordPiece cuts the catalogue as the whole one does, and loses no word that the whole one could cut."""

from __future__ import annotations

import json

import numpy as np
import tokenizers

from edgerec.distill.vocabulary import trim

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "film", "##s", "red", "##wine", "zebra", *"abcdefilmnrswz", "##a", "##e"]
WORDS += [f"##{letter}" for letter in "bcdfilmnrwz"] + ["영화", "영", "##화"]


def whole() -> str:
    """Return a WordPiece tokenizer over ``WORDS``."""
    model = tokenizers.models.WordPiece({word: row for row, word in enumerate(WORDS)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(WORDS[:4])
    return tokenizer.to_str()


def cut(tokenizer_json: str, text: str) -> list[str]:
    """Return a text's tokens."""
    return tokenizers.Tokenizer.from_str(tokenizer_json).encode(text).tokens


def test_catalogue_texts_are_cut_as_before_and_ids_follow_the_kept_rows() -> None:
    texts = ["films redwine", "영화 film"]
    trimmed = trim(whole(), texts, words=0)
    assert len(trimmed.kept) < len(WORDS)
    for text in texts:
        assert cut(trimmed.tokenizer_json, text) == cut(whole(), text)
        new = tokenizers.Tokenizer.from_str(trimmed.tokenizer_json).encode(text).ids
        assert trimmed.kept[new].tolist() == tokenizers.Tokenizer.from_str(whole()).encode(text).ids


def test_an_unseen_word_falls_back_to_pieces_and_to_unknown_only_where_the_whole_one_does() -> None:
    trimmed = trim(whole(), ["film"], words=0)
    assert "zebra" not in json.loads(trimmed.tokenizer_json)["model"]["vocab"]
    for word in ("zebra", "films", "영화", "🎉", "wine"):
        assert ("[UNK]" in cut(trimmed.tokenizer_json, word)) == ("[UNK]" in cut(whole(), word)), word
    assert cut(trimmed.tokenizer_json, "zebra")[1:-1] == ["z", "##e", "##b", "##r", "##a"]


def test_other_kinds_are_kept_whole_and_say_why() -> None:
    saved = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1}, [])).to_str()
    trimmed = trim(saved, ["a"])
    assert trimmed.tokenizer_json == saved
    assert np.array_equal(trimmed.kept, [0, 1])
    assert "BPE is not WordPiece" in trimmed.reason
