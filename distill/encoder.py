"""The frozen text encoder: titles in, L2-normalised text vectors out, cached by content.

An encoder reads a text both ways, and the mean over its tokens stands for the text. A decoder reads from left to right:
only its last token has seen all of them. Texts are padded on the right, so that no padding comes before a real token,
by id 0 under a mask of 0, since many decoders have no padding token; the device pads in the same way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgerec.errors import DataError, UsageError, require
from edgerec.files import atomic_path, cache_dir, sha256
from edgerec.interactions import FloatArray

Progress = Callable[[int], None]  # called with the number of texts done

DIGEST = 32  # bytes of a sha256
MAX_TOKENS = 128  # what MiniLM-L6 was trained with
POOLINGS = ("auto", "mean", "last")  # over real tokens; auto: the last one of a decoder, the mean of any other
POOLING_KEY = "edgerec_pooling"  # in the config.json of a teacher's encoder: what it was trained with


def no_progress(done: int) -> None:
    """Show nothing."""


def read_config(folder: Path) -> Any:
    """Return the configuration of a Hugging Face folder.

    Raises:
        DataError: The folder holds none, or that of an encoder-decoder.
    """
    transformers = require("transformers", "distill")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise no_encoder(folder, error) from error
    if config.is_encoder_decoder:
        raise DataError(f"{folder} holds an encoder-decoder ({config.model_type}); expected an encoder or a decoder")
    return config


def no_encoder(folder: Path, error: Exception) -> DataError:
    """Return the error of a folder that transformers cannot open."""
    return DataError(f"{folder} holds no text encoder ({str(error).splitlines()[0]}); expected a model folder")


def is_decoder(config: Any) -> bool:
    """Tell whether a model of this configuration reads from left to right only.

    GPT-2's configuration does not say so itself; but decoders have no masked language model, and encoders have one.
    """
    transformers = require("transformers", "distill")
    causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    return bool(config.is_decoder) or (causal and type(config) not in transformers.MODEL_FOR_MASKED_LM_MAPPING)


def pooling_of(config: Any, asked: str = POOLINGS[0]) -> str:
    """Return ``mean`` or ``last``: as asked, else as stored with the model, else by its kind.

    Raises:
        UsageError: Unknown pooling.
    """
    if asked not in POOLINGS:
        raise UsageError(f"unknown pooling {asked!r}; expected one of {', '.join(POOLINGS)}")
    if asked != "auto":
        return asked
    return getattr(config, POOLING_KEY, None) or ("last" if is_decoder(config) else "mean")


def open_encoder(folder: Path) -> tuple[Any, Any]:
    """Return the tokenizer and the model of a Hugging Face folder, in float32 and evaluation mode.

    Raises:
        DataError: The folder holds no encoder.
    """
    transformers = require("transformers", "distill")
    read_config(folder)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise no_encoder(folder, error) from error
    return tokenizer, model.float().eval()


def tokenise(tokenizer: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Return ``input_ids`` and ``attention_mask`` of at least one text, int64 [n, L], padded on the right."""
    torch = require("torch", "distill")
    encoded = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
    ids = torch.zeros(len(encoded), max(1, *map(len, encoded)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(encoded):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def encode(
    texts: list[str], folder: Path, batch: int = 64, progress: Progress = no_progress, pooling: str = POOLINGS[0]
) -> FloatArray:
    """Encode texts with a local Hugging Face encoder or decoder, equal texts once.

    Args:
        texts: One text per item.
        folder: Folder with ``config.json``, weights and a tokenizer.
        batch: Texts per forward pass; texts of similar length are batched together.
        progress: Called with the number of texts done.
        pooling: One of ``POOLINGS``.

    Returns:
        float32 [len(texts), hidden], rows of norm 1.

    Raises:
        DataError: The folder holds no encoder.
        UsageError: Unknown pooling.
    """
    torch = require("torch", "distill")
    tokenizer, model = open_encoder(folder)
    from edgerec.distill.text_training import pool

    pooling = pooling_of(model.config, pooling)
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    distinct, inverse = list(places), np.array([places[text] for text in texts], dtype=np.int64)
    copies = np.bincount(inverse, minlength=len(distinct))
    order = np.argsort([len(text) for text in distinct], kind="stable")
    vectors = np.empty((len(distinct), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(distinct), batch):
        rows = order[start : start + batch]
        tokens = tokenise(tokenizer, [distinct[row] for row in rows])
        with torch.inference_mode():
            pooled = pool(model(**tokens).last_hidden_state, tokens["attention_mask"], pooling)
            vectors[rows] = torch.nn.functional.normalize(pooled, dim=1).numpy()
        progress(int(copies[order[: start + len(rows)]].sum()))
    return vectors[inverse]


def cached_text_vectors(
    texts: list[str], folder: Path, progress: Progress = no_progress, pooling: str = POOLINGS[0]
) -> FloatArray:
    """Encode the texts that no earlier run encoded with the same weights and pooling; take the others from the cache.

    Returns:
        float32 [len(texts), hidden], as ``encode``.
    """
    pooling = pooling_of(read_config(folder), pooling)
    weights = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    encoder = hashlib.sha256("\0".join([pooling, *map(sha256, weights)]).encode()).hexdigest()
    home = cache_dir() / "text-vectors" / encoder
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    known = stored_vectors(home, set(digests))
    missing = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in known}
    if missing:
        made = encode(list(missing.values()), folder, progress=progress, pooling=pooling)
        part = home / f"{hashlib.sha256(b''.join(missing)).hexdigest()}.npz"
        with atomic_path(part) as temporary, temporary.open("wb") as stream:
            np.savez(stream, digests=np.frombuffer(b"".join(missing), np.uint8).reshape(-1, DIGEST), vectors=made)
        known |= dict(zip(missing, made, strict=True))
    return np.stack([known[digest] for digest in digests])


def stored_vectors(home: Path, wanted: set[bytes]) -> dict[bytes, FloatArray]:
    """Return what the cache of one encoder holds of the wanted texts, by the sha256 of the text."""
    found: dict[bytes, FloatArray] = {}
    for part in sorted(home.glob("*.npz")):
        with np.load(part, allow_pickle=False) as stored:
            digests = [row.tobytes() for row in stored["digests"]]
            rows = [row for row, digest in enumerate(digests) if digest in wanted]
            if rows:
                vectors = stored["vectors"]
                found |= {digests[row]: vectors[row] for row in rows}
    return found
