"""The student: a small BERT with a head into the towers' text space, and its folder on disk."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgerec.distill.encoder import MAX_TOKENS
from edgerec.distill.text_training import CHUNK, mean_pool, run_layers
from edgerec.distill.vocabulary import open_tokenizer
from edgerec.errors import DataError, UsageError
from edgerec.files import atomic_path, write_bytes, write_json
from edgerec.interactions import FloatArray

MANIFEST = "edgerec-student.json"
FORMAT = 1
ROLES = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}  # named where the tokenizer has them


@dataclass(frozen=True)
class StudentConfig:
    """The sizes of a student."""

    layers: int
    hidden: int
    heads: int
    intermediate: int

    def __post_init__(self) -> None:
        if min(self.layers, self.hidden, self.heads, self.intermediate) < 1 or self.hidden % self.heads:
            raise UsageError(
                f"got {self.layers} layers, width {self.hidden}, {self.heads} heads, {self.intermediate} units; "
                "expected at least 1 of each, and a width that the heads divide"
            )


PRESETS = {"tiny": StudentConfig(2, 128, 4, 512), "small": StudentConfig(4, 192, 6, 768)}


class StudentEncoder(nn.Module):
    """Texts to text parts, in the space of ``Towers.text``.

    Args:
        bert: A Hugging Face BERT-like model with ``embeddings`` and ``encoder.layer``, with eager attention.
        size: d, the towers' embedding size.
        max_tokens: The longest text that it takes.
    """

    def __init__(self, bert: Any, size: int, max_tokens: int = MAX_TOKENS) -> None:
        super().__init__()
        self.bert, self.max_tokens = bert, max_tokens
        self.head = nn.Linear(bert.config.hidden_size, size)

    def pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the mean hidden state of int [B, L] tokens, [B, h].

        The layers run one by one: that traces the same way in every version of transformers, whose own masks do not.
        """
        hidden = self.bert.embeddings(input_ids=input_ids)
        return mean_pool(run_layers(self.bert.encoder.layer, hidden, attention_mask), attention_mask)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text parts [B, d], not normalised, of int [B, L] tokens."""
        return self.head(self.pooled(input_ids, attention_mask))

    @property
    def student_config(self) -> StudentConfig:
        """The sizes, as the model's configuration holds them."""
        of = self.bert.config
        return StudentConfig(of.num_hidden_layers, of.hidden_size, of.num_attention_heads, of.intermediate_size)


def tokenise(tokenizer_json: str, texts: Sequence[str], max_tokens: int = MAX_TOKENS) -> dict[str, Tensor]:
    """Return ``input_ids`` and ``attention_mask``, int64 [n, L], right-padded with id 0 under a mask of 0."""
    tokenizer = open_tokenizer(tokenizer_json)
    tokenizer.enable_truncation(max_tokens)
    encoded = [torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]
    ids = nn.utils.rnn.pad_sequence(encoded, batch_first=True)
    lengths = torch.tensor([len(one) for one in encoded])
    return {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}


@torch.no_grad()
def student_vectors(encoder: StudentEncoder, tokenizer_json: str, texts: Sequence[str]) -> FloatArray:
    """Return the text parts of texts, float32 [n, d]."""
    tokens = tokenise(tokenizer_json, texts, encoder.max_tokens)
    encoder.eval()
    parts = torch.empty(len(texts), encoder.head.out_features)
    for rows, ids, mask in batches(tokens):
        parts[rows] = encoder(ids, mask)
    return parts.numpy()


