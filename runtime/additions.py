"""Items that arrive on the device: encoded, rounded to INT8 like the bundle's tables, laid over them.

A new item is what the cold map makes of its text. An item of the bundle whose text is replaced keeps what the log
taught beyond its old text: ``vector + encoder(new text) - encoder(old text)``, and likewise its bias, since the encoder
foretells both. Both texts pass through the same encoder, so that what it gets wrong about the item stays out, the
same text again changes nothing, and neither the length of the old text part nor the cold map need to be known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgerec.errors import BundleError, UsageError
from edgerec.runtime.contents import is_cell
from edgerec.runtime.overlay import Item, Overlay
from edgerec.runtime.text import Vectors

if TYPE_CHECKING:
    from edgerec.runtime.recommender import Recommender

NAMED = 5  # ids that an error names


def with_items(
    recommender: Recommender,
    items: Mapping[str, str | tuple[str, str]],
    columns: Mapping[str, Mapping[str, Any]] | None = None,
) -> Overlay:
    """Return a recommender's overlay with items added or replaced; nothing else changes.

    Args:
        recommender: An open bundle.
        items: Item id -> its text, or (its title, its text). Without a title, the text serves as one.
        columns: Item id -> column -> value, for ``where``.

    Raises:
        UsageError: An id or a text is empty, or an argument is of another type.
        BundleError: An item of the bundle is to be replaced, and the bundle holds no texts.
        MissingExtraError: ``tokenizers`` is not installed.
    """
    pairs, columns = checked(items, columns or {})
    overlay, known = recommender.overlay, recommender.contents.rows
    if not pairs:
        return overlay
    replaced = {item: known[item] for item in pairs if item in known}
    old = {item: text_of(recommender, item, row) for item, row in replaced.items()}
    texts = list(dict.fromkeys([*(text for _, text in pairs.values()), *old.values()]))
    encoded = recommender.encoder.encode(texts)
    place = {text: number for number, text in enumerate(texts)}
    rows, made, following = [], [], overlay.next_row
    for item, (title, text) in pairs.items():
        row = replaced.get(item) or (overlay.by_id[item].row if item in overlay.by_id else following)
        following = max(following, row + 1)
        rows.append(Item(item, row, title, text, columns.get(item, {})))
        vectors = Vectors(*(part[place[text]] for part in encoded))
        if item in replaced:
            vectors = taught(recommender, row, vectors, Vectors(*(part[place[old[item]]] for part in encoded)))
        made.append(vectors)
    return overlay.with_items(rows, Vectors(*(np.stack(part).astype(np.float32) for part in zip(*made, strict=True))))


def taught(recommender: Recommender, row: int, new: Vectors, old: Vectors) -> Vectors:
    """Return an item of the bundle with what its old text foretold exchanged for what the new one does."""
    contents = recommender.contents
    return Vectors(
        new.text,
        contents.column(row, True) + new.item_in - old.item_in,
        contents.column(row, False) + new.item_out - old.item_out,
        contents.external["bias.f32"][row] + new.bias - old.bias,
    )


def text_of(recommender: Recommender, item: str, row: int) -> str:
    """Return what the encoder read of an item of the bundle when it was exported."""
    texts = recommender.catalogue.texts
    if texts is None:
        raise BundleError(
            f"{item!r} is in the catalogue of {recommender.bundle.path}, which holds no texts; expected new ids, or a "
            "bundle with texts to replace some of: export it again"
        )
    return texts[row - 1]


def checked(
    items: Mapping[str, str | tuple[str, str]], columns: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, tuple[str, str]], dict[str, dict[str, Any]]]:
    """Return id -> (title, text) and id -> columns, or refuse them whole."""
    if not isinstance(items, Mapping) or not isinstance(columns, Mapping):
        raise UsageError(f"got items of type {type(items).__name__}; expected a mapping from ids to texts")
    pairs = {item: (text, text) if isinstance(text, str) else text for item, text in items.items()}
    bad = [item for item, pair in pairs.items() if not is_text(item) or not item or not are_two_strings(pair)]
    if bad:
        raise UsageError(f"{listing(bad)} cannot be added; expected ids with a text, or with (title, text)")
    if empty := [item for item, (_, text) in pairs.items() if not text.strip()]:
        raise UsageError(f"the text of {listing(empty)} is empty; expected some text to tell an item by")
    for item, values in columns.items():
        if item not in pairs or not isinstance(values, Mapping) or not all(is_cell(one) for one in values.values()):
            raise UsageError(
                f"got columns {values!r} of {item!r}; expected an added item's: numbers, strings or lists of those"
            )
    return pairs, {item: {name: plain(value) for name, value in values.items()} for item, values in columns.items()}


def are_two_strings(value: Any) -> bool:
    """Tell whether a value is a pair of strings that UTF-8 can hold."""
    return isinstance(value, tuple | list) and len(value) == 2 and all(is_text(one) for one in value)


def is_text(value: Any) -> bool:
    """Tell whether a value is a string that UTF-8 can hold: one without halves of surrogate pairs."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def plain(value: Any) -> Any:
    """Return a cell as JSON can hold it."""
    return sorted(value) if isinstance(value, list | tuple | set | frozenset) else value


def listing(items: Sequence[str]) -> str:
    """Return the first few ids, and how many more there are."""
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(repr(item) for item in items[:NAMED]) + more
