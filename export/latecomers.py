"""Items that came after training, put into the tables of a finished bundle: as if the device had added them.

The bundle's own runtime encodes and rounds them, so that a file exported with items ranks as one that got them later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgerec.bundle import write_bundle
from edgerec.errors import UsageError
from edgerec.export.recommender_graph import recommender_graph
from edgerec.files import atomic_path
from edgerec.runtime import Recommender
from edgerec.runtime.additions import listing
from edgerec.runtime.catalogue import COLUMNS, TEXTS, optional_members
from edgerec.runtime.later import read_later
from edgerec.runtime.layout import GOLDENS, GRAPH, Tower, pack
from edgerec.runtime.overlay import Overlay
from edgerec.runtime.reference import dequantized, golden_request, tower_of
from edgerec.runtime.verify import verify


def bake(
    bundle: Path, out: Path, items: Mapping[str, tuple[str, str]], columns: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Write a bundle with further items in its tables; golden requests are answered anew, by the tower in float64.

    Args:
        bundle: A bundle that holds its items' texts.
        out: The file to write, whole or not at all; it may be the same.
        items: Item id -> (title, text).
        columns: Item id -> column -> value.

    Returns:
        What ``verify`` says of the new file.

    Raises:
        UsageError: An id is in the catalogue already, or a text is empty.
        ParityError: The new file does not answer as it should; nothing was written.
    """
    recommender = Recommender.load(bundle)
    if known := [item for item in items if item in recommender.contents.rows]:
        raise UsageError(f"{listing(known)} are in the catalogue already; expected items that came after training")
    recommender.add_items(items, columns)
    tower = joined(tower_of(recommender.contents), recommender.overlay)
    tables, model = pack(tower)
    opened = recommender.bundle
    members = {name: bytes(opened[name]) for name in opened.manifest["members"]}
    members |= {**tables, **catalogue_members(recommender), GRAPH: recommender_graph(tower).SerializeToString()}
    members[GOLDENS] = goldens_of(members[GOLDENS], tower)
    with atomic_path(out) as temporary:
        write_bundle(temporary, {**opened.manifest, "model": model, "added_items": len(items)}, members)
        return verify(temporary) | {"bundle": str(out)}


def add_catalogue(bundle: Path, items: Path, template: str | None = None) -> int:
    """Put a catalogue's items into a bundle in place, and return its bytes.

    Raises:
        DataError: The catalogue cannot be read.
        UsageError: One of its ids is in the bundle already.
    """
    added, columns = read_later(items, Recommender.load(bundle).catalogue, template)
    bake(bundle, bundle, added, columns)
    return bundle.stat().st_size


def joined(tower: Tower, overlay: Overlay) -> Tower:
    """Return a tower with an overlay's new items after its own; to somebody unknown they are the least popular."""
    text, item_in, item_out, bias = overlay.vectors
    least = np.full(len(overlay), tower.popularity.min(), np.float32)
    return replace(
        tower,
        item_out=np.concatenate([tower.item_out, item_out]),
        item_in=None if tower.item_in is None else np.concatenate([tower.item_in, item_in]),
        bias=np.concatenate([tower.bias, bias]),
        popularity=np.concatenate([tower.popularity, least]),
        text=np.concatenate([tower.text, text]),
        ids=[*tower.ids, *(item.id for item in overlay.items)],
        titles=[*tower.titles, *(item.title for item in overlay.items)],
        steps={name: np.concatenate([own, overlay.tables[name].scale]) for name, own in tower.steps.items()},
    )


def catalogue_members(recommender: Recommender) -> dict[str, bytes]:
    """Return the texts and columns of all items."""
    catalogue, items, listed = recommender.catalogue, recommender.overlay.items, recommender.bundle.manifest["members"]
    if catalogue.texts is None:
        raise UsageError(f"{recommender.bundle.path} holds no {TEXTS}; expected a bundle that does: export it again")
    texts = [catalogue.texts[place] for place in range(recommender.contents.n_items)]
    base = json.loads(bytes(recommender.bundle[COLUMNS])) if COLUMNS in listed else {}
    columns = {name: [*values, *(item.columns.get(name) for item in items)] for name, values in base.items()}
    return optional_members([*texts, *(item.text for item in items)], columns)


def goldens_of(content: bytes, tower: Tower) -> bytes:
    """Return golden requests as the tower answers them."""
    goldens, exact = json.loads(content), dequantized(tower)
    goldens["requests"] = [
        golden_request(exact, request["history"], request["exclude_seen"], request["k"])
        for request in goldens["requests"]
    ]
    return json.dumps(goldens, ensure_ascii=False).encode()
