"""The student: a small BERT with a head into the towers' text space, or a static one, and its folder on disk."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgerec.distill.encoder import MAX_TOKENS
from edgerec.distill.fake_quantization import attach, quantizers
from edgerec.distill.shapes import Shape, describe, resized
from edgerec.distill.static import StaticConfig, StaticEncoder
from edgerec.distill.text_student import TextStudent
from edgerec.distill.text_training import CHUNK, mean_pool, run_layers
from edgerec.distill.vocabulary import open_tokenizer
from edgerec.errors import DataError, UsageError
from edgerec.files import atomic_path, write_bytes, write_json
from edgerec.interactions import FloatArray

MANIFEST = "edgerec-student.json"
QUANTIZERS = "quantizers.safetensors"  # of one that was trained for int8
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


Config: TypeAlias = StudentConfig | StaticConfig

PRESETS: dict[str, Config] = {
    "static": StaticConfig(128),
    "tiny": StudentConfig(2, 128, 4, 512),
    "small": StudentConfig(4, 192, 6, 768),
}


def sized(preset: str, sizes: Mapping[str, int]) -> Config:
    """Return a preset with some sizes replaced.

    Raises:
        UsageError: Unknown preset, or a size that it does not have.
    """
    if preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")
    config: Any = PRESETS[preset]
    if unknown := sizes.keys() - asdict(config).keys():
        raise UsageError(f"a {preset} student has no {sorted(unknown)[0]}; expected {', '.join(asdict(config))}")
    return replace(config, **sizes)


class StudentEncoder(TextStudent):
    """Texts to text parts by a small BERT.

    Args:
        bert: A Hugging Face BERT-like model with ``embeddings`` and ``encoder.layer``, with eager attention.
        size: d, the towers' embedding size.
        max_tokens: The longest text that it takes.
        normalised: Whether states get length 1 before the head, as a teacher's do before its projection.
    """

    texts_per_step, tokens_per_step = 128, 4096

    def __init__(self, bert: Any, size: int, max_tokens: int = MAX_TOKENS, normalised: bool = False) -> None:
        super().__init__()
        self.bert, self.max_tokens, self.normalised = bert, max_tokens, normalised
        self.head = nn.Linear(bert.config.hidden_size, size)

    def pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the mean hidden state of int [B, L] tokens, [B, h].

        The layers run one by one: that traces the same way in every version of transformers, whose own masks do not.
        """
        hidden = self.bert.embeddings(input_ids=input_ids)
        states = mean_pool(run_layers(self.bert.encoder.layer, hidden, attention_mask), attention_mask)
        return nn.functional.normalize(states, dim=-1) if self.normalised else states

    @property
    def stages(self) -> list[nn.Module]:
        """The layers."""
        return list(self.bert.encoder.layer)

    @property
    def student_config(self) -> StudentConfig | Shape:
        """The sizes, as the weights have them; layer by layer where these differ, or heads do not make up the width."""
        of = Shape.of(self.bert)
        return StudentConfig(of.layers, of.hidden, of.heads[0], of.intermediate[0]) if of.regular else of


def tokenise(tokenizer_json: str, texts: Sequence[str], max_tokens: int = MAX_TOKENS) -> dict[str, Tensor]:
    """Return ``input_ids`` and ``attention_mask``, int64 [n, L], right-padded with id 0 under a mask of 0."""
    tokenizer = open_tokenizer(tokenizer_json)
    tokenizer.enable_truncation(max_tokens)
    encoded = [torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]
    ids = nn.utils.rnn.pad_sequence(encoded, batch_first=True)
    lengths = torch.tensor([len(one) for one in encoded])
    return {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}


@torch.no_grad()
def student_vectors(encoder: TextStudent, tokenizer_json: str, texts: Sequence[str]) -> FloatArray:
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


