"""What changed in the catalogue on the device: items added, replaced and removed beside the bundle's constant tables.

An item keeps its row for good: a replaced one the bundle's, a new one the next above all that were ever given. An
overlay is never changed in place, so that an answer that has begun goes on with what it began with. On disk it is a
bundle of its own kind, ``NAME.overlay``, that names the bundle it belongs to.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgerec import strict_json
from edgerec.bundle import MANIFEST, Bundle, digest, write_bundle
from edgerec.errors import BundleError
from edgerec.runtime.contents import Contents, Strings, is_cell
from edgerec.runtime.layout import LIMB, SMALLEST_DELTA, CodeArray, FloatArray, quantize_rows, strings
from edgerec.runtime.text import Vectors

KIND = "overlay"
TABLES = ("text", "item_in", "item_out")
MOST_ROWS_GIVEN = 1 << 24  # beyond the bundle's: every answer has a score for each, used or not


class Item(NamedTuple):
    """One added or replaced item: id, row, what a person and what the encoder reads, and further columns."""

    id: str
    row: int
    title: str
    text: str
    columns: Mapping[str, Any]


class Table(NamedTuple):
    """Vectors as a bundle holds them: int8 [n, d] codes and float32 [n] scales."""

    codes: CodeArray
    scale: FloatArray

    def floats(self) -> FloatArray:
        """Return the vectors, float32 [n, d]."""
        return self.codes.astype(np.float32) * self.scale[:, None]

    def joined(self, other: Table) -> Table:
        """Return the vectors of both."""
        return Table(np.concatenate([self.codes, other.codes]), np.concatenate([self.scale, other.scale]))


@dataclass(frozen=True, eq=False, repr=False)  # each method that is made costs an import 0.3 ms
class Overlay:
    """Changes of one bundle's catalogue.

    Attributes:
        items: What is added or replaced.
        tables: ``text``, ``item_in`` and ``item_out``, a row for each of ``items``.
        bias: float32 [A], likewise.
        removed: Rows that are not to be returned or observed any more. What was added stays here until the next start,
            since sessions may have taken it.
        next_row: The row of the next new item.
        version: The number of the latest delta that was applied, 0 for none.
        head: The identity of that delta.
    """

    items: tuple[Item, ...]
    tables: Mapping[str, Table]
    bias: FloatArray
    removed: frozenset[int]
    next_row: int
    version: int = 0
    head: str = ""

    @classmethod
    def empty(cls, n_items: int, embedding_size: int) -> Overlay:
        """Return an overlay without changes."""
        nothing = Table(np.zeros((0, embedding_size), np.int8), np.zeros(0, np.float32))
        return cls((), dict.fromkeys(TABLES, nothing), np.zeros(0, np.float32), frozenset(), n_items + 1)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def places(self) -> dict[int, int]:
        """Row -> place among ``items``."""
        return {item.row: place for place, item in enumerate(self.items)}

    @cached_property
    def by_id(self) -> dict[str, Item]:
        """Id -> item."""
        return {item.id: item for item in self.items}

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The row of each item, int64 [A]."""
        return np.array([item.row for item in self.items], np.int64)

    @cached_property
    def vectors(self) -> Vectors:
        """The items' vectors, dequantized, and biases."""
        text, item_in, item_out = (self.tables[name].floats() for name in TABLES)
        return Vectors(text, item_in, item_out, self.bias)

    @cached_property
    def live(self) -> NDArray[np.bool_]:
        """Which items may be returned, bool [A]."""
        return np.array([item.row not in self.removed for item in self.items], np.bool_)

    def hidden(self, n_items: int) -> NDArray[np.int64]:
        """Return the bundle's rows that its own tables must not answer with: the removed and the replaced."""
        return np.array([row for row in {*self.removed, *self.places} if row <= n_items], np.int64)

    def with_items(self, items: Sequence[Item], vectors: Vectors) -> Overlay:
        """Return the overlay with more items, or other versions of those it has."""
        fresh = {name: Table(*quantize_rows(getattr(vectors, name))) for name in TABLES}
        return self.with_tables(items, fresh, vectors.bias.astype(np.float32))

    def with_tables(self, items: Sequence[Item], tables: Mapping[str, Table], bias: FloatArray) -> Overlay:
        """Return the overlay with more items, or other versions of those it has, whose vectors are rounded already."""
        rows = {item.row for item in items}
        rest = self.without(rows)
        return replace(
            rest,
            items=(*rest.items, *items),
            tables={name: rest.tables[name].joined(tables[name]) for name in TABLES},
            bias=np.concatenate([rest.bias, bias]),
            removed=self.removed - rows,
            next_row=max([self.next_row, *(row + 1 for row in rows)]),
        )

    def without(self, rows: set[int]) -> Overlay:
        """Return the overlay without some of its items."""
        kept = [place for place, item in enumerate(self.items) if item.row not in rows]
        tables = {name: Table(table.codes[kept], table.scale[kept]) for name, table in self.tables.items()}
        return replace(self, items=tuple(self.items[place] for place in kept), tables=tables, bias=self.bias[kept])

    def removing(self, rows: set[int]) -> Overlay:
        """Return the overlay after the removal of items."""
        return replace(self, removed=self.removed | rows)

    def scores(self, users: FloatArray) -> FloatArray:
        """Return the score of every item for user vectors float32 [B, d], float32 [B, A]."""
        return as_limbs(users) @ self.vectors.item_out.T + self.bias

    def members(self) -> dict[str, bytes]:
        """Return the items as the members of a bundle."""
        members = {
            "columns.json": json.dumps([item.columns for item in self.items], ensure_ascii=False).encode(),
            "bias.f32": self.bias.astype("<f4").tobytes(),
            **strings("ids", [item.id for item in self.items]),
            **strings("titles", [item.title for item in self.items]),
            **strings("texts", [item.text for item in self.items]),
        }
        for name, table in self.tables.items():
            members |= {f"{name}.i8": table.codes.tobytes(), f"{name}.scale": table.scale.astype("<f4").tobytes()}
        return members

    def save(self, path: Path, base: str, n_items: int) -> None:
        """Write the overlay of the bundle of ``n_items`` that ``base`` identifies, whole or not at all."""
        kept = self.without(set(self.removed))
        removed = [row for row in sorted(self.removed) if row <= n_items]
        head = {"rows": kept.rows.tolist(), "removed": removed, "next_row": self.next_row}
        head |= {"version": self.version, "head": self.head}
        write_bundle(path, {"kind": KIND, "base": base, **head}, kept.members())


