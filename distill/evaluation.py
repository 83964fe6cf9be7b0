"""What a model folder has to show: the towers as trained, re-encoded, text alone, and a control that must fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tokenizers

from edgerec.distill import cross_encoder
from edgerec.distill.checkpoint import Checkpoint
from edgerec.distill.encoder import Progress, no_progress
from edgerec.distill.student import control, load, student_vectors
from edgerec.interactions import Dataset
from edgerec.metrics import Scorer


def subjects(checkpoint: Checkpoint, seed: int = 0) -> dict[str, Scorer]:
    """Return what a model folder can be scored as.

    A teacher is scored as trained and by text alone. A student is scored re-encoded (its own text part under the
    teacher's residuals) and by text alone, each beside a random encoder of the same size.
    """
    towers = checkpoint.towers
    if checkpoint.info["kind"] == "teacher":
        return {"teacher": towers.arrays(), "teacher, text-only": towers.arrays(residuals=False)}
    encoder, tokenizer_json = load(checkpoint.encoder)
    vocabulary = tokenizers.Tokenizer.from_str(tokenizer_json).get_vocab_size()
    encoders = {"student": encoder, "random encoder": control(encoder, vocabulary, seed)}
    parts = {name: student_vectors(one, tokenizer_json, checkpoint.texts) for name, one in encoders.items()}
    # a random encoder's vectors get the length of the teacher's, so that only their direction is at fault
    length = float(towers.text.norm(dim=1).mean())
    parts["random encoder"] *= length / max(float(np.linalg.norm(parts["random encoder"], axis=1).mean()), 1e-12)
    found: dict[str, Scorer] = {f"{name}, re-encoded": towers.arrays(text) for name, text in parts.items()}
    return found | {f"{name}, text-only": towers.arrays(text, residuals=False) for name, text in parts.items()}


def reranked(
    folder: Path, two_towers: Checkpoint, data: Dataset, mask_seen: bool, progress: Progress = no_progress
) -> dict[str, Scorer]:
    """Return what a cross-encoder's folder can be scored as: the top of two towers, ordered anew.

    Raises:
        DataError: The folder holds no finished cross-encoder.
        UsageError: Either was made from other data.
    """
    two_towers.require_data(data)
    cross = cross_encoder.load(folder, data)
    reranker = cross_encoder.Reranker(cross, two_towers.towers.arrays(), mask_seen, progress=progress)
    return {f"top {reranker.top} of {two_towers.folder.name}, reranked": reranker}
