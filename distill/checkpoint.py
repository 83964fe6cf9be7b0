"""A trained model as a folder: what ``fine-tune`` and ``distill`` write, and ``export`` reads.

``model.json``        what it is, of which data, and how well it did on validation
``towers.safetensors``  the towers
``catalogue.json``    ids, titles, texts and training counts, in row order
``requests.json``     a sample of real histories, from which an export makes its golden requests
``encoder/``          the text encoder in Hugging Face layout
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from edgerec.distill.towers import TowerConfig, Towers
from edgerec.errors import DataError, UsageError
from edgerec.files import atomic_path, write_json
from edgerec.interactions import Dataset, Split

FORMAT_VERSION = 1
MODEL, TOWERS, CATALOGUE, REQUESTS, ENCODER = (
    "model.json",
    "towers.safetensors",
    "catalogue.json",
    "requests.json",
    "encoder",
)
SAMPLED_HISTORIES = 256


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model folder; ``histories`` are lists of 0-based item rows, oldest first."""

    folder: Path
    info: dict[str, Any]
    towers: Towers
    ids: list[str]
    titles: list[str]
    texts: list[str]
    counts: list[int]
    histories: list[list[int]]
    columns: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def encoder(self) -> Path:
        """The folder of the text encoder."""
        return self.folder / ENCODER

    def require_data(self, data: Dataset) -> None:
        """Refuse data that the model was not made from.

        Raises:
            UsageError: The fingerprints differ.
        """
        require_same_data(self.folder, self.info, data)


def require_same_data(folder: Path, info: dict[str, Any], data: Dataset) -> None:
    """Refuse data that a model with this ``model.json`` was not made from.

    Raises:
        UsageError: The fingerprints differ.
    """
    made_from = info["data"]
    if made_from["fingerprint"] != data.fingerprint:
        raise UsageError(
            f"{folder} was made from {made_from['name']} ({made_from['fingerprint'][:12]}), got {data.name} "
            f"({data.fingerprint[:12]}); give the same files and column options, or train anew"
        )


def new_folder(folder: Path, resume: bool) -> None:
    """Refuse a folder that holds something, unless a run is to go on in it: nothing of the user's is overwritten.

    Raises:
        UsageError: The folder is not empty.
    """
    if not resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already; expected a new folder: name another --out, or go on with --resume")


def save_towers(path: Path, towers: Towers) -> None:
    """Write the state of towers, whole or not at all."""
    with atomic_path(path) as temporary:
        save_file({name: value.contiguous() for name, value in towers.state_dict().items()}, temporary)


def save(folder: Path, towers: Towers, data: Dataset, split: Split, info: dict[str, Any]) -> None:
    """Write all but ``encoder/``; ``model.json`` comes last, so that a folder with it is whole."""
    save_towers(folder / TOWERS, towers)
    counts = np.bincount(split.train.values, minlength=split.n_items).tolist()
    catalogue = {"ids": data.item_ids, "titles": data.titles, "texts": data.texts, "columns": data.columns}
    write_json(folder / CATALOGUE, {**catalogue, "counts": counts})
    histories = split.validation.histories
    chosen = np.linspace(0, len(histories) - 1, min(SAMPLED_HISTORIES, len(histories))).astype(int)
    write_json(folder / REQUESTS, [histories[int(row)].tolist() for row in chosen])
    config = {**asdict(towers.tower_config), "text_size": towers.projection.shape[0]}
    write_json(folder / MODEL, {**origin(data, split), "towers": config, **info})


def origin(data: Dataset, split: Split) -> dict[str, Any]:
    """Return what every ``model.json`` starts with: its format, and what the model was made from."""
    return {
        "format_version": FORMAT_VERSION,
        "data": {"name": data.name, "fingerprint": data.fingerprint, "mask_seen": split.mask_seen},
        "split": split.name,
    }


def load(folder: Path) -> Checkpoint:
    """Read a model folder.

    Raises:
        DataError: It is no model folder, or an unfinished one.
    """
    try:
        info = json.loads((folder / MODEL).read_text("utf-8"))
        if "towers" not in info:
            raise ValueError(f"a {info['kind']} has no towers")
        catalogue, histories = (json.loads((folder / name).read_text("utf-8")) for name in (CATALOGUE, REQUESTS))
        if info["format_version"] > FORMAT_VERSION:
            raise ValueError(f"format version {info['format_version']}, this edgerec reads up to {FORMAT_VERSION}")
        config = {**info["towers"], "half_lives": tuple(info["towers"]["half_lives"])}
        text_size = config.pop("text_size")
        towers = empty_towers(len(catalogue["ids"]), text_size, TowerConfig(**config))
        towers.load_state_dict(load_file(folder / TOWERS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{folder} holds no finished model ({reason}); expected what `edgerec fine-tune` or `edgerec distill` "
            "wrote: give that folder, or finish the run with --resume"
        ) from error
    return Checkpoint(folder, info, towers.eval(), histories=histories, **catalogue)


def empty_towers(n_items: int, text_size: int, config: TowerConfig) -> Towers:
    """Return towers of the right shapes, to be filled from a file."""
    nothing = np.zeros((n_items, text_size), np.float32)
    projection = np.zeros((text_size, config.embedding_size), np.float32)
    return Towers(nothing, np.zeros(n_items, np.bool_), config, projection)
