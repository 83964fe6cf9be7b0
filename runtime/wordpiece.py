"""BERT's WordPiece for texts in printable ASCII, token for token as ``tokenizers`` has it, in a quarter of its time.

A short title keeps ``tokenizers`` busy with offsets, masks and copies that an encoder does not read. Of ASCII, BERT's
normalizer only lowers the letters, its pre-tokenizer parts words at blanks and signs, and most words are in the
vocabulary whole: a regular expression and a dict do it. Nothing is remembered from one text to the next.
"""

from __future__ import annotations

import re
from string import punctuation
from typing import Any

LOWERED = re.compile("[a-z0-9]+|[^ a-z0-9]").findall
CASED = re.compile("[A-Za-z0-9]+|[^ A-Za-z0-9]").findall
PARTS = ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
PROBE = "!"  # is a word by itself


class WordPiece:
    """The token ids of plain texts; made by ``word_piece``.

    Args:
        tokenizer: A ``tokenizers.Tokenizer`` of BERT's parts.
        around: The ids that it puts before and after a text.
        max_tokens: The most tokens of a text, those around it included.
    """

    def __init__(self, tokenizer: Any, around: tuple[list[int], list[int]], max_tokens: int) -> None:
        model = tokenizer.model
        vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=False)
        prefix, self._longest = model.continuing_subword_prefix, model.max_input_chars_per_word
        self._whole = {word: row for word, row in vocabulary.items() if len(word) <= self._longest}
        self._later = {word[len(prefix) :]: row for word, row in vocabulary.items() if word.startswith(prefix)}
        self._unknown = vocabulary[model.unk_token]
        self._longest_piece = max(map(len, vocabulary))
        self._lowers = tokenizer.normalizer.lowercase
        self._words = LOWERED if self._lowers else CASED
        self._signs = {token.content[0] for token in tokenizer.get_added_tokens_decoder().values()}
        self._before, self._after = around
        self._room = max_tokens - len(self._before) - len(self._after)

    def ids(self, text: str) -> list[int] | None:
        """Return the token ids of a text, or None where it is not plain: ``tokenizers`` knows then."""
        if not text.isascii() or not text.isprintable() or not self._signs.isdisjoint(text):
            return None
        words = self._words(text.lower() if self._lowers else text)
        rows: list[Any] = list(map(self._whole.get, words))
        if None in rows:
            rows = [row for word in words for row in self._pieces(word)]
        return [*self._before, *rows[: self._room], *self._after]

    def _pieces(self, word: str) -> list[int]:
        """Return the longest pieces of a word, one after the other, or the unknown token alone."""
        if len(word) > self._longest:
            return [self._unknown]
        known, start, found = self._whole, 0, []
        while start < len(word):
            end = min(len(word), start + self._longest_piece)
            while (row := known.get(word[start:end])) is None:
                end -= 1
                if end == start:
                    return [self._unknown]
            found.append(row)
            known, start = self._later, end
        return found


def word_piece(tokenizer: Any, max_tokens: int) -> WordPiece | None:
    """Return what does a tokenizer's work for plain texts, or None where it is not BERT's or has room for no word.

    Args:
        tokenizer: It truncates to ``max_tokens``.
        max_tokens: The most tokens of a text, those around it included.
    """
    if [type(part).__name__ for part in (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.model)] != PARTS:
        return None
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    if (
        tokenizer.model.token_to_id(tokenizer.model.unk_token) is None
        or not tokenizer.model.continuing_subword_prefix
        or not all(word[:1] in {*punctuation} for word in added)  # or a text could hold one unnoticed
    ):
        return None
    alone, framed = (tokenizer.encode(PROBE, add_special_tokens=special).ids for special in (False, True))
    if len(alone) != 1 or framed.count(alone[0]) != 1:
        return None
    place = framed.index(alone[0])
    return WordPiece(tokenizer, (framed[:place], framed[place + 1 :]), max_tokens)
