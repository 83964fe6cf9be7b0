"""How a trained tower lies in a bundle: the one place that writes its tables and describes them in the manifest.

Items have rows 1 .. N; row 0 is the padding item, which is never returned. Tables are INT8, symmetric, one scale per
item. Item tables lie as [d, N + 1], the way the graph multiplies by them; the text table lies as [N + 1, d].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerec.errors import UsageError
from edgerec.runtime.ids import LARGE, ORDER, sorted_places

FloatArray = NDArray[np.float32]
CodeArray = NDArray[np.int8]
LIMIT = 127
LIMB = 63  # a user vector enters the integer product as two limbs, each within 64 +- 63
SMALLEST_DELTA = 1e-30  # a limb's step
SMALLEST_NORM = 1e-6  # of a user vector before it is brought to its length
NUMBERS = ["decays", "mix", "scale", "item_out", "item_in", "bias", "popularity", "text"]
NUMBERS += ["repeat_decays", "repeat_weights"]  # what of a tower must be finite
SMALLEST_SCALE = 1e-12  # a row of zeros keeps a scale that can be divided by
GRAPH, ENCODER, TOKENIZER, GOLDENS = "recommender.onnx", "item_encoder.onnx", "tokenizer.json", "goldens.json"


def no_numbers() -> FloatArray:
    """Return float32 [0], what a tower without repeat recencies has of them."""
    return np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False, repr=False)  # each method that is made costs an import 0.3 ms
class Tower:
    """A trained recommender as arrays; row i of every table is item ``ids[i]``.

    Attributes:
        decays: float32 [K] in (0, 1): what one event leaves of each state.
        mix: float32 [K]: weight of each state in the user vector.
        scale: Length of the user vector.
        item_out: float32 [N, d], items as candidates.
        item_in: float32 [N, d], items as history, or None where ``item_out`` serves both.
        bias: float32 [N], added to the score.
        popularity: float32 [N], the score for a user of whom nothing is known.
        text: float32 [N, d], text parts of length 1, for search.
        ids: N different strings.
        titles: N strings.
        mask_seen: Whether items of the history are left out unless asked for.
        max_tokens: Where the text encoder's input is cut.
        repeat_decays: float32 [R] in (0, 1), the repeat recencies: what one event leaves of each memory of an item.
        repeat_weights: float32 [R], the repeat weights: what log1p of each memory adds to the item's own score.
        steps: Table name (``item_out``, ``item_in``) -> float32 [N], what each row is to be a whole multiple of, for
            a table that was rounded with more care than row by row; its entries are within 127 steps.
    """

    decays: FloatArray
    mix: FloatArray
    scale: float
    item_out: FloatArray
    item_in: FloatArray | None
    bias: FloatArray
    popularity: FloatArray
    text: FloatArray
    ids: Sequence[str]
    titles: Sequence[str]
    mask_seen: bool = True
    max_tokens: int = 128
    repeat_decays: FloatArray = field(default_factory=no_numbers)
    repeat_weights: FloatArray = field(default_factory=no_numbers)
    steps: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def n_items(self) -> int:
        """The number N of items, without the padding item."""
        return len(self.item_out)

    @property
    def embedding_size(self) -> int:
        """The number d of dimensions."""
        return self.item_out.shape[1]

    @property
    def shared(self) -> bool:
        """Whether one table serves history and candidates."""
        return self.item_in is None


def quantize_rows(vectors: FloatArray, steps: FloatArray | None = None) -> tuple[CodeArray, FloatArray]:
    """Round each row to whole numbers within +-127 times its own scale.

    Args:
        vectors: float32 [n, d].
        steps: float32 [n], the scales; None for the smallest that do.

    Returns:
        Codes int8 [n, d] and scales float32 [n]; ``codes * scales[:, None]`` is within half a scale of the input.
    """
    scale = smallest_steps(vectors) if steps is None else steps
    return np.rint(vectors / scale[:, None]).astype(np.int8), scale


def smallest_steps(vectors: FloatArray) -> FloatArray:
    """Return the smallest scale of each row of float32 [n, d] that brings it within +-127, float32 [n]."""
    return np.maximum(np.abs(vectors).max(axis=1) / LIMIT, SMALLEST_SCALE).astype(np.float32)


def pack(tower: Tower) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the tables as bundle members, and the manifest's ``model`` entry.

    The graphs, ``tokenizer.json`` and ``goldens.json`` are the exporter's to add.

    Raises:
        UsageError: Shapes differ, ids repeat, or a value is not finite; every problem is named.
    """
    if problems := faults(tower):
        raise UsageError(f"this tower cannot be packed: {'; '.join(problems)}; train or export it again")
    text, text_scale = quantize_rows(with_padding(tower.text))
    members: dict[str, bytes] = {}
    for name, vectors in (("item_out", tower.item_out), ("item_in", tower.item_in)):
        if vectors is not None:
            members |= table(name, vectors, tower.steps.get(name))
    members |= {
        "bias.f32": np.concatenate([[-np.inf], tower.bias]).astype("<f4").tobytes(),
        "popularity.f32": np.concatenate([[-np.inf], tower.popularity]).astype("<f4").tobytes(),
        "text.i8": text.tobytes(),
        "text.scale": text_scale.astype("<f4").tobytes(),
        **strings("ids", tower.ids),
        **strings("titles", tower.titles),
    }
    if tower.n_items >= LARGE:
        members[ORDER] = sorted_places(tower.ids).tobytes()
    model = {
        "n_items": tower.n_items,
        "embedding_size": tower.embedding_size,
        "decays": [float(value) for value in tower.decays],
        "mix": [float(value) for value in tower.mix],
        "scale": float(tower.scale),
        "shared": tower.shared,
        "mask_seen": bool(tower.mask_seen),
        "max_tokens": int(tower.max_tokens),
        "repeat_decays": [float(value) for value in tower.repeat_decays],
        "repeat_weights": [float(value) for value in tower.repeat_weights],
    }
    return members, model


