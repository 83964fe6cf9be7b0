"""A trained model folder -> one ``.edgerec`` file, behind a gate: what the file answers must be what torch answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from edgerec import __version__
from edgerec.bundle import write_bundle
from edgerec.distill.checkpoint import Checkpoint
from edgerec.distill.encoder import MAX_TOKENS
from edgerec.distill.text_encoder import text_encoder, text_tokenizer
from edgerec.errors import ParityError, UsageError
from edgerec.export import PRECISIONS
from edgerec.export.engines import Feed, token_feeds
from edgerec.export.goldens import TEXTS, K, goldens, ranked, torch_scores
from edgerec.export.item_encoder import INPUTS, ItemEncoder, export_fp32
from edgerec.export.lean_bert import lean
from edgerec.export.limits import LIMITS
from edgerec.export.parity import Reference, reference
from edgerec.export.quantization import Calibration, calibration, made
from edgerec.export.recommender_graph import recommender_graph
from edgerec.export.rounding import compensated
from edgerec.export.sparse_check import checked
from edgerec.files import atomic_path, write_bytes
from edgerec.runtime import Recommender
from edgerec.runtime.catalogue import optional_members
from edgerec.runtime.layout import ENCODER, GOLDENS, GRAPH, TOKENIZER, FloatArray, Tower, pack
from edgerec.runtime.verify import verify

PARITY_TEXTS = 512  # of the catalogue, from the shortest to the longest


@dataclass(frozen=True)
class Draft:
    """Everything that a model's file needs but the precision of its text encoder.

    Attributes:
        checkpoint: The model.
        encoder: Its text encoder: token ids to text parts.
        graph: That as ``item_encoder.onnx``, in fp32.
        tower: The tables as trained.
        rounded: The tables as they ship.
        tokenizer: The text encoder's, padding and truncating nothing.
        histories: Rows from 1, oldest first.
        texts: Golden ones.
        vectors: Torch's text vectors of them, float32 [len(texts), d].
    """

    checkpoint: Checkpoint
    encoder: nn.Module
    graph: bytes
    tower: Tower
    rounded: Tower
    tokenizer: Any
    histories: list[list[int]]
    texts: list[str]
    vectors: FloatArray

    def calibration(self, seed: int = 0) -> Calibration:
        """Return titles of the catalogue to calibrate on."""
        return calibration(self.tokenizer, self.checkpoint.texts, seed)


def draft(checkpoint: Checkpoint) -> Draft:
    """Prepare a model folder, a teacher or a student, for packaging."""
    arrays = checkpoint.towers.arrays()
    encoder = text_encoder(checkpoint)
    tokenizer = text_tokenizer(checkpoint)
    tower = shipped_tower(checkpoint, encoder, tokenizer)
    texts = spread(checkpoint.texts, TEXTS)
    vectors = unit(encode_texts(encoder, tokenizer, texts))
    histories = [[row + 1 for row in history] for history in checkpoint.histories]
    exported = encoder if "sparsity" in checkpoint.info else lean(encoder)  # its layers are counted in the graph
    graph = export_fp32(ItemEncoder(exported, arrays.cold, arrays.shared).eval(), tokenizer.get_vocab_size())
    rounded = compensated(tower, histories)
    return Draft(checkpoint, encoder, graph, tower, rounded, tokenizer, histories, texts, vectors)


def package(checkpoint: Checkpoint, precision: str, out: Path) -> dict[str, Any]:
    """Export a model folder.

    Args:
        checkpoint: A teacher or a student.
        precision: Of the text encoder, one of ``PRECISIONS``; the item tables are INT8 in each.
        out: The file to write, whole or not at all.

    Returns:
        A JSON value: ``bytes``, ``members`` (sizes) and ``parity``.

    Raises:
        UsageError: Unknown precision, or one that this model or this machine cannot have.
        ParityError: The file does not answer as torch does; nothing was written.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    prepared = draft(checkpoint)
    graph = made(precision, prepared.graph, prepared.calibration())
    return write(prepared, precision, graph, out)


