"""A model folder as a benchmark subject: the same towers and text encoder, run by torch. One process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgerec.benchmarks.adapters import K, NotHere
from edgerec.distill.checkpoint import load
from edgerec.distill.encoder import MAX_TOKENS
from edgerec.distill.student import load as load_student
from edgerec.distill.teacher import TeacherEncoder
from edgerec.distill.vocabulary import open_tokenizer, read_tokenizer


class TorchSubject:
    """Towers and text encoder of a model folder, a teacher's or a student's.

    Args:
        kind: Of the requests; sessions are not among them, torch keeps no state here.
        folder: What ``edgerec fine-tune`` or ``edgerec distill`` wrote.
        threads: Of torch.
        mode: "eager" or "compiled".
        device: "cpu" or "cuda".
    """

    def __init__(self, kind: str, folder: str, threads: int, mode: str, device: str) -> None:
        self.folder, self.threads, self.mode, self.device = Path(folder), threads, mode, device
        self.run_one: Callable[[Any], Any] = getattr(self, kind)

    def prepare(self) -> None:
        """Load the folder; compile where that is asked for."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise NotHere("torch sees no CUDA device")
        torch.set_num_threads(self.threads)
        checkpoint = load(self.folder)
        arrays = checkpoint.towers.arrays()
        if len(arrays.repeat_decays):
            raise NotHere("torch's towers are measured without repeat recencies only")
        self.ids, self.towers = checkpoint.ids, checkpoint.towers.to(self.device)
        self.row_of = {item: row for row, item in enumerate(self.ids)}
        self.mask_seen = checkpoint.info["data"]["mask_seen"]
        self.item_in, self.item_out, self.bias, text = (
            torch.from_numpy(one).to(self.device) for one in (arrays.item_in, arrays.item_out, arrays.bias, arrays.text)
        )
        self.text = torch.nn.functional.normalize(text, dim=1)
        encoder: torch.nn.Module
        longest: int
        if checkpoint.info["kind"] == "student":
            encoder, tokenizer_json = load_student(checkpoint.encoder)
            longest = encoder.max_tokens
        else:
            longest = MAX_TOKENS
            encoder = TeacherEncoder(checkpoint.encoder, checkpoint.towers.projection.detach())
            tokenizer_json = read_tokenizer(checkpoint.encoder)
        encoder, self.tokenizer = encoder.eval().to(self.device), open_tokenizer(tokenizer_json)
        self.tokenizer.enable_truncation(longest)
        self.encoder: Callable[..., Tensor] = encoder
        self.scores: Callable[[Tensor], Tensor] = self._scores
        if self.mode == "compiled":
            self.encoder = torch.compile(encoder, dynamic=True)
            self.scores = torch.compile(self._scores, dynamic=True)

    def close(self) -> None:
        """Nothing is held outside the process."""

    def _scores(self, history: Tensor) -> Tensor:
        """Return the scores of every item after a history of rows, [L] -> [n_items]."""
        decays = self.towers.decay_logits.sigmoid()[:, None]
        ages = torch.arange(len(history) - 1, -1, -1, device=history.device)
        weights = (self.towers.mix[:, None] * decays**ages).sum(0)
        user = torch.nn.functional.normalize(weights @ self.item_in[history], dim=0)
        return self.item_out @ (self.towers.log_scale.exp() * user) + self.bias

    @torch.inference_mode()
    def recommend(self, history: Sequence[str]) -> list[str]:
        """Recommend after a whole history."""
        rows = torch.tensor([self.row_of[item] for item in history], device=self.device)
        scores = self.scores(rows)
        if self.mask_seen:
            scores[rows] = -torch.inf
        return self._named(scores)

    @torch.inference_mode()
    def encode(self, text: str) -> Any:
        """Return a text's vector; tokenization is inside."""
        return torch.nn.functional.normalize(self._vector(text), dim=0).cpu().numpy()

    @torch.inference_mode()
    def search(self, query: str) -> list[str]:
        """Search the catalogue's text parts; tokenization is inside."""
        return self._named(self.text @ self._vector(query))

    def _vector(self, text: str) -> Tensor:
        ids = torch.tensor([self.tokenizer.encode(text).ids], device=self.device)
        return self.encoder(ids, torch.ones_like(ids))[0]

    def _named(self, scores: Tensor) -> list[str]:
        return [self.ids[row] for row in scores.topk(min(K, len(scores))).indices.tolist()]
