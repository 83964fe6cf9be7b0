"""What a bundle may hold of its items beside vectors: their texts, and further columns to filter and boost by.

Both are optional members. ``texts.utf8`` and ``texts.offsets`` hold what the encoder read of each item: an item whose
text is replaced loses what the old one foretold, and explanations need it. ``columns.json`` maps a column's name to a
list with one value per item: a number or null, a string, or a list of strings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgerec import strict_json
from edgerec.bundle import Bundle
from edgerec.errors import BundleError, UsageError
from edgerec.runtime.contents import Strings, is_number
from edgerec.runtime.layout import strings
from edgerec.runtime.overlay import Overlay

TEXTS, COLUMNS = "texts", "columns.json"
BoolArray = NDArray[np.bool_]
Where = Mapping[str, Any]  # column -> a number, (low or None, high or None), a string, or several strings


class Numbers(NamedTuple):
    """A column of numbers, float64 [n]; NaN where an item has none."""

    values: NDArray[np.float64]

    def mask(self, name: str, wanted: Any) -> BoolArray:
        """Tell which items have the number, or one between two ends that count in."""
        low, high = (wanted, wanted) if is_number(wanted) else ends(name, wanted)
        with np.errstate(invalid="ignore"):
            return (self.values >= (-np.inf if low is None else low)) & (
                self.values <= (np.inf if high is None else high)
            )


class Words(NamedTuple):
    """A column of strings, any number per item: ``codes[offsets[i]:offsets[i + 1]]`` are item i's, by ``words``."""

    words: Mapping[str, int]
    codes: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def mask(self, name: str, wanted: Any) -> BoolArray:
        """Tell which items have the string, or any of several."""
        asked = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(asked, list | tuple | set | frozenset) or not all(isinstance(one, str) for one in asked):
            raise UsageError(f"got {wanted!r} for the column {name!r}; expected a string or several strings")
        codes = [self.words[one] for one in asked if one in self.words]
        hits = np.concatenate([[0], np.cumsum(np.isin(self.codes, codes))])
        return hits[self.offsets[1:]] > hits[self.offsets[:-1]]

    def of(self, place: int) -> list[str]:
        """Return an item's strings."""
        names = list(self.words)
        return [names[code] for code in self.codes[self.offsets[place] : self.offsets[place + 1]]]


def ends(name: str, wanted: Any) -> tuple[Any, Any]:
    """Return both ends of a range, each a number or None."""
    if isinstance(wanted, tuple | list) and len(wanted) == 2 and all(one is None or is_number(one) for one in wanted):
        return wanted[0], wanted[1]
    raise UsageError(f"got {wanted!r} for the column {name!r}; expected a number, or (low or None, high or None)")


def column(values: Sequence[Any], numbers: bool | None = None) -> Numbers | Words:
    """Return values as a column: of numbers where each is a number or None, unless ``numbers`` says which."""
    if all(value is None or is_number(value) for value in values) if numbers is None else numbers:
        return Numbers(np.array([float(value) if is_number(value) else np.nan for value in values], np.float64))
    cells = [[value] if isinstance(value, str) else [str(one) for one in value or ()] for value in values]
    words: dict[str, int] = {}
    codes = [words.setdefault(word, len(words)) for cell in cells for word in cell]
    offsets = np.concatenate([[0], np.cumsum([len(cell) for cell in cells], dtype=np.int64)])
    return Words(words, np.array(codes, np.int64), offsets.astype(np.int64))


def optional_members(texts: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> dict[str, bytes]:
    """Return what a bundle holds of its items beside vectors: their texts and, where there are any, columns."""
    members = strings(TEXTS, texts)
    return members | ({COLUMNS: json.dumps(columns, ensure_ascii=False).encode()} if columns else {})


class Catalogue:
    """The optional members of a bundle with ``n_items`` items, read when they are first asked for."""

    def __init__(self, bundle: Bundle, n_items: int) -> None:
        self._bundle, self._n = bundle, n_items

    @cached_property
    def texts(self) -> Strings | None:
        """What the encoder read of each item; element j belongs to row j + 1."""
        if f"{TEXTS}.utf8" not in self._bundle.manifest["members"]:
            return None
        try:
            found = Strings(self._bundle[f"{TEXTS}.offsets"], self._bundle[f"{TEXTS}.utf8"])
        except ValueError as error:
            raise self._refusal(f"{TEXTS}.offsets: {error}") from error
        if len(found) != self._n or (fault := found.fault()):
            raise self._refusal(f"{len(found)} texts" if len(found) != self._n else str(fault))
        return found

    @cached_property
    def columns(self) -> Mapping[str, Numbers | Words]:
        """Column name -> its values; element j belongs to row j + 1."""
        if COLUMNS not in self._bundle.manifest["members"]:
            return {}
        try:
            found = strict_json.parse(self._bundle[COLUMNS], len(self._bundle[COLUMNS]))
            made = {name: column(values) for name, values in found.items()}
            lengths = {name: len(values) for name, values in found.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise self._refusal(f"{COLUMNS}: {error}") from error
        if wrong := [name for name, length in lengths.items() if length != self._n]:
            raise self._refusal(f"{COLUMNS}: {wrong[0]!r} has {lengths[wrong[0]]} values")
        return made

    def column(self, name: str) -> Numbers | Words:
        """Return one column.

        Raises:
            UsageError: There is none of that name.
        """
        if name not in self.columns:
            raise UsageError(f"no column {name!r} in {self._bundle.path}; it has {', '.join(self.columns) or 'none'}")
        return self.columns[name]

    def both(self, name: str, overlay: Overlay) -> tuple[Numbers | Words, Numbers | Words]:
        """Return a column of the bundle's items and the same of an overlay's."""
        base = self.column(name)
        return base, column([item.columns.get(name) for item in overlay.items], isinstance(base, Numbers))

    def mask(self, where: Where, overlay: Overlay) -> tuple[BoolArray, BoolArray]:
        """Tell which items meet every condition: bool [n_items + 1] with the padding item's False, and bool [A].

        Raises:
            UsageError: An unknown column, or a condition that does not fit it.
        """
        kept, added = np.ones(self._n, np.bool_), np.ones(len(overlay), np.bool_)
        for name, wanted in where.items():
            base, more = self.both(name, overlay)
            kept, added = kept & base.mask(name, wanted), added & more.mask(name, wanted)
        return np.concatenate([[False], kept]), added

    def _refusal(self, found: str) -> BundleError:
        return BundleError(f"{self._bundle.path}: {found} for {self._n} items; expected one each: export it again")
