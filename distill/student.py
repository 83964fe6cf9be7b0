"""The student: a small BERT made from the teacher's own weights, and a head into the towers' text space.

Every n-th layer is copied. The residual stream of width H becomes one of width h by one projection W, [H, h] with
orthonormal columns: the PCA of the teacher's hidden states over catalogue tokens. A matrix that reads the stream is
multiplied by W, one that writes it by its transpose, whole heads and feed-forward units are kept by the size of their
weights. LayerNorm does not commute with W, so its scale and shift are fitted to the projected states of the teacher,
one norm after the other. All this is a start for training; it computes no function of the teacher's.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from edgerec.distill.towers import pca
from edgerec.distill.vocabulary import open_tokenizer
from edgerec.errors import DataError, UsageError
from edgerec.files import atomic_path, write_bytes, write_json
from edgerec.interactions import FloatArray

SAMPLED_TOKENS = 8_000  # real tokens that the projection and the norms are fitted to
RIDGE = 1e-3  # of the head's least squares, relative to the mean squared state
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


def check_teacher(teacher: Any, config: StudentConfig) -> None:
    """Refuse a teacher whose layers cannot be copied, or that is smaller than the student.

    Raises:
        UsageError: As said.
    """
    layers = getattr(getattr(teacher, "encoder", None), "layer", None)
    attention = getattr(getattr(layers[0] if layers else None, "attention", None), "self", None)
    if not all(hasattr(attention, name) for name in ("query", "key", "value")):
        raise UsageError(
            f"got {type(teacher).__name__} as the teacher's encoder; expected a BERT-like one with encoder.layer and "
            "attention.self, such as BERT, RoBERTa or MiniLM"
        )
    of = teacher.config
    have = StudentConfig(of.num_hidden_layers, of.hidden_size, of.num_attention_heads, of.intermediate_size)
    head = of.hidden_size // of.num_attention_heads
    larger = [name for name, value in asdict(config).items() if value > getattr(have, name)]
    if larger or config.hidden // config.heads > head:
        raise UsageError(
            f"got a student of {config}, with {config.hidden // config.heads} a head; expected none larger than the "
            f"teacher, {have} with {head} a head: choose a smaller one"
        )


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


@torch.no_grad()
def student_from(
    teacher: Any,
    config: StudentConfig,
    kept: NDArray[np.int64],
    tokens: dict[str, Tensor],
    goal: Tensor,
    seed: int = 0,
) -> StudentEncoder:
    """Make a student out of the teacher's weights.

    Args:
        teacher: A Hugging Face BERT-like model.
        config: Sizes.
        kept: int64 [V'], the teacher's id of each of the student's tokens.
        tokens: ``input_ids`` (the student's ids) and ``attention_mask``, int64 [M, L], that it is fitted to.
        goal: [M, d], the text parts to give for them.
        seed: Of the sample of texts that the projection is fitted to.

    Raises:
        UsageError: The teacher is not BERT-like, or smaller than the student.
    """
    check_teacher(teacher, config)
    teacher.eval()
    student = random_student(teacher, config, kept, goal.shape[1], seed)
    layers = every_nth(len(teacher.encoder.layer), config.layers)
    sample = sampled(tokens, seed)
    outputs = norm_outputs(teacher, sample | {"input_ids": torch.from_numpy(kept)[sample["input_ids"]]})
    stream = torch.cat([outputs[0], *outputs[2::2]])  # after the embeddings and after each layer
    width = torch.from_numpy(pca(stream.numpy(), config.hidden))
    copy_embeddings(teacher.embeddings, student.bert.embeddings, torch.from_numpy(kept), width)
    for source, target in zip(layers, student.bert.encoder.layer, strict=True):
        copy_attention(teacher.encoder.layer[source].attention, target.attention, width)
        copy_feed_forward(teacher.encoder.layer[source], target, width)
    chosen = [outputs[0], *(outputs[1 + 2 * layer + part] for layer in layers for part in (0, 1))]
    fit_norms(student, sample, [states @ width for states in chosen])
    fit_head(student, tokens, goal)
    return student


def every_nth(teacher: int, student: int) -> list[int]:
    """Return the teacher's layers to copy: evenly spaced, the last one among them (6 to 2: the third and the sixth)."""
    return [(place + 1) * teacher // student - 1 for place in range(student)]


def sampled(tokens: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return random texts of about ``SAMPLED_TOKENS`` real tokens together, at least one."""
    order = torch.randperm(len(tokens["input_ids"]), generator=torch.Generator().manual_seed(seed))
    total = tokens["attention_mask"][order].sum(1).cumsum(0)
    rows = order[: int((total <= SAMPLED_TOKENS).sum().clamp(min=1))]
    return {name: value[rows] for name, value in tokens.items()}


def norms(bert: Any) -> list[nn.LayerNorm]:
    """Return the LayerNorms in the order in which they run."""
    layers = [
        norm for layer in bert.encoder.layer for norm in (layer.attention.output.LayerNorm, layer.output.LayerNorm)
    ]
    return [bert.embeddings.LayerNorm, *layers]


@contextmanager
def recorded(modules: Sequence[nn.Module]) -> Iterator[list[list[Tensor]]]:
    """Collect what comes out of modules, one list of tensors each."""
    seen: list[list[Tensor]] = [[] for _ in modules]

    def hook(place: int) -> Any:
        return lambda module, given, output: seen[place].append(output)

    handles = [module.register_forward_hook(hook(place)) for place, module in enumerate(modules)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def norm_outputs(bert: Any, tokens: dict[str, Tensor]) -> list[Tensor]:
    """Return what each LayerNorm gives for the real tokens, [T, H] each."""
    with recorded(norms(bert)) as seen:
        masks = []
        for _, ids, mask in batches(tokens):
            run_layers(bert.encoder.layer, bert.embeddings(input_ids=ids), mask)
            masks.append(mask.bool())
    return [torch.cat([part[mask] for part, mask in zip(parts, masks, strict=True)]) for parts in seen]


def copy_embeddings(teacher: Any, student: Any, kept: Tensor, width: Tensor) -> None:
    """Project the embeddings of the kept tokens, of the positions and of the token types."""
    student.word_embeddings.weight.copy_(teacher.word_embeddings.weight[kept] @ width)
    for name in ("position_embeddings", "token_type_embeddings"):
        rows = getattr(student, name).weight
        rows.copy_(getattr(teacher, name).weight[: len(rows)] @ width)


def copy_attention(teacher: Any, student: Any, width: Tensor) -> None:
    """Copy the heaviest heads, and of each the heaviest directions where the student's heads are narrower."""
    of, to = teacher.self, student.self
    wide, narrow = of.attention_head_size, to.attention_head_size
    heads = of.num_attention_heads
    scores = (of.query.weight.norm(dim=1) * of.key.weight.norm(dim=1)).view(heads, wide)
    values = (of.value.weight.norm(dim=1) * teacher.output.dense.weight.norm(dim=0)).view(heads, wide)
    chosen = values.square().sum(1).topk(to.num_attention_heads).indices.sort().values

    def rows(importance: Tensor) -> Tensor:
        best = importance[chosen].topk(narrow, dim=1).indices.sort(dim=1).values
        return (chosen[:, None] * wide + best).flatten()

    # a score is divided by the root of the head's width: the query makes up for a narrower one
    asked, passed, rescale = rows(scores), rows(values), (narrow / wide) ** 0.5
    read(of.query, to.query, asked, width, rescale)
    read(of.key, to.key, asked, width)
    read(of.value, to.value, passed, width)
    write(teacher.output.dense, student.output.dense, passed, width)


def copy_feed_forward(teacher: Any, student: Any, width: Tensor) -> None:
    """Copy the feed-forward units with the largest weights."""
    inner, outer = teacher.intermediate.dense, teacher.output.dense
    importance = inner.weight.norm(dim=1) * outer.weight.norm(dim=0)
    rows = importance.topk(student.intermediate.dense.out_features).indices.sort().values
    read(inner, student.intermediate.dense, rows, width)
    write(outer, student.output.dense, rows, width)


def read(teacher: nn.Linear, student: nn.Linear, rows: Tensor, width: Tensor, scale: float = 1.0) -> None:
    """Copy chosen outputs of a layer that reads the residual stream."""
    student.weight.copy_(scale * teacher.weight[rows] @ width)
    student.bias.copy_(scale * teacher.bias[rows])


def write(teacher: nn.Linear, student: nn.Linear, columns: Tensor, width: Tensor) -> None:
    """Copy chosen inputs of a layer that writes the residual stream."""
    student.weight.copy_(width.T @ teacher.weight[:, columns])
    student.bias.copy_(teacher.bias @ width)


def fit_norms(student: StudentEncoder, tokens: dict[str, Tensor], targets: list[Tensor]) -> None:
    """Fit each LayerNorm's scale and shift to the teacher's projected states, [T, h] each, in running order."""
    for place, (norm, target) in enumerate(zip(norms(student.bert), targets, strict=True)):
        norm.weight.fill_(1.0)
        norm.bias.zero_()
        given = norm_outputs(student.bert, tokens)[place]
        mean, centre = given.mean(0), target.mean(0)
        spread = given - mean
        scale = (spread * (target - centre)).mean(0) / spread.square().mean(0).clamp(min=1e-12)
        norm.weight.copy_(scale)
        norm.bias.copy_(centre - scale * mean)


def fit_head(student: StudentEncoder, tokens: dict[str, Tensor], goal: Tensor) -> None:
    """Fit the head from pooled states to the goal by ridge regression around the means."""
    pooled = torch.empty(len(goal), student.head.in_features)
    for rows, ids, mask in batches(tokens):
        pooled[rows] = student.pooled(ids, mask)
    mean, centre = pooled.mean(0), goal.mean(0)
    spread = (pooled - mean).double()
    gram = spread.T @ spread
    gram += RIDGE * gram.diagonal().mean().clamp(min=1e-12) * torch.eye(len(gram), dtype=torch.float64)
    weight = torch.linalg.solve(gram, spread.T @ (goal - centre).double()).T.float()
    student.head.weight.copy_(weight)
    student.head.bias.copy_(centre - weight @ mean)


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