def empty_bert(
    teacher: Any, config: StudentConfig | Shape, kept: NDArray[np.int64], max_tokens: int = MAX_TOKENS
) -> Any:
    """Return a model of the teacher's kind in the student's sizes, with random weights and no dropout.

    Positions beyond ``max_tokens`` are left out. Dropout only adds noise to the copying of a teacher.
    """
    if isinstance(config, Shape):
        return resized(empty_bert(teacher, StudentConfig(config.layers, config.hidden, 1, 1), kept, max_tokens), config)
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
    teacher: Any, config: Config | Shape, kept: NDArray[np.int64], size: int, seed: int = 0
) -> TextStudent:
    """Return a student with random weights: the control, fitted to nothing, or a start from scratch.

    Args:
        teacher: A Hugging Face model, of which only the configuration is taken; a static student takes nothing.
        config: Sizes.
        kept: int64 [V'], the teacher's id of each of the student's tokens.
        size: d, the towers' embedding size.
        seed: Of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(config, StaticConfig):
            return StaticEncoder(len(kept), min(config.hidden, size), size).eval()
        return StudentEncoder(empty_bert(teacher, config, kept), size).eval()


def control(encoder: TextStudent, vocabulary: int, seed: int = 0) -> TextStudent:
    """Return a random student of the shape of another."""
    kept, size = np.arange(vocabulary), encoder.head.out_features
    return random_student(getattr(encoder, "bert", None), encoder.student_config, kept, size, seed)


def save(folder: Path, encoder: TextStudent, tokenizer_json: str) -> None:
    """Write a student and its manifest, which is written last.

    One with layers lies in Hugging Face layout with a head beside it: ``transformers.AutoModel`` and ``AutoTokenizer``
    open the folder as they open any encoder's, unless pruning left layers of different sizes, which the manifest lists:
    then the first refuses to. A static one is ``static.safetensors`` and ``tokenizer.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (fake := quantizers(encoder)) is not None:
        save_tensors(folder / QUANTIZERS, fake)
    if isinstance(encoder, StudentEncoder):
        save_tensors(folder / "model.safetensors", encoder.bert)
        save_tensors(folder / "head.safetensors", encoder.head)
        write_bytes(folder / "config.json", encoder.bert.config.to_json_string().encode())
        write_json(folder / "tokenizer_config.json", tokenizer_config(tokenizer_json, encoder))
    else:
        save_tensors(folder / "static.safetensors", encoder)
    write_bytes(folder / "tokenizer.json", tokenizer_json.encode())
    manifest: dict[str, Any] = {"format": FORMAT, "kind": kind(encoder), "d": encoder.head.out_features}
    manifest |= {"max_tokens": encoder.max_tokens, "config": asdict(encoder.student_config)}
    if isinstance(encoder, StudentEncoder) and manifest["kind"] == "pruned":
        manifest |= {"shape": asdict(Shape.of(encoder.bert)), "normalised": encoder.normalised}
    write_json(folder / MANIFEST, manifest)


def kind(encoder: TextStudent) -> str:
    """Return how a student is read back: as any model with layers, as one with sizes of its own, or as a table."""
    if not isinstance(encoder, StudentEncoder):
        return "static"
    plain = isinstance(encoder.student_config, StudentConfig) and not encoder.normalised
    return "layers" if plain else "pruned"


def save_tensors(path: Path, module: nn.Module) -> None:
    """Write a module's state, whole or not at all."""
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})


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


def load(folder: Path) -> tuple[TextStudent, str]:
    """Return the encoder and the ``tokenizer.json`` text that ``save`` wrote.

    Raises:
        DataError: The folder holds no whole student.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise DataError(f"{folder} has student format {manifest['format']}; expected {FORMAT}: update edgerec")
        read = {"layers": load_layers, "pruned": load_pruned, "static": load_static}[
            manifest.get("kind", "layers")
        ]  # older ones have layers
        encoder = read(folder, manifest).eval()
        if (folder / QUANTIZERS).exists():
            encoder = attach(encoder, load_file(folder / QUANTIZERS))
        return encoder, (folder / "tokenizer.json").read_text(encoding="utf-8")
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, UsageError):
            raise
        first = str(error).splitlines()[0]
        raise DataError(f"{folder} holds no student ({first}); expected a folder that `distill` wrote") from error


def load_layers(folder: Path, manifest: dict[str, Any]) -> TextStudent:
    """Read a student with layers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bert = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, attn_implementation="eager", add_pooling_layer=False
        ).float()
    encoder = StudentEncoder(bert, manifest["d"], manifest["max_tokens"])
    encoder.head.load_state_dict(load_file(folder / "head.safetensors"))
    return encoder


def load_pruned(folder: Path, manifest: dict[str, Any]) -> TextStudent:
    """Read a student whose layers have sizes of their own, or that gives its states length 1."""
    of = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    of.update({"num_attention_heads": 1, "intermediate_size": 1})  # any width can have these, until it gets its own
    bert = transformers.AutoModel.from_config(of, attn_implementation="eager", add_pooling_layer=False)
    resized(bert, Shape.read(manifest["shape"])).load_state_dict(load_file(folder / "model.safetensors"))
    describe(bert)
    encoder = StudentEncoder(bert, manifest["d"], manifest["max_tokens"], manifest["normalised"])
    encoder.head.load_state_dict(load_file(folder / "head.safetensors"))
    return encoder


def load_static(folder: Path, manifest: dict[str, Any]) -> TextStudent:
    """Read a static student; its table says how many tokens it knows."""
    state = load_file(folder / "static.safetensors")
    vocabulary, hidden = state["table.weight"].shape
    encoder = StaticEncoder(vocabulary, hidden, manifest["d"], manifest["max_tokens"])
    encoder.load_state_dict(state)
    return encoder