def batches(tokens: dict[str, Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield rows, ids and mask, texts of similar length together and cut to the longest of them."""
    lengths = tokens["attention_mask"].sum(1)
    for rows in lengths.argsort().split(CHUNK):
        width = int(lengths[rows].max())
        yield rows, tokens["input_ids"][rows, :width], tokens["attention_mask"][rows, :width]


def empty_bert(teacher: Any, config: StudentConfig, kept: NDArray[np.int64], max_tokens: int = MAX_TOKENS) -> Any:
    """Return a model of the teacher's kind in the student's sizes, with random weights and no dropout.

    Positions beyond ``max_tokens`` are left out. Dropout only adds noise to the copying of a teacher.
    """
    of = copy.deepcopy(teacher.config)
    offset = getattr(teacher.embeddings, "padding_idx", None)  # RoBERTa counts positions from padding_idx + 1
    positions = max_tokens if offset is None else max_tokens + offset + 1
    of.update(
        {
            "num_hidden_layers": config.layers,
            "hidden_size": config.hidden,
            "num_attention_heads": config.heads,
            "intermediate_size": config.intermediate,
            "vocab_size": len(kept),
            "pad_token_id": min(int(np.searchsorted(kept, of.pad_token_id or 0)), len(kept) - 1),
            "max_position_embeddings": min(of.max_position_embeddings, positions),
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
    )
    return transformers.AutoModel.from_config(of, attn_implementation="eager", add_pooling_layer=False).eval()


def random_student(
    teacher: Any, config: StudentConfig, kept: NDArray[np.int64], size: int, seed: int = 0
) -> StudentEncoder:
    """Return the control: the student's shape with random weights, fitted to nothing.

    Args:
        teacher: A Hugging Face model, of which only the configuration is taken.
        config: Sizes.
        kept: int64 [V'], the teacher's id of each of the student's tokens.
        size: d, the towers' embedding size.
        seed: Of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return StudentEncoder(empty_bert(teacher, config, kept), size).eval()


def save(folder: Path, encoder: StudentEncoder, tokenizer_json: str) -> None:
    """Write a student in Hugging Face layout, with its head and a manifest, which is written last.

    ``transformers.AutoModel`` and ``AutoTokenizer`` open the folder as they open any encoder's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in encoder.bert.state_dict().items()}
    head = {name: value.detach().cpu().contiguous() for name, value in encoder.head.state_dict().items()}
    for name, tensors in (("model", state), ("head", head)):
        with atomic_path(folder / f"{name}.safetensors") as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
    write_bytes(folder / "config.json", encoder.bert.config.to_json_string().encode())
    write_bytes(folder / "tokenizer.json", tokenizer_json.encode())
    write_json(folder / "tokenizer_config.json", tokenizer_config(tokenizer_json, encoder))
    sizes = asdict(encoder.student_config)
    manifest = {"format": FORMAT, "d": encoder.head.out_features, "max_tokens": encoder.max_tokens, "config": sizes}
    write_json(folder / MANIFEST, manifest)


def tokenizer_config(tokenizer_json: str, encoder: StudentEncoder) -> dict[str, Any]:
    """Return what ``AutoTokenizer`` wants beside ``tokenizer.json``, with no setting that overrides the file's."""
    saved = json.loads(tokenizer_json)
    tokens = {token["content"]: token["id"] for token in saved["added_tokens"]}
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": encoder.max_tokens}
    config |= {role: token for role, token in ROLES.items() if token in tokens}
    padding = [token for token, row in tokens.items() if row == encoder.bert.config.pad_token_id]
    if padding:
        config["pad_token"] = padding[0]
    if unknown := saved["model"].get("unk_token"):
        config["unk_token"] = unknown
    return config


def load(folder: Path) -> tuple[StudentEncoder, str]:
    """Return the encoder and the ``tokenizer.json`` text that ``save`` wrote.

    Raises:
        DataError: The folder holds no whole student.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise DataError(f"{folder} has student format {manifest['format']}; expected {FORMAT}: update edgerec")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bert = transformers.AutoModel.from_pretrained(
                folder, local_files_only=True, attn_implementation="eager", add_pooling_layer=False
            ).float()
        encoder = StudentEncoder(bert, manifest["d"], manifest["max_tokens"])
        encoder.head.load_state_dict(load_file(folder / "head.safetensors"))
        return encoder.eval(), (folder / "tokenizer.json").read_text(encoding="utf-8")
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, UsageError):
            raise
        first = str(error).splitlines()[0]
        raise DataError(f"{folder} holds no student ({first}); expected a folder that `distill` wrote") from error
