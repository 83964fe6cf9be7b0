"""The tokenizer of a catalogue: a WordPiece vocabulary cut to what the items' texts and any other text need.

A multilingual or general vocabulary is most of a small encoder (30,522 rows of 128 floats are 16 MB), and a catalogue
uses a few thousand of its tokens. WordPiece takes the longest token that fits, so a subset that holds all the tokens of
a text cuts that text as before; every other text falls back to shorter tokens, down to single characters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerec.errors import DataError, UsageError, require

WORDS = 1000  # common words that stay whether the catalogue uses them or not: they are what people type


@dataclass(frozen=True)
class Trimmed:
    """A tokenizer and where its tokens come from."""

    tokenizer_json: str
    kept: NDArray[np.int64]  # [V']: the old id of each new id, ascending
    reason: str  # how much was kept, and why


def read_tokenizer(folder: Path) -> str:
    """Return the ``tokenizer.json`` text of a Hugging Face folder, without its padding and truncation.

    It is taken from the loaded tokenizer, since ``tokenizer_config.json`` can override the file's lower-casing.

    Raises:
        DataError: The folder holds no tokenizer.
        UsageError: It is one that only runs in Python.
    """
    transformers = require("transformers", "distill")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{folder} holds no tokenizer ({first}); expected a model folder") from error
    if not tokenizer.is_fast:
        raise UsageError(f"got {type(tokenizer).__name__} in {folder}; expected a tokenizer with a tokenizer.json")
    saved = json.loads(tokenizer.backend_tokenizer.to_str())
    return json.dumps(saved | {"padding": None, "truncation": None}, ensure_ascii=False)


def open_tokenizer(tokenizer_json: str) -> Any:
    """Return a ``tokenizers.Tokenizer`` that neither pads nor truncates."""
    tokenizer = require("tokenizers", "text").Tokenizer.from_str(tokenizer_json)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def whole(tokenizer_json: str) -> Trimmed:
    """Return a tokenizer with all of its tokens."""
    tokens = open_tokenizer(tokenizer_json).get_vocab()
    kept = np.arange(max(tokens.values()) + 1, dtype=np.int64)
    return Trimmed(tokenizer_json, kept, f"all {len(tokens)} tokens kept")


def taken(tokenizer_json: str, teacher_json: str) -> Trimmed:
    """Return a student's tokenizer as it is, with the ids that its tokens have in the teacher's.

    Raises:
        UsageError: It has a token that the teacher's lacks.
    """
    old, new = (open_tokenizer(one).get_vocab() for one in (teacher_json, tokenizer_json))
    if unknown := new.keys() - old.keys():
        raise UsageError(
            f"the student has {len(unknown)} tokens that its teacher lacks, such as {min(unknown)!r}; expected the "
            "teacher that it was distilled from"
        )
    kept = np.array([old[token] for token in sorted(new, key=lambda token: new[token])], dtype=np.int64)
    return Trimmed(tokenizer_json, kept, f"the student's {len(kept)} tokens")


def trim(tokenizer_json: str, texts: Sequence[str], words: int = WORDS) -> Trimmed:
    """Cut a WordPiece tokenizer to special tokens, the tokens of ``texts`` and a safety set.

    Args:
        tokenizer_json: Of a ``tokenizers.Tokenizer``.
        texts: The catalogue's, and any further ones that must be cut as before.
        words: How many whole words are kept in the vocabulary's order, which is by frequency in BERT's.

    Returns:
        The new tokenizer, and the rows of the embedding table that belong to it. Any other kind of tokenizer comes back
        whole: leaving a merge out of a BPE would change how words that remain are cut.
    """
    saved = json.loads(tokenizer_json)
    model, tokenizer = saved["model"], open_tokenizer(tokenizer_json)
    if model.get("type") != "WordPiece":
        untouched = whole(tokenizer_json)
        return replace(untouched, reason=f"{untouched.reason}: {model.get('type')} is not WordPiece")
    special = {token["id"] for token in saved["added_tokens"]} | {model["vocab"][model["unk_token"]]}
    used = {token for encoding in tokenizer.encode_batch(list(texts)) for token in encoding.ids}
    safe = safety_set(model["vocab"], model["continuing_subword_prefix"], words)
    kept = np.array(sorted(special | used | safe), dtype=np.int64)
    renumber(saved, {int(old): new for new, old in enumerate(kept)})
    total = tokenizer.get_vocab_size()
    reason = f"kept {len(kept)} of {total} tokens: {len(used)} that the texts use, special and common ones"
    return Trimmed(json.dumps(saved, ensure_ascii=False), kept, reason)


def safety_set(vocabulary: dict[str, int], prefix: str, words: int) -> set[int]:
    """Return ids that let any word be cut: single characters, and the first ``words`` whole words.

    A token with a character that has no token of its own there (as a word's first, or as a later one) stays whole.
    """
    safe, ordinary = set(), 0
    for token, row in sorted(vocabulary.items(), key=lambda entry: entry[1]):
        later = token.startswith(prefix) and token != prefix
        characters = token.removeprefix(prefix) if later else token
        forms = [prefix + one if later or place else one for place, one in enumerate(characters)]
        bracketed = token.startswith("[") and token.endswith("]")  # [unused7]
        if len(characters) == 1 or (not bracketed and any(form not in vocabulary for form in forms)):
            safe.add(row)
        elif not later and not bracketed and ordinary < words:
            safe.add(row)
            ordinary += 1
    return safe


def renumber(saved: dict[str, Any], new: dict[int, int]) -> None:
    """Give the tokens of a parsed ``tokenizer.json`` their new ids, in place, wherever an id stands."""
    vocabulary = saved["model"]["vocab"]
    saved["model"]["vocab"] = {
        token: new[row] for token, row in sorted(vocabulary.items(), key=lambda entry: entry[1]) if row in new
    }
    for token in saved["added_tokens"]:
        token["id"] = new[token["id"]]
    if saved.get("padding"):
        saved["padding"]["pad_id"] = new[saved["padding"]["pad_id"]]
    processor = saved.get("post_processor") or {}
    for one in [processor, *processor.get("processors", [])]:  # a Sequence holds several
        for token in one.get("special_tokens", {}).values() if isinstance(one.get("special_tokens"), dict) else ():
            token["ids"] = [new[row] for row in token["ids"]]
        for role in {"sep", "cls"} & set(one):  # BertProcessing
            one[role][1] = new[one[role][1]]
