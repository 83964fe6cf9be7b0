"""The text encoder of a model folder, a teacher's or a student's."""

from __future__ import annotations

from torch import nn

from edgerec.distill.checkpoint import Checkpoint
from edgerec.distill.student import load
from edgerec.distill.teacher import TeacherEncoder


def text_encoder(checkpoint: Checkpoint) -> nn.Module:
    """Return the module from token ids to text parts of a model folder."""
    if checkpoint.info["kind"] == "student":
        return load(checkpoint.encoder)[0].eval()
    return TeacherEncoder(checkpoint.encoder, checkpoint.towers.projection).eval()
