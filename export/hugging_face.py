"""The text encoder alone, in the layout that other tools open: token states before our projection.

``onnx/model.onnx`` has ``last_hidden_state``, and ``modules.json`` says how it is pooled, as sentence-transformers lays
it out; optimum, fastembed and transformers.js read the same folder. ``onnx/model_quantized.onnx`` is the dynamic INT8
variant under the name that transformers.js looks for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgerec.distill.checkpoint import Checkpoint
from edgerec.distill.encoder import MAX_TOKENS
from edgerec.distill.student import StudentEncoder
from edgerec.distill.text_encoder import TeacherEncoder, text_encoder, text_tokenizer
from edgerec.distill.text_training import causal_mask, pool, run_layers
from edgerec.errors import UsageError
from edgerec.export.item_encoder import export_fp32
from edgerec.export.package import sizes_of
from edgerec.export.quantization import Calibration, made
from edgerec.files import atomic_folder, write_bytes, write_json
from edgerec.interactions import FloatArray

STATES = {"last_hidden_state": ("batch", "length")}
TRANSFORMER, POOLING, NORMALIZE = (
    f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling", "Normalize")
)


class TokenStates(nn.Module):
    """A text encoder without its pooling: token ids and mask int [B, L] to states [B, L, h]."""

    def __init__(self, encoder: StudentEncoder | TeacherEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return ``last_hidden_state``."""
        if isinstance(self.encoder, StudentEncoder):
            bert = self.encoder.bert
            return run_layers(bert.encoder.layer, bert.embeddings(input_ids=input_ids), attention_mask)
        mask = causal_mask(attention_mask) if self.encoder.causal else attention_mask
        return self.encoder.model(input_ids=input_ids, attention_mask=mask).last_hidden_state

    @property
    def pooling(self) -> str:
        """``mean`` or ``last``."""
        return self.encoder.pooling if isinstance(self.encoder, TeacherEncoder) else "mean"

    @property
    def normalised(self) -> bool:
        """Whether the projection takes pooled states of length 1."""
        return isinstance(self.encoder, TeacherEncoder) or self.encoder.normalised

    @torch.no_grad()
    def vectors(self, input_ids: Tensor, attention_mask: Tensor) -> FloatArray:
        """Return what the folder's modules give, float32 [B, h]."""
        pooled = pool(self(input_ids, attention_mask), attention_mask, self.pooling)
        return (functional.normalize(pooled, dim=-1) if self.normalised else pooled).numpy()


def token_states(checkpoint: Checkpoint) -> TokenStates:
    """Return the token states of a model folder's text encoder.

    Raises:
        UsageError: It has no layers, so that its states are no token's.
    """
    encoder = text_encoder(checkpoint)
    if not isinstance(encoder, StudentEncoder | TeacherEncoder):
        raise UsageError(
            f"{checkpoint.folder} holds a static student, a weighted mean of token vectors; expected an encoder with "
            "layers: other tools have no layout for its weights, use the bundle"
        )
    return TokenStates(encoder).eval()


def write_hugging_face(checkpoint: Checkpoint, precision: str, out: Path) -> dict[str, Any]:
    """Write a model's text encoder as a folder for other tools.

    Returns:
        ``files``: the size of each in bytes, by its path inside the folder. It has both fp32 and dynamic INT8, whatever
        the precision asked for.

    Raises:
        UsageError: A static student, or ``out`` exists.
    """
    states = token_states(checkpoint)
    source = checkpoint.encoder
    tokenizer = text_tokenizer(checkpoint)
    graph = export_fp32(states, tokenizer.get_vocab_size(), STATES)
    config = json.loads((source / "config.json").read_text("utf-8"))
    settings = json.loads((source / "tokenizer_config.json").read_text("utf-8"))
    settings = {**settings, "model_max_length": MAX_TOKENS}
    roles = {name: value for name, value in settings.items() if name.endswith("_token") and isinstance(value, str)}
    width = int(config.get("hidden_size") or config["n_embd"])
    described = [
        (TRANSFORMER, ""),
        (POOLING, "1_Pooling"),
        *([(NORMALIZE, "2_Normalize")] if states.normalised else []),
    ]
    modules = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (kind, path) in enumerate(described)]
    values: dict[str, Any] = {
        "config.json": config,
        "tokenizer_config.json": settings,
        "special_tokens_map.json": roles,
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": MAX_TOKENS, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": width,
            "pooling_mode_mean_tokens": states.pooling == "mean",
            "pooling_mode_lasttoken": states.pooling == "last",
        },
    }
    with atomic_folder(out) as folder:
        for name, value in values.items():
            write_json(folder / name, value)
        write_bytes(folder / "tokenizer.json", (source / "tokenizer.json").read_bytes())
        write_bytes(folder / "onnx" / "model.onnx", graph)
        write_bytes(folder / "onnx" / "model_quantized.onnx", made("int8-dynamic", graph, Calibration([], 0)))
        return {"files": sizes_of(folder)}


def expected(checkpoint: Checkpoint, texts: list[str]) -> FloatArray:
    """Return the vectors that a tool must give for texts, float32 [n, h], as torch computes them one by one."""
    states = token_states(checkpoint)
    tokenizer = text_tokenizer(checkpoint)
    tokenizer.enable_truncation(MAX_TOKENS)
    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text).ids])
        rows.append(states.vectors(ids, torch.ones_like(ids))[0])
    return np.stack(rows)
