"""The text encoder of a model folder, a teacher's or a student's, and its tokenizer."""

from __future__ import annotations

from typing import Any

from torch import nn

from edgerec.distill.checkpoint import Checkpoint
from edgerec.distill.student import load
from edgerec.distill.teacher import TeacherEncoder
from edgerec.distill.vocabulary import open_tokenizer


def text_encoder(checkpoint: Checkpoint) -> nn.Module:
    """Return the module from token ids to text parts of a model folder."""
    if checkpoint.info["kind"] == "student":
        return load(checkpoint.encoder)[0].eval()
    return TeacherEncoder(checkpoint.encoder, checkpoint.towers.projection).eval()


def text_tokenizer(checkpoint: Checkpoint) -> Any:
    """Return the ``tokenizers.Tokenizer`` of a model folder, which neither pads nor truncates."""
    return open_tokenizer((checkpoint.encoder / "tokenizer.json").read_text("utf-8"))
