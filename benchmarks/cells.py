"""Where a study keeps what its subjects answered: one file per cell, so that an interrupted study goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgerec.errors import DataError, UsageError
from edgerec.files import atomic_path, write_json

Arrays = dict[str, NDArray[Any]]


class Cell(NamedTuple):
    """Arrays by name, and a JSON value of what they cost to make."""

    arrays: Arrays
    facts: dict[str, Any]


class Cells:
    """A folder of cells that belong to one study.

    Args:
        folder: Made where it is not there.
        identity: A JSON value of what the cells depend on, such as data, split and recipe.

    Raises:
        UsageError: The folder holds the cells of another study.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder, note = folder, folder / "study.json"
        if note.exists() and (found := json.loads(note.read_text("utf-8"))) != identity:
            differs = sorted(key for key in {*found, *identity} if found.get(key) != identity.get(key))
            raise UsageError(f"{folder} holds a study that differs in {', '.join(differs)}; name another folder")
        write_json(note, dict(identity))

    def get(self, name: str, make: Callable[[], Cell]) -> Cell:
        """Return a cell: as stored, else made and stored, whole or not at all.

        Raises:
            DataError: What is stored cannot be read.
        """
        path = self.folder / "cells" / f"{name}.npz"
        if path.exists():
            return read(path)
        cell = make()
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            arrays: Any = {**cell.arrays, "facts": np.array(json.dumps(cell.facts))}  # numpy types keywords as bool
            np.savez_compressed(stream, **arrays)
        return cell


def read(path: Path) -> Cell:
    """Read a stored cell."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return Cell(arrays, json.loads(str(arrays.pop("facts"))))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove it, and its cell is made again") from error