def write(
    prepared: Draft, precision: str, graph: bytes, out: Path, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write a model's file, whole or not at all.

    Args:
        prepared: The model.
        precision: Of the text encoder, one of ``PRECISIONS``.
        graph: The text encoder in this precision.
        out: The file.
        more: Further blocks of the manifest.

    Returns:
        As ``package``.

    Raises:
        ParityError: The file does not answer as torch does, or is not as sparse as the model claims; nothing was
            written.
    """
    shipped, limits = prepared.rounded, LIMITS[precision]
    members, model = pack(shipped)
    members = {
        GRAPH: recommender_graph(shipped).SerializeToString(),
        ENCODER: graph,
        TOKENIZER: prepared.tokenizer.to_str().encode(),
        GOLDENS: goldens(shipped, prepared.histories, prepared.texts, prepared.vectors, limits.text_distance),
        **members,
        **optional_members(prepared.checkpoint.texts, prepared.checkpoint.columns),
    }
    manifest = {"model": model, "precision": {"text_encoder": precision, "tables": "int8"}}
    manifest |= {**origin(prepared.checkpoint), **(more or {})}
    if claim := prepared.checkpoint.info.get("sparsity"):
        manifest["sparsity"] = checked(graph, claim)
    with atomic_path(out) as temporary:
        write_bundle(temporary, manifest, members)
        parity = referee(temporary, prepared.tower, prepared.histories, limits.overlap)
        write_bundle(temporary, {**manifest, "parity": parity}, members)
    return {
        "bytes": out.stat().st_size,
        "members": {name: len(data) for name, data in members.items()},
        "parity": parity,
    }


STRINGS = ("ids.offsets", "ids.utf8", "titles.offsets", "titles.utf8")


def unpack(prepared: Draft, folder: Path) -> dict[str, Any]:
    """Write the portable files of a model, its text encoder in fp32, as a bundle extracts; return the model's entry."""
    members, model = pack(prepared.rounded)
    members |= {
        GRAPH: recommender_graph(prepared.rounded).SerializeToString(),
        ENCODER: prepared.graph,
        TOKENIZER: prepared.tokenizer.to_str().encode(),
    }
    for name, content in members.items():
        write_bytes(folder / name, content)
    return model


def wanted(prepared: Draft) -> Reference:
    """Return torch's answers for the sampled histories and up to ``PARITY_TEXTS`` texts of the catalogue."""
    texts = spread(sorted(set(prepared.checkpoint.texts)), PARITY_TEXTS)
    feeds = token_feeds(prepared.tokenizer, texts, MAX_TOKENS)
    return reference(prepared.tower, prepared.histories, unit(encode_feeds(prepared.encoder, feeds)), feeds, texts)


def sizes_of(folder: Path) -> dict[str, int]:
    """Return the size of every file of a folder in bytes, by its path inside."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}


def shipped_tower(checkpoint: Checkpoint, encoder: nn.Module, tokenizer: Any) -> Tower:
    """Return the tables that ship: the teacher's text parts for warm items, and for cold ones the shipped encoder's.

    So a cold item scores as it would if the device had added it.
    """
    towers = checkpoint.towers
    text = towers.text.numpy().copy()
    cold = np.flatnonzero(~towers.warm.numpy())
    if len(cold):
        text[cold] = encode_texts(encoder, tokenizer, [checkpoint.texts[row] for row in cold])
    arrays = towers.arrays(text)
    return Tower(
        decays=arrays.decays,
        mix=arrays.mix,
        scale=arrays.scale,
        item_out=arrays.item_out,
        item_in=None if arrays.shared else arrays.item_in,
        bias=arrays.bias,
        popularity=np.array(checkpoint.counts, np.float32),
        text=unit(text),
        ids=checkpoint.ids,
        titles=checkpoint.titles,
        mask_seen=checkpoint.info["data"]["mask_seen"],
        max_tokens=MAX_TOKENS,
        repeat_decays=arrays.repeat_decays,
        repeat_weights=arrays.repeat_weights,
    )


def unit(rows: FloatArray) -> FloatArray:
    """Return rows of length 1 (a row of zeros stays)."""
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def encode_texts(encoder: nn.Module, tokenizer: Any, texts: Sequence[str]) -> FloatArray:
    """Return text parts of texts, float32 [n, d], as torch computes them on padded batches."""
    return encode_feeds(encoder, token_feeds(tokenizer, texts, MAX_TOKENS))


@torch.no_grad()
def encode_feeds(encoder: nn.Module, feeds: Sequence[Feed]) -> FloatArray:
    """Return text parts of batches of tokens, float32 [n, d]."""
    return np.concatenate([encoder(*(torch.from_numpy(feed[name]) for name in INPUTS)).numpy() for feed in feeds])


def spread(values: Sequence[str], count: int) -> list[str]:
    """Return up to ``count`` values, evenly spread from shortest to longest, so that lengths vary."""
    ordered = sorted(values, key=len)
    return [ordered[int(row)] for row in np.linspace(0, len(ordered) - 1, min(count, len(ordered)))]


def referee(path: Path, tower: Tower, histories: Sequence[Sequence[int]], least: float) -> dict[str, float]:
    """Replay the goldens, and compare the file's rankings with those of the tower before rounding.

    ``least`` is how much of its top ten has to be left on average.

    Raises:
        ParityError: Either differs by more than the precision may cost.
    """
    report = verify(path)
    recommender = Recommender.load(path)
    overlaps = []
    for history in histories:
        wanted = ranked(torch_scores(tower, history), history if tower.mask_seen else [], K)
        ids = [tower.ids[row - 1] for row in history]
        got = {entry.item for entry in recommender.recommend(ids, K)}
        overlaps.append(len(got & {tower.ids[row - 1] for row in wanted}) / max(len(wanted), 1))
    overlap = float(np.mean(overlaps)) if overlaps else 1.0
    if overlap < least:
        raise ParityError(
            f"INT8 tables keep {overlap:.0%} of torch's top {K} over {len(overlaps)} histories; expected at least "
            f"{least:.0%}; nothing was written: train longer, or with a larger --embedding-size"
        )
    return {
        "top10_overlap_with_fp32": overlap,
        "largest_score_difference": report["largest_score_difference"],
        "largest_text_distance": report["largest_text_distance"],
    }


def origin(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the manifest's record of where the bundle comes from."""
    return {
        "kind": checkpoint.info["kind"],
        "data": checkpoint.info["data"],
        "split": checkpoint.info["split"],
        "validation_ndcg10": checkpoint.info["validation_ndcg10"],
        "versions": {"edgerec": __version__, "torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
    }
