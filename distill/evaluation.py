"""What a model folder has to show: the towers as trained, re-encoded, text alone, and a control that must fail."""

from __future__ import annotations

import numpy as np
import tokenizers
import torch
from torch import Tensor

from edgerec.distill.checkpoint import Checkpoint
from edgerec.distill.student import load, random_student, tokenise
from edgerec.distill.text_training import CHUNK
from edgerec.interactions import FloatArray
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
    tokens = tokenise(tokenizer_json, checkpoint.texts)
    kept = np.arange(tokenizers.Tokenizer.from_str(tokenizer_json).get_vocab_size())
    control = random_student(encoder.bert, encoder.student_config, kept, towers.text.shape[1], seed).eval()
    parts = {"student": text_parts(encoder, tokens), "random encoder": text_parts(control, tokens)}
    # a random encoder's vectors get the length of the teacher's, so that only their direction is at fault
    length = float(towers.text.norm(dim=1).mean())
    parts["random encoder"] *= length / max(float(np.linalg.norm(parts["random encoder"], axis=1).mean()), 1e-12)
    found: dict[str, Scorer] = {f"{name}, re-encoded": towers.arrays(text) for name, text in parts.items()}
    return found | {f"{name}, text-only": towers.arrays(text, residuals=False) for name, text in parts.items()}


@torch.no_grad()
def text_parts(encoder: torch.nn.Module, tokens: dict[str, Tensor]) -> FloatArray:
    """Return the text parts of tokenised texts, float32 [n, d]."""
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    rows = torch.arange(len(ids)).split(CHUNK)
    return torch.cat([encoder(ids[part], mask[part]) for part in rows]).numpy().copy()
