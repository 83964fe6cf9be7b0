"""Further columns of a catalogue, to filter and boost by: numbers, strings, and sets of strings."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Any

from edgerec.errors import require

if TYPE_CHECKING:
    import polars as pl

SEPARATORS = ("|", ";", ",", " ")  # of a set's strings, most certain first
RECOMBINED = 4  # different cells per different part, from which on a column holds sets
DISTINCT_SHARE = 0.5  # of the cells: where more of them are different, nobody filters by them


def further_columns(frame: pl.DataFrame) -> dict[str, list[Any]]:
    """Return the columns that one could filter by, a value per row.

    A column of which most cells are numbers has numbers, None elsewhere. A column of strings is left out where most
    cells are different (titles, descriptions). It holds sets where its cells are recombinations of few parts: at some
    separator, at least 4 different cells for each different part, as genres are, and names of two words are not.
    """
    found: dict[str, list[Any]] = {}
    for name in frame.columns:
        cells = frame[name].str.strip_chars().replace("", None)
        if (numbers := as_numbers(cells)) is not None:
            found[name] = numbers
        elif cells.null_count() < len(cells) and (parted := as_sets(cells)) is not None:
            found[name] = parted
        elif 0 < cells.drop_nulls().n_unique() <= DISTINCT_SHARE * len(cells):
            found[name] = cells.to_list()
    return found


def as_numbers(cells: pl.Series) -> list[float | None] | None:
    """Return a column's numbers, whole ones as such, or None where most cells are none."""
    polars = require("polars", "data")
    values = cells.cast(polars.Float64, strict=False)
    values = polars.select(polars.when(values.is_finite()).then(values)).to_series()
    if values.null_count() > len(values) / 2:
        return None
    return [int(value) if value is not None and value == int(value) else value for value in values]


def as_sets(cells: pl.Series) -> list[list[str]] | None:
    """Return a column's sets of strings, or None where no separator gives any."""
    values = cells.to_list()
    different = len({value for value in values if value})
    for separator in SEPARATORS:
        parted = [[one for part in (value or "").split(separator) if (one := part.strip())] for value in values]
        parts = {part for cell in parted for part in cell}
        some = any(len(cell) > 1 for cell in parted)
        if some and (separator == SEPARATORS[0] or RECOMBINED * len(parts) <= different):
            return parted
    return None


def fitted(cells: pl.Series, known: Container[str]) -> list[Any]:
    """Return the cells of a later catalogue parted as ``known``, an earlier one's values, tell."""
    return [fitted_cell((cell or "").strip(), known) for cell in cells.to_list()]


def fitted_cell(cell: str, known: Container[str]) -> str | list[str] | None:
    """Return a cell whole where it is known or cannot be parted into what is, else its parts."""
    for separator in () if cell in known else SEPARATORS:
        parts = [one for part in cell.split(separator) if (one := part.strip())]
        if len(parts) > 1 and any(part in known for part in parts):
            return parts
    return cell or None