def identity(bundle: Bundle) -> str:
    """Return what tells a bundle from any other: the sha256 of its manifest, which holds those of all members."""
    return digest(bundle[MANIFEST])


def as_limbs(users: FloatArray) -> FloatArray:
    """Return user vectors float32 [B, d] as coarse as the graph's integer product sees them, so that ranks agree."""
    delta = np.maximum(np.abs(users).max(axis=1, keepdims=True) / np.float32(LIMB), np.float32(SMALLEST_DELTA))
    high = np.rint(users / delta)
    fine = delta / np.float32(2 * LIMB)
    return (high * delta + np.rint((users - high * delta) / fine) * fine).astype(np.float32)


def load_overlay(path: Path, base: str, contents: Contents) -> Overlay:
    """Read an overlay.

    Args:
        path: A file that ``Overlay.save`` wrote.
        base: The identity of the bundle it is to lie over.
        contents: What that bundle holds.

    Raises:
        BundleError: The file is no whole overlay, or one of another bundle.
    """
    bundle = Bundle(path)
    manifest = bundle.manifest
    kind, of = manifest.get("kind"), str(manifest.get("base"))
    if kind != KIND or of != base:
        raise BundleError(
            f"{path} is {kind!r} of the bundle {of[:12]}; expected an overlay of {base[:12]}: name the bundle that it "
            "was made with, or add the items anew"
        )
    try:
        found = parse(bundle, contents.embedding_size)
        check(found, contents)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise BundleError(
            f"{path} holds no usable overlay ({error}); expected a whole one: add the items anew"
        ) from error
    return found


