"""Items that came after training, read from a catalogue's table as ``Recommender.add_items`` takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgerec.columns import as_numbers, fitted
from edgerec.data import Columns, read_items
from edgerec.runtime.catalogue import Catalogue, Words


def read_later(
    path: Path, catalogue: Catalogue, template: str | None = None
) -> tuple[dict[str, tuple[str, str]], dict[str, dict[str, Any]]]:
    """Return id -> (title, text), and id -> column -> value for the columns that the bundle knows.

    Args:
        path: A catalogue, as for training.
        catalogue: What the bundle holds of its own items.
        template: How a text is made of the columns, where it was given for training.

    Raises:
        DataError: The table cannot be read.
    """
    table = read_items(path, Columns(template=template))
    known = catalogue.columns
    cells: dict[str, list[Any]] = {}
    for name in known.keys() & set(table.further.columns):
        column = known[name]
        if isinstance(column, Words):
            cells[name] = fitted(table.further[name], column.words)
        else:
            cells[name] = as_numbers(table.further[name]) or [None] * len(table.frame)
    rows = table.frame.select("item", "title", "text").rows()
    added = {item: (title, text) for item, title, text in rows}
    columns = {item: {name: values[place] for name, values in cells.items()} for place, item in enumerate(added)}
    return added, columns
