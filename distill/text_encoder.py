"""The text encoder of a model folder, a teacher's or a student's, and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from torch import Tensor, nn
from torch.nn import functional

from edgerec.distill.checkpoint import Checkpoint
from edgerec.distill.encoder import is_decoder, pooling_of
from edgerec.distill.student import load
from edgerec.distill.text_training import causal_mask, pool
from edgerec.distill.vocabulary import open_tokenizer


class TeacherEncoder(nn.Module):
    """The teacher's text encoder, pooled, normalised and projected: token ids int [B, L] to text parts [B, d].

    It can be traced: a decoder is handed its causal mask, since those that transformers makes cannot.
    """

    projection: Tensor  # [T, d]

    def __init__(self, folder: Path, projection: Tensor) -> None:
        super().__init__()
        self.model = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, attn_implementation="eager"
        ).float()
        self.model.config.use_cache = False
        self.causal, self.pooling = is_decoder(self.model.config), pooling_of(self.model.config)
        self.register_buffer("projection", projection)
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text parts, [B, d]."""
        mask = causal_mask(attention_mask) if self.causal else attention_mask
        hidden = self.model(input_ids=input_ids, attention_mask=mask).last_hidden_state
        return functional.normalize(pool(hidden, attention_mask, self.pooling), dim=-1) @ self.projection


def text_encoder(checkpoint: Checkpoint) -> nn.Module:
    """Return the module from token ids to text parts of a model folder."""
    if checkpoint.info["kind"] == "student":
        return load(checkpoint.encoder)[0].eval()
    return TeacherEncoder(checkpoint.encoder, checkpoint.towers.projection).eval()


def text_tokenizer(checkpoint: Checkpoint) -> Any:
    """Return the ``tokenizers.Tokenizer`` of a model folder, which neither pads nor truncates."""
    return open_tokenizer((checkpoint.encoder / "tokenizer.json").read_text("utf-8"))
