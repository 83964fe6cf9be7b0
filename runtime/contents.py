"""What a bundle's members hold, as views of the mapped file; every mismatch with the manifest is named at once."""

from __future__ import annotations

import codecs
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerec.bundle import Bundle
from edgerec.errors import BundleError
from edgerec.runtime.ids import ORDER, SortedRows
from edgerec.runtime.layout import CodeArray, FloatArray, members_of

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
MOST_ROWS = 2**31 - 1  # rows are int32 elsewhere
MOST_DIMENSIONS = 2**14
MOST_NUMBERS = 64  # recencies: a state has one vector for each, whatever the size of the file
MOST_DECODED = 1 << 13  # strings of each kind: about 1 MB
BLOCK = 1 << 20  # bytes of a text that are checked at once


def is_count(value: Any, most: int = MOST_ROWS) -> bool:
    """Tell whether a JSON value is a whole number above 0, and not above ``most``."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def is_number(value: Any) -> bool:
    """Tell whether a JSON value is a number that float32 can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_FLOAT32


def is_cell(value: Any) -> bool:
    """Tell whether a value can stand in a column."""
    several = isinstance(value, list | tuple | set | frozenset) and all(isinstance(one, str) for one in value)
    return value is None or isinstance(value, str) or is_number(value) or several


def are_numbers(value: Any) -> bool:
    """Tell whether a JSON value is a list of a few finite numbers."""
    return isinstance(value, list) and 0 < len(value) <= MOST_NUMBERS and all(is_number(element) for element in value)


def are_decays(value: Any) -> bool:
    """Tell whether a JSON value is a list of numbers between 0 and 1."""
    return are_numbers(value) and all(0 < element < 1 for element in value)


