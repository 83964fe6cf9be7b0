"""What a student is taught, and the student that is to learn it: texts, what the teacher makes of them, and tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgerec.distill.text_student import TextStudent

BUCKETS = 4  # forward passes per step, of texts of like length
MOST_TEXTS = 1024  # per forward pass


@dataclass(frozen=True)
class Lesson:
    """Texts, and what the teacher makes of them: the catalogue's first, then further ones."""

    texts: list[str]  # [M]
    goal: Tensor  # [M, d]
    held: NDArray[np.bool_]  # [n_items]: catalogue texts that are kept away until they have been judged

    @property
    def unseen(self) -> Tensor:
        """Which texts are kept away, bool [M]."""
        return torch.from_numpy(np.pad(self.held, (0, len(self.texts) - len(self.held))))


@dataclass(frozen=True)
class Pupil:
    """A student before its training, a random one of its size beside it, and the lesson's texts as it reads them."""

    student: TextStudent
    control: TextStudent
    tokens: dict[str, Tensor]  # ``input_ids`` and ``attention_mask``, int64 [M, L]
    vocabulary: str  # which tokens it knows, and why


class CachedTokens(nn.Module):
    """An encoder over texts that were cut into tokens once, equal texts once: from rows to vectors."""

    input_ids: Tensor  # int64 [D, L], of distinct texts
    attention_mask: Tensor
    text_of: Tensor  # int64 [M]: which of them a row has
    rows_at_once = 1 << 30  # they are parted here, after equal ones have met

    def __init__(self, encoder: TextStudent, tokens: dict[str, Tensor]) -> None:
        super().__init__()
        self.encoder = encoder
        both = torch.stack([tokens["input_ids"], tokens["attention_mask"]], dim=1)
        distinct, text_of = both.unique(dim=0, return_inverse=True)
        for name, value in (("input_ids", distinct[:, 0]), ("attention_mask", distinct[:, 1]), ("text_of", text_of)):
            self.register_buffer(name, value, persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Return text parts [m, d] of the texts at ``rows``."""
        texts, back = self.text_of[rows].unique(return_inverse=True)
        order = self.attention_mask[texts].sum(1).argsort()
        parts = []
        for chosen in texts[order].split(max(min(-(-len(texts) // BUCKETS), MOST_TEXTS), 1)):
            width = int(self.attention_mask[chosen].sum(1).max())  # all to one width would be half padding
            parts.append(self.encoder(self.input_ids[chosen, :width], self.attention_mask[chosen, :width]))
        return torch.cat(parts)[order.argsort()][back]

    @torch.no_grad()
    def all(self) -> Tensor:
        """Return text parts of all rows, [M, d]."""
        self.eval()
        parts: Tensor = self(torch.arange(len(self.text_of)))
        return parts