def parse(bundle: Bundle, embedding_size: int) -> Overlay:
    """Return what a bundle of the overlay kind holds."""
    manifest = bundle.manifest
    removed = frozenset(whole(row) for row in manifest["removed"])
    version, head = whole(manifest.get("version", 0)), str(manifest.get("head", ""))
    parts = parse_items(bundle, [whole(row) for row in manifest["rows"]], embedding_size)
    return Overlay(*parts, removed, whole(manifest["next_row"]), version, head)


def parse_items(
    bundle: Bundle, rows: Sequence[int], embedding_size: int
) -> tuple[tuple[Item, ...], dict[str, Table], FloatArray]:
    """Return the items of these rows, their tables and their biases, as ``Overlay.members`` wrote them."""
    ids, titles, texts = (read_strings(bundle, name) for name in ("ids", "titles", "texts"))
    columns = strict_json.parse(bundle["columns.json"], len(bundle["columns.json"]))
    made = zip(ids, rows, titles, texts, columns, strict=True)
    items = tuple(Item(name, row, title, text, dict(extra)) for name, row, title, text, extra in made)
    tables = {
        name: Table(
            np.frombuffer(bundle[f"{name}.i8"], np.int8).reshape(len(rows), embedding_size),
            np.frombuffer(bundle[f"{name}.scale"], "<f4"),
        )
        for name in TABLES
    }
    return items, tables, np.frombuffer(bundle["bias.f32"], "<f4")


def read_strings(bundle: Bundle, name: str) -> list[str]:
    """Return the strings of two members, or refuse them by ValueError."""
    found = Strings(bundle[f"{name}.offsets"], bundle[f"{name}.utf8"])
    if fault := found.fault():
        raise ValueError(f"{name}: {fault}")
    return [found[place] for place in range(len(found))]


def whole(value: Any) -> int:
    """Return a JSON value that is a whole number, or refuse it by TypeError."""
    if type(value) is not int:
        raise TypeError(f"{reprlib.repr(value)} is no whole number")
    return value


def check(overlay: Overlay, contents: Contents) -> None:
    """Refuse an overlay that contradicts itself or its bundle, by ValueError."""
    n, rows = contents.n_items, [item.row for item in overlay.items]
    check_items(overlay.items, overlay.tables, overlay.bias)
    if len(set(rows)) != len(rows):
        raise ValueError("a row stands twice")
    if overlay.next_row - n > MOST_ROWS_GIVEN or overlay.version < 0:
        raise ValueError(f"next_row is {overlay.next_row}, expected at most {n + MOST_ROWS_GIVEN}")
    if not all(0 < row < overlay.next_row for row in rows) or not all(0 < row <= n for row in overlay.removed):
        raise ValueError("a row is outside the catalogue")
    if overlay.next_row <= n or any(contents.rows.get(item.id, item.row) != item.row for item in overlay.items):
        raise ValueError("an id has another row than in the bundle")
    if any(item.row <= n and contents.ids[item.row - 1] != item.id for item in overlay.items):
        raise ValueError("a row has another id than in the bundle")


def check_items(items: Sequence[Item], tables: Mapping[str, Table], bias: FloatArray) -> None:
    """Refuse items that contradict themselves, by ValueError."""
    numbers = [bias, *(table.scale for table in tables.values())]
    if any(one.shape != (len(items),) or not np.isfinite(one).all() for one in numbers):
        raise ValueError("a table has another number of rows, or is not finite")
    if len({item.id for item in items}) != len(items) or not all(item.id and item.text.strip() for item in items):
        raise ValueError("an id stands twice, or an id or text is empty")
    if not all(is_cell(value) for item in items for value in item.columns.values()):
        raise ValueError("a column holds something else than numbers, strings and lists of those")
