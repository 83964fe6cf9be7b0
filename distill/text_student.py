"""What training, export and evaluation ask of a student's text encoder, whatever is inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn


class TextStudent(nn.Module, ABC):
    """Texts to text parts, in the space of ``Towers.text``: a pooled state [B, h], and a linear ``head`` from h to d.

    ``max_tokens`` is the longest text that it takes.
    """

    head: nn.Linear
    max_tokens: int
    texts_per_step: ClassVar[int]  # how many a training step re-encodes, where they are short
    tokens_per_step: ClassVar[int]  # how many tokens it can afford

    @abstractmethod
    def pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return one state [B, h] per text, of int [B, L] tokens."""

    @property
    @abstractmethod
    def student_config(self) -> Any:
        """The sizes, as the weights have them: a ``StudentConfig`` or a ``StaticConfig``."""

    @property
    @abstractmethod
    def stages(self) -> list[nn.Module]:
        """The modules that give token states [B, L, h], in running order."""

    def affordable(self, attention_mask: Tensor) -> int:
        """Return how many of the texts of a mask int [M, L] a training step re-encodes, at least one."""
        length = float(attention_mask.sum(1).float().mean())
        return max(min(self.texts_per_step, int(self.tokens_per_step / max(length, 1.0))), 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text parts [B, d], not normalised, of int [B, L] tokens."""
        return self.head(self.pooled(input_ids, attention_mask))
