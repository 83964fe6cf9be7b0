"""How many common words a trimmed vocabulary keeps for texts to come: measured on titles that it has not seen.

Some titles are held out, and read with the tokens of the others and safety sets of growing size. Damage is 1 minus the
mean cosine of their text parts to those that all tokens give. The smallest set within a tolerance is kept.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgerec.distill.student import batches, tokenise
from edgerec.distill.text_student import TextStudent
from edgerec.distill.vocabulary import Trimmed, open_tokenizer, trim, whole
from edgerec.errors import UsageError

SHARE = 0.2  # of the distinct titles, held out
MOST = 500  # of them: MiniLM-L6 encodes 170 titles a second on one core
SIZES = (0, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000)  # common words
# Of the damage. MiniLM-L6 on ml-100k: 0.12 with no word, 0.11 with 1,000, 0.07 with 4,000, 0.0496 with 8,000 (10,950
# tokens in all, of 30,522), 0.026 with 16,000. A tiny student's own text parts of unseen titles are further off.
TOLERANCE = 0.05


@dataclass(frozen=True)
class Measured:
    """A safety set, and what was tried."""

    words: int
    tried: list[dict[str, float]]  # ``words``, ``tokens`` in all, ``damage``


@torch.no_grad()
def measured_words(encoder: TextStudent, tokenizer_json: str, titles: Sequence[str], seed: int = 0) -> Measured:
    """Return the smallest safety set whose damage is within ``TOLERANCE``, the largest where none is.

    Args:
        encoder: It reads the titles, with its whole vocabulary's vectors.
        tokenizer_json: The whole vocabulary.
        titles: The catalogue's.
        seed: Says which titles are held out.
    """
    distinct = sorted(set(titles))
    order = np.random.default_rng(seed).permutation(len(distinct))
    count = min(max(round(SHARE * len(distinct)), 1), MOST)
    held, others = ([distinct[row] for row in rows] for rows in (order[:count], order[count:]))
    full = parts(encoder, tokenise(tokenizer_json, held, encoder.max_tokens))
    total, tried = open_tokenizer(tokenizer_json).get_vocab_size(), []
    for words in SIZES:
        trimmed = trim(tokenizer_json, others, words)
        tokens = tokenise(trimmed.tokenizer_json, held, encoder.max_tokens)
        tokens["input_ids"] = torch.from_numpy(trimmed.kept)[tokens["input_ids"]]
        damage = 1 - float(functional.cosine_similarity(parts(encoder, tokens), full).mean())
        tried.append({"words": words, "tokens": len(trimmed.kept), "damage": damage})
        if damage <= TOLERANCE or words >= total:
            break
    return Measured(words, tried)


def parts(encoder: TextStudent, tokens: dict[str, Tensor]) -> Tensor:
    """Return the text parts of tokens, [n, d]."""
    encoder.eval()
    found = torch.empty(len(tokens["input_ids"]), encoder.head.out_features)
    for rows, ids, mask in batches(tokens):
        found[rows] = encoder(ids, mask)
    return found


def fitting(tokenizer_json: str, texts: Sequence[str], tokens: int) -> Trimmed:
    """Return the vocabulary of at most so many tokens that keeps all of the texts', and the most common words.

    Raises:
        UsageError: The texts' own tokens are more, or the vocabulary has fewer.
    """
    total, least = open_tokenizer(tokenizer_json).get_vocab_size(), len(trim(tokenizer_json, texts, 0).kept)
    if not least <= tokens <= total:
        raise UsageError(
            f"got a vocabulary of {tokens} tokens; expected at most the {total} that there are, and at least {least}, "
            "which the texts need"
        )
    words = bisect_right(range(total + 1), tokens, key=lambda count: len(trim(tokenizer_json, texts, count).kept)) - 1
    return trim(tokenizer_json, texts, words)


def chosen(
    encoder: TextStudent,
    tokenizer_json: str,
    titles: Sequence[str],
    texts: Sequence[str],
    tokens: int | None,
    seed: int,
) -> tuple[Trimmed, Measured | None]:
    """Return the vocabulary to keep: of so many tokens where that was asked for, else with a measured safety set.

    Args:
        encoder: It reads the titles.
        tokenizer_json: The whole vocabulary.
        titles: The catalogue's.
        texts: Those and further ones, all of which must be cut as before.
        tokens: How many to keep.
        seed: Says which titles are held out.

    Raises:
        UsageError: So many cannot be kept.
    """
    if tokens is not None:
        return fitting(tokenizer_json, texts, tokens), None
    trimmed = trim(tokenizer_json, texts, 0)
    if len(trimmed.kept) == len(whole(tokenizer_json).kept):  # no WordPiece, or nothing to leave out
        return trimmed, None
    found = measured_words(encoder, tokenizer_json, titles, seed)
    trimmed = trim(tokenizer_json, texts, found.words)
    last = found.tried[-1]["damage"]
    reason = f"{trimmed.reason}; damage to unseen titles {last:.3f} with {found.words} words, {TOLERANCE} allowed"
    return replace(trimmed, reason=reason), found
