"""The frozen text encoder: titles in, L2-normalised text vectors out, cached by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgerec.errors import DataError, require
from edgerec.files import atomic_path, cache_dir, sha256
from edgerec.interactions import FloatArray

Progress = Callable[[int], None]  # called with the number of texts done

MAX_TOKENS = 128  # what MiniLM-L6 was trained with


def no_progress(done: int) -> None:
    """Show nothing."""


def encode(texts: list[str], folder: Path, batch: int = 64, progress: Progress = no_progress) -> FloatArray:
    """Encode texts with a local Hugging Face encoder and mean pooling over real tokens.

    Args:
        texts: One text per item.
        folder: Folder with ``config.json``, weights and a tokenizer.
        batch: Texts per forward pass; texts of similar length are batched together.
        progress: Called with the number of texts done.

    Returns:
        float32 [len(texts), hidden], rows of norm 1.

    Raises:
        DataError: The folder holds no encoder.
    """
    torch = require("torch", "distill")
    transformers = require("transformers", "distill")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} holds no text encoder ({str(error).splitlines()[0]}); expected a model folder"
        ) from error
    order = np.argsort([len(text) for text in texts], kind="stable")
    vectors = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(texts), batch):
        rows = order[start : start + batch]
        tokens = tokenizer(
            [texts[row] for row in rows], padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            vectors[rows] = torch.nn.functional.normalize(pooled, dim=1).numpy()
        progress(start + len(rows))
    return vectors


def cached_text_vectors(texts: list[str], folder: Path, progress: Progress = no_progress) -> FloatArray:
    """Encode texts, or read the vectors that an earlier run cached for the same texts and weights."""
    weights = sorted(folder.glob("*.safetensors"))
    key = hashlib.sha256("\0".join([*map(sha256, weights), *texts]).encode()).hexdigest()
    path = cache_dir() / "text-vectors" / f"{key}.npy"
    if path.exists():
        vectors: FloatArray = np.load(path, allow_pickle=False)
        return vectors
    vectors = encode(texts, folder, progress=progress)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, vectors, allow_pickle=False)
    return vectors
