"""The frozen encoder on small random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers

import pytest

from edgerec.distill.encoder import cached_text_vectors, encode
from edgerec.errors import DataError

TEXTS = ["red wine", "a much longer title with 영화 and more words", "red", "wine red"]


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A BERT of two layers whose vocabulary is single letters."""
    torch.manual_seed(0)
    path = tmp_path / "bert"
    path.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    (path / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizerFast(vocab=str(path / "vocab.txt"), vocab_file=str(path / "vocab.txt")).save_pretrained(
        path
    )
    config = transformers.BertConfig(len(vocabulary), 16, 2, 2, 32)
    transformers.BertModel(config).save_pretrained(path)
    return path


def test_a_text_has_the_same_vector_in_any_batch(model_folder: Path) -> None:
    together = encode(TEXTS, model_folder)
    alone = np.concatenate([encode([text], model_folder, batch=1) for text in TEXTS])
    assert together == pytest.approx(alone, abs=1e-5)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert not np.allclose(together[0], together[1], atol=1e-3)


def test_a_text_is_encoded_once_for_the_same_weights(model_folder: Path, own_cache: Path) -> None:
    encoded: list[int] = []
    first = cached_text_vectors(TEXTS[:2], model_folder, encoded.append)
    both = cached_text_vectors([*TEXTS, TEXTS[0]], model_folder, encoded.append)
    assert encoded == [2, 2]  # the two that were not known
    assert np.array_equal(both[:2], first) and np.array_equal(both[4], first[0])
    assert both[:4] == pytest.approx(encode(TEXTS, model_folder), abs=1e-5)
    assert np.array_equal(cached_text_vectors(TEXTS, model_folder, encoded.append), both[:4])
    (model_folder / "other.bin").write_bytes(b" ")  # other weights, another encoder
    cached_text_vectors(TEXTS[:1], model_folder, encoded.append)
    assert encoded == [2, 2, 1]


def test_a_folder_without_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no text encoder"):
        encode(TEXTS, tmp_path)
