"""What subjects are asked: real histories and texts, of the data set or, without one, of a bundle's golden requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgerec.bundle import Bundle
from edgerec.errors import UsageError
from edgerec.interactions import Dataset, Split
from edgerec.runtime.contents import read
from edgerec.runtime.layout import GOLDENS

TEXTS = 512  # texts of a catalogue that are asked, at most

Inputs = dict[str, list[Any]]


def from_data(data: Dataset, split: Split, seed: int = 0) -> Inputs:
    """Return every test history as item ids, and a sample of the catalogue: titles to search, texts to encode."""
    histories = [[data.item_ids[row] for row in split.test.histories[number]] for number in range(len(split.test))]
    rows = np.sort(np.random.default_rng(seed).permutation(len(data.texts))[:TEXTS])
    titles, texts = [data.titles[row] for row in rows], [data.texts[row] for row in rows]
    return {"recommend": histories, "session": histories, "search": titles, "encode": texts}


def from_bundle(path: Path) -> Inputs:
    """Return the histories and texts of a bundle's golden requests; those without events or characters are left out.

    Raises:
        UsageError: It has none.
        BundleError: It cannot be used.
    """
    bundle = Bundle(path)
    goldens, contents = json.loads(bytes(bundle[GOLDENS])), read(bundle)
    histories = [[contents.ids[row - 1] for row in request["history"] if row] for request in goldens["requests"]]
    histories = [history for history in histories if history]
    texts = [entry["text"] for entry in goldens.get("texts", []) if entry["text"].strip()]
    if not histories or not texts:
        raise UsageError(
            f"{path} has {len(histories)} golden histories and {len(texts)} texts; expected some: name --data"
        )
    return {"recommend": histories, "session": histories, "search": texts, "encode": texts}