def no_or(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a check that an empty list passes too."""
    return lambda value: value == [] or holds(value)


MODEL: dict[str, tuple[Callable[[Any], bool], str]] = {
    "n_items": (is_count, "a count"),
    "embedding_size": (lambda value: is_count(value, MOST_DIMENSIONS), f"a count up to {MOST_DIMENSIONS}"),
    "decays": (are_decays, "numbers between 0 and 1"),
    "mix": (are_numbers, "numbers"),
    "scale": (is_number, "a number"),
    "shared": (lambda value: isinstance(value, bool), "true or false"),
    "mask_seen": (lambda value: isinstance(value, bool), "true or false"),
    "max_tokens": (is_count, "a count"),
    "repeat_decays": (no_or(are_decays), "numbers between 0 and 1, or none"),
    "repeat_weights": (no_or(are_numbers), "numbers, or none"),
}
SINCE: dict[str, Any] = {"repeat_decays": [], "repeat_weights": []}  # what bundles of an earlier release do not have
PAIRS = {"mix": "decays", "repeat_weights": "repeat_decays"}  # one number for each of the other


class Decoded(dict[int, str]):
    """The strings that were asked for, up to a number of them."""

    def __init__(self, strings: Strings) -> None:
        self._strings = strings

    def __missing__(self, index: int) -> str:
        """Decode a string, and keep it while there is room."""
        found = self._strings[index]
        if len(self) < MOST_DECODED:
            self[index] = found
        return found


class Strings:
    """Strings that are decoded one by one, from one UTF-8 text and the offsets that cut it."""

    def __init__(self, offsets: memoryview, text: memoryview) -> None:
        self._offsets = np.frombuffer(offsets, "<u4")
        # plain integers are read from a view of the machine's own order, in a third of the time
        self._ends = offsets.cast("I") if sys.byteorder == "little" and len(offsets) % 4 == 0 else self._offsets
        self._text = text
        self._decoded = Decoded(self)

    def __len__(self) -> int:
        return max(len(self._offsets) - 1, 0)  # a hostile file has no offsets at all

    def __getitem__(self, index: int) -> str:
        return str(self._text[self._ends[index] : self._ends[index + 1]], "utf-8")

    def some(self, indices: Iterable[int]) -> list[str]:
        """Return several strings; those of answers come again, and are kept."""
        return list(map(self._decoded.__getitem__, indices))

    def encoded(self, index: int) -> bytes:
        """Return a string's UTF-8."""
        return bytes(self._text[self._offsets[index] : self._offsets[index + 1]])

    def fault(self) -> str | None:
        """Return why some string could not be read, or None."""
        offsets = self._offsets
        if not len(offsets) or offsets[0] or offsets[-1] != len(self._text) or (offsets[1:] < offsets[:-1]).any():
            return "offsets do not rise from 0 to the size of the text"
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for start in range(0, len(self._text), BLOCK):
                decoder.decode(self._text[start : start + BLOCK])
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            return f"text is not UTF-8 ({error})"
        starts = self._offsets[self._offsets < len(self._text)]
        if (np.frombuffer(self._text, np.uint8)[starts] & 0xC0 == 0x80).any():
            return "offsets cut a character"
        return None


@dataclass(frozen=True, eq=False, repr=False)  # each method that is made costs an import 0.3 ms
class Contents:
    """An exported tower. ``n`` below is n_items + 1, because row 0 of every table is the padding item.

    Attributes:
        model: The manifest's ``model`` entry.
        external: Name -> view, for the graph's external initializers.
        text_codes: int8 [n, d], with ``text_scale`` float32 [n].
        ids: The item ids; element j belongs to row j + 1.
        titles: The titles, likewise.
        order: uint32 [n_items], the places of the ids when sorted, or None where a dict does.
    """

    model: Mapping[str, Any]
    external: Mapping[str, NDArray[Any]]
    text_codes: CodeArray
    text_scale: FloatArray
    ids: Strings
    titles: Strings
    order: NDArray[np.uint32] | None

    @property
    def n_items(self) -> int:
        """The number of items, without the padding item."""
        return self.model["n_items"]

    @property
    def embedding_size(self) -> int:
        """The number d of dimensions."""
        return self.model["embedding_size"]

    @cached_property
    def decays(self) -> FloatArray:
        """What one event leaves of each state, float32 [K]."""
        return np.array(self.model["decays"], np.float32)

    @cached_property
    def repeat_decays(self) -> FloatArray:
        """What one event leaves of each memory of an item, float32 [R]."""
        return np.array(self.model["repeat_decays"], np.float32)

    @cached_property
    def repeat_weights(self) -> FloatArray:
        """The weight of each memory in an item's score, float32 [R]."""
        return np.array(self.model["repeat_weights"], np.float32)

    def column(self, row: int, as_history: bool) -> FloatArray:
        """Return an item's dequantized vector, float32 [d], as history or as candidate."""
        name = "item_in" if as_history and not self.model["shared"] else "item_out"
        vector: FloatArray = self.external[f"{name}.i8"][:, row] * self.external[f"{name}.scale"][row : row + 1]
        return vector

    def columns(self, rows: Sequence[int], as_history: bool) -> FloatArray:
        """Return items' dequantized vectors, float32 [n, d], as history or as candidates."""
        name = "item_in" if as_history and not self.model["shared"] else "item_out"
        places = np.asarray(rows, np.int64)  # of no rows too
        codes: CodeArray = self.external[f"{name}.i8"].take(places, axis=1)
        return (codes * self.external[f"{name}.scale"].take(places)).T

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Item id -> row; of a small catalogue a dict, made at the first look-up by id."""
        if self.order is not None:
            return SortedRows(self.ids, self.order)
        return {self.ids[index]: index + 1 for index in range(self.n_items)}


def read(bundle: Bundle) -> Contents:
    """Check the manifest's model against the members, and return views of them.

    Raises:
        BundleError: Anything is missing or disagrees; the message names all of it.
    """
    model = bundle.manifest.get("model")
    if not isinstance(model, dict):
        raise refusal(bundle, ["the manifest has no model"])
    model = {**SINCE, **model}
    found = model_faults(model) or member_faults(bundle, model)
    if found:
        raise refusal(bundle, found)
    contents = view(bundle, model)
    if found := content_faults(contents):
        raise refusal(bundle, found)
    return contents


def refusal(bundle: Bundle, found: list[str]) -> BundleError:
    """Return the one error that names every fault."""
    return BundleError(f"{bundle.path} holds no usable recommender: {'; '.join(found)}; export it again")


def model_faults(model: Mapping[str, Any]) -> list[str]:
    """Return which entries of the model cannot be used."""
    found = [
        f"model.{name} is {reprlib.repr(model.get(name))}, expected {expected}"
        for name, (holds, expected) in MODEL.items()
        if not holds(model.get(name))
    ]
    return found or [
        f"model.{name} has {len(model[name])} values for {len(model[other])} {other}"
        for name, other in PAIRS.items()
        if len(model[name]) != len(model[other])
    ]


def member_faults(bundle: Bundle, model: Mapping[str, Any]) -> list[str]:
    """Return which members are missing or have another size than the model's shape asks for."""
    listed, found = bundle.manifest["members"], []
    for name, size in members_of(model).items():
        if name not in listed:
            found.append(f"member {name} is missing")
        elif size is not None and listed[name]["size"] != size:
            found.append(f"member {name} has {listed[name]['size']} bytes, expected {size}")
    if ORDER in listed and listed[ORDER]["size"] != 4 * model["n_items"]:
        found.append(f"member {ORDER} has {listed[ORDER]['size']} bytes, expected {4 * model['n_items']}")
    return found


def view(bundle: Bundle, model: Mapping[str, Any]) -> Contents:
    """Return views of members whose sizes are right."""
    n, d = model["n_items"] + 1, model["embedding_size"]
    tables = ("item_out",) if model["shared"] else ("item_out", "item_in")
    external: dict[str, NDArray[Any]] = {
        name: np.frombuffer(bundle[name], "<f4")
        for name in ("bias.f32", "popularity.f32", *(f"{table}.scale" for table in tables))
    }
    external |= {f"{table}.i8": np.frombuffer(bundle[f"{table}.i8"], np.int8).reshape(d, n) for table in tables}
    ids, titles = (Strings(bundle[f"{name}.offsets"], bundle[f"{name}.utf8"]) for name in ("ids", "titles"))
    return Contents(
        model,
        external,
        np.frombuffer(bundle["text.i8"], np.int8).reshape(n, d),
        np.frombuffer(bundle["text.scale"], "<f4"),
        ids,
        titles,
        np.frombuffer(bundle[ORDER], "<u4") if ORDER in bundle.manifest["members"] else None,
    )


def content_faults(contents: Contents) -> list[str]:
    """Return what is wrong inside the members."""
    found = [
        f"{name}.utf8: {fault}"
        for name, strings in (("ids", contents.ids), ("titles", contents.titles))
        if (fault := strings.fault())
    ]
    for name, values in {**contents.external, "text.scale": contents.text_scale}.items():
        if not name.endswith(".i8") and not np.isfinite(values[1:]).all():
            found.append(f"{name} is not finite")
    for name in ("bias.f32", "popularity.f32"):
        if not contents.external[name][0] < -1e38:
            found.append(f"{name} would return the padding item")
    if contents.order is not None and contents.order.max() >= contents.n_items:
        found.append(f"{ORDER} has places outside the catalogue")
    return found
