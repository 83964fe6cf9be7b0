"""The cross-encoder: history and candidate read as one text, so that every token of one sees every token of the other.

``titles of the last events, newest first [SEP] candidate's text`` -> interest. That costs one pass of the encoder per
pair, where two towers cost one product: it can rerank a short list or teach, never rank a catalogue.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from edgerec.distill import checkpoint
from edgerec.distill.encoder import MAX_TOKENS, Progress, is_decoder, no_encoder, no_progress, read_config
from edgerec.errors import DataError, UsageError
from edgerec.interactions import Dataset, FloatArray, IntArray, Ragged, Requests
from edgerec.metrics import Scorer, top_k

KIND = "cross-encoder"
HISTORY = 10  # events
CANDIDATE_TOKENS = 48  # at most; the history gets the rest of MAX_TOKENS
JOINT = "; "  # between titles
BATCH = 64  # pairs per forward pass of `interest`
TOP = 50  # items that a reranker orders anew


class CrossEncoder(nn.Module):
    """A sequence-pair classifier with one output over one catalogue.

    Args:
        model: Of transformers' ``AutoModelForSequenceClassification``, with one label.
        tokenizer: A fast one.
        titles: What a history says of each item.
        texts: What a candidate says of itself; cut to ``CANDIDATE_TOKENS``.
        history: Events that are told; what does not fit is cut at the oldest.
    """

    def __init__(
        self, model: Any, tokenizer: Any, titles: Sequence[str], texts: Sequence[str], history: int = HISTORY
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.titles, self.history = model, tokenizer, titles, history
        self.candidates = shortened(tokenizer, texts, CANDIDATE_TOKENS)

    def told(self, history: IntArray) -> str:
        """Return a history (item rows, oldest first) as text."""
        return JOINT.join(self.titles[row] for row in history[::-1][: self.history])

    def logits(self, told: list[str], candidates: list[str]) -> Tensor:
        """Return the interest of each pair of texts, [P]."""
        tokens = self.tokenizer(
            told, candidates, truncation="only_first", max_length=MAX_TOKENS, padding=True, return_tensors="pt"
        )
        if getattr(self.model.config, "type_vocab_size", 0) < 2:  # RoBERTa, DistilBERT
            tokens.pop("token_type_ids", None)
        return self.model(**tokens.to(self.model.device)).logits[:, 0]

    def forward(self, histories: Sequence[IntArray], candidates: IntArray) -> Tensor:
        """Return the interest in candidates int [R, C] after R histories (item rows, oldest first), [R, C]."""
        told = [text for text in map(self.told, histories) for _ in range(candidates.shape[1])]
        return self.logits(told, [self.candidates[row] for row in candidates.flat]).view(candidates.shape)

    @torch.no_grad()
    def interest(self, histories: Ragged, candidates: IntArray, progress: Progress = no_progress) -> FloatArray:
        """Return the same without gradients, in batches of similar length.

        Args:
            histories: R lists of item rows, oldest first.
            candidates: int [R, C]; -1 for none.
            progress: Called with the number of pairs done.

        Returns:
            float32 [R, C], logits: their order within a row is what they mean; -inf where there is no candidate.
        """
        self.eval()
        interest = np.full(candidates.shape, -np.inf, dtype=np.float32)
        told = [self.told(histories[row]) for row in range(len(histories))]
        places = np.argwhere(candidates >= 0)
        lengths = [len(told[row]) + len(self.candidates[candidates[row, column]]) for row, column in places]
        places = places[np.argsort(lengths, kind="stable")]
        for start in range(0, len(places), BATCH):
            rows, columns = places[start : start + BATCH].T
            asked = [self.candidates[row] for row in candidates[rows, columns]]
            interest[rows, columns] = self.logits([told[row] for row in rows], asked).cpu().numpy()
            progress(start + len(rows))
        return interest


class Reranker:
    """Two towers whose best items a cross-encoder orders anew (a ``Scorer``).

    Args:
        cross: The cross-encoder.
        first: What ranks the catalogue.
        mask_seen: Whether the items of a history are left out of the ranking, so that none takes a place in the top.
        top: Items per request that are ordered anew.
        progress: Called with the number of pairs done since the start.
    """

    def __init__(
        self, cross: CrossEncoder, first: Scorer, mask_seen: bool, top: int = TOP, progress: Progress = no_progress
    ) -> None:
        self.cross, self.first, self.mask_seen, self.top, self.progress = cross, first, mask_seen, top, progress
        self.done = 0

    def score(self, requests: Requests) -> FloatArray:
        """Return scores of the whole catalogue, float32 [R, n_items]: the top's above all others, which keep theirs."""
        scores = self.first.score(requests)
        open_ = scores.copy()
        if self.mask_seen:
            rows = np.repeat(np.arange(len(requests)), requests.histories.lengths)
            open_[rows, requests.histories.values] = -np.inf
        top = top_k(open_, self.top)
        interest = self.cross.interest(requests.histories, top, lambda pairs: self.progress(self.done + pairs))
        self.done += int((top >= 0).sum())
        for line, items, values in zip(scores, top, interest, strict=True):
            items, values = items[items >= 0], values[items >= 0]
            line[items] = line.max() + 1 + values - values.min(initial=np.inf)
        return scores


def shortened(tokenizer: Any, texts: Sequence[str], most: int) -> list[str]:
    """Return texts cut after ``most`` tokens.

    Raises:
        UsageError: The tokenizer does not say where its tokens stand.
    """
    if not tokenizer.is_fast:
        raise UsageError(f"got {type(tokenizer).__name__}; expected a tokenizer with a tokenizer.json")
    encoded = tokenizer(
        list(texts), add_special_tokens=False, truncation=True, max_length=most, return_offsets_mapping=True
    )
    spans = encoded["offset_mapping"]
    return [text[: tokens[-1][1] if tokens else 0] for text, tokens in zip(texts, spans, strict=True)]


def open_cross_encoder(
    folder: Path, titles: Sequence[str], texts: Sequence[str], history: int = HISTORY
) -> CrossEncoder:
    """Open a Hugging Face encoder as a cross-encoder; a head that it lacks is random.

    Raises:
        DataError: The folder holds no encoder.
        UsageError: It holds a decoder.
    """
    config = read_config(folder)
    if is_decoder(config):
        raise UsageError(
            f"{folder} holds a decoder ({config.model_type}), whose history cannot see the candidate; expected a "
            "BERT-like encoder: name one with --encoder"
        )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, num_labels=1
        )
    except (OSError, ValueError) as error:
        raise no_encoder(folder, error) from error
    return CrossEncoder(model.float(), tokenizer, titles, texts, history).eval()


def is_cross_encoder(folder: Path) -> bool:
    """Tell whether a model folder holds a cross-encoder."""
    try:
        return json.loads((folder / checkpoint.MODEL).read_text("utf-8"))["kind"] == KIND
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load(folder: Path, data: Dataset) -> CrossEncoder:
    """Read what ``cross_training.fine_tune_cross`` wrote.

    Raises:
        DataError: The folder holds no finished cross-encoder.
        UsageError: It was made from other data.
    """
    if not is_cross_encoder(folder):
        raise DataError(f"{folder} holds no finished cross-encoder; expected what `edgerec fine-tune-cross` wrote")
    info = json.loads((folder / checkpoint.MODEL).read_text("utf-8"))
    checkpoint.require_same_data(folder, info, data)
    return open_cross_encoder(folder / checkpoint.ENCODER, data.titles, data.texts, info["options"]["history"])