def faults(tower: Tower) -> list[str]:
    """Return what is wrong with a tower, one phrase each."""
    n = tower.n_items
    found = ([] if n else ["it has no items"]) + shape_faults(tower)
    for name in NUMBERS:
        if getattr(tower, name) is not None and not np.isfinite(getattr(tower, name)).all():
            found.append(f"{name} is not finite")
    for name in ("decays", "repeat_decays"):
        decays = getattr(tower, name)
        if not ((decays > 0) & (decays < 1)).all():
            found.append(f"{name} are {decays.tolist()}, expected between 0 and 1")
    if len(tower.ids) != n or len(set(tower.ids)) != n or len(tower.titles) != n:
        found.append(f"{len(set(tower.ids))} different ids and {len(tower.titles)} titles for {n} items")
    return found


def shape_faults(tower: Tower) -> list[str]:
    """Return which arrays of a tower have another shape than the others ask for."""
    n, k, r = tower.n_items, len(tower.decays), tower.repeat_decays.size
    square = tower.item_out.shape
    shapes = {"mix": (k,), "item_in": square, "bias": (n,), "popularity": (n,), "text": square}
    shapes |= {"repeat_decays": (r,), "repeat_weights": (r,)}
    return [
        f"{name} has shape {array.shape}, expected {shape}"
        for name, shape in shapes.items()
        if (array := getattr(tower, name)) is not None and array.shape != shape
    ]


def with_padding(vectors: FloatArray) -> FloatArray:
    """Return float32 [N + 1, d] with the padding item's zeros as row 0."""
    return np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors.astype(np.float32)])


def table(name: str, vectors: FloatArray, steps: FloatArray | None) -> dict[str, bytes]:
    """Return an item table's two members."""
    padded = None if steps is None else np.concatenate([[SMALLEST_SCALE], steps]).astype(np.float32)
    codes, scale = quantize_rows(with_padding(vectors), padded)
    return {f"{name}.i8": np.ascontiguousarray(codes.T).tobytes(), f"{name}.scale": scale.astype("<f4").tobytes()}


def strings(name: str, values: Sequence[str]) -> dict[str, bytes]:
    """Return strings as one UTF-8 text and the uint32 [N + 1] offsets that cut it."""
    encoded = [value.encode() for value in values]
    offsets = np.concatenate([[0], np.cumsum([len(value) for value in encoded], dtype=np.int64)])
    if offsets[-1] > np.iinfo(np.uint32).max:
        raise UsageError(f"{name} hold {offsets[-1]} bytes; expected less than 4 GiB: shorten them")
    return {f"{name}.offsets": offsets.astype("<u4").tobytes(), f"{name}.utf8": b"".join(encoded)}


def members_of(model: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the members that a bundle of such a model has, with their size in bytes, or None where any will do."""
    n, d = model["n_items"] + 1, model["embedding_size"]
    tables = ("item_out",) if model["shared"] else ("item_out", "item_in")
    vectors = ["bias.f32", "popularity.f32", "text.scale", "ids.offsets", "titles.offsets"]
    sizes: dict[str, int | None] = dict.fromkeys([*vectors, *(f"{name}.scale" for name in tables)], 4 * n)
    sizes |= dict.fromkeys(["text.i8", *(f"{name}.i8" for name in tables)], n * d)
    return sizes | dict.fromkeys(["ids.utf8", "titles.utf8", GRAPH, ENCODER, TOKENIZER, GOLDENS])
