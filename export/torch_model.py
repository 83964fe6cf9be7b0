"""A model folder run by torch: its towers and text encoder, one request at a time, as a benchmark's reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgerec.benchmarks.adapters import K, NotHere
from edgerec.distill.checkpoint import load
from edgerec.distill.encoder import MAX_TOKENS
from edgerec.distill.text_encoder import text_encoder, text_tokenizer


class TorchModel:
    """Towers and text encoder of a model folder, a teacher's or a student's.

    Args:
        folder: What ``edgerec fine-tune`` or ``edgerec distill`` wrote.
        threads: Of torch.
        device: "cpu" or "cuda".

    Raises:
        NotHere: There is no such device, or the towers have what is not measured here.
    """

    def __init__(self, folder: Path, threads: int, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise NotHere("torch sees no CUDA device")
        torch.set_num_threads(threads)
        checkpoint = load(folder)
        arrays = checkpoint.towers.arrays()
        if len(arrays.repeat_decays):
            raise NotHere("torch's towers are measured without repeat recencies only")
        self.device, self.ids, self.towers = device, checkpoint.ids, checkpoint.towers.to(device)
        self.row_of = {item: row for row, item in enumerate(self.ids)}
        self.mask_seen = checkpoint.info["data"]["mask_seen"]
        self.item_in, self.item_out, self.bias, text = (
            torch.from_numpy(one).to(device) for one in (arrays.item_in, arrays.item_out, arrays.bias, arrays.text)
        )
        self.text = torch.nn.functional.normalize(text, dim=1)
        self.tokenizer = text_tokenizer(checkpoint)
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.encoder: Callable[..., Tensor] = text_encoder(checkpoint).to(device)
        self.scores: Callable[[Tensor], Tensor] = self._scores

    def compile(self) -> None:
        """Have torch compile what is computed; it does so at the first requests."""
        self.encoder = torch.compile(self.encoder, dynamic=True)
        self.scores = torch.compile(self._scores, dynamic=True)

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
