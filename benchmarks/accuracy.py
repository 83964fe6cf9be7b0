"""How good the very file is on the very device, from the answers that the measured subjects gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgerec.bundle import Bundle
from edgerec.errors import EdgerecError
from edgerec.files import sha256
from edgerec.interactions import Dataset, IntArray, Split
from edgerec.metrics import summarise
from edgerec.runtime.contents import read
from edgerec.runtime.reference import golden_request, tower_of
from edgerec.runtime.verify import verify

K = 10


def quality(answers: Sequence[Sequence[str]], data: Dataset, split: Split) -> dict[str, Any]:
    """Return NDCG@10 and its kin of answers to the test requests, with intervals over users."""
    row_of = {item: row for row, item in enumerate(data.item_ids)}
    ranked: IntArray = np.full((len(answers), K), -1, np.int32)
    for number, answer in enumerate(answers):
        rows = [row_of.get(item, -1) for item in answer[:K]]  # what is no item is a place without one
        ranked[number, : len(rows)] = rows
    return summarise(ranked, split.test, split.warm, K)


def overlap(answers: Sequence[Sequence[str]], reference: Sequence[Sequence[str]]) -> float:
    """Return the mean share of the reference's items that an answer holds; all of none, where there are none."""
    pairs = zip(answers, reference, strict=True)
    return float(np.mean([len({*one} & {*other}) / len(other) if other else 1.0 for one, other in pairs]))


def reference_answers(path: Path, histories: Sequence[Sequence[str]]) -> list[list[str]]:
    """Answer histories with a bundle's tables in float64, event by event."""
    contents = read(Bundle(path))
    exact, rows = tower_of(contents), contents.rows
    found = []
    for history in histories:
        answer = golden_request(exact, [rows[item] for item in history], exact.mask_seen, K)
        found.append([contents.ids[row - 1] for row in answer["items"]])
    return found


def goldens(path: Path) -> dict[str, Any]:
    """Replay a bundle's golden requests here."""
    try:
        return {"passes": True, **{key: value for key, value in verify(path).items() if key != "bundle"}}
    except EdgerecError as error:
        return {"passes": False, "reason": " ".join(str(error).split())}


def accuracy_rows(
    answered: Sequence[Mapping[str, Any]],
    inputs: Mapping[str, Sequence[Any]],
    files: Mapping[str, Path | None],
    bundles: Mapping[str, Path],
    data: tuple[Dataset, Split] | None,
) -> list[dict[str, Any]]:
    """Return a row per subject and kind.

    Args:
        answered: Rows with ``answers``, as ``harness.measure`` returns them.
        inputs: What was asked.
        files: Subject -> the file that was measured.
        bundles: Subject -> the bundle whose tables are its reference.
        data: What the inputs came from, if they came from a data set.
    """
    references: dict[tuple[Path, str], list[list[str]]] = {}
    searched = (row for row in answered if row["kind"] == "search" and row["device"] != "harness")
    first_search = next((row["answers"] for row in searched if "answers" in row), None)
    replayed = {path: goldens(path) for path in {*bundles.values()}}
    rows = []
    for one in answered:
        row = {key: value for key, value in one.items() if key not in ("answers", "round")}
        row |= file_facts(files.get(one["subject"]))
        row |= {"quality": None, "overlap10": None, "overlap_with": None, "goldens": None}
        asks_items = one["kind"] in ("recommend", "session")
        if "answers" in one and one["device"] != "harness":
            path = bundles.get(one["subject"])
            row["goldens"] = replayed[path] if path and one["device"] in ("cpu-ort", "jetson") else None
            if asks_items and data:
                row["quality"] = quality(one["answers"], *data)
            if asks_items and path:
                key = path, "items"
                if key not in references:
                    references[key] = reference_answers(path, inputs[one["kind"]])
                row |= {"overlap10": overlap(one["answers"], references[key]), "overlap_with": "float64 of its tables"}
            elif one["kind"] == "search" and first_search is not None:
                row |= {"overlap10": overlap(one["answers"], first_search), "overlap_with": "the first subject"}
        rows.append(row)
    return rows


def file_facts(path: Path | None) -> dict[str, Any]:
    """Return a file's sha256 and size, or a folder's size; None for what there is not."""
    if path is None:
        return {"sha256": None, "bytes": None}
    if path.is_dir():
        return {"sha256": None, "bytes": sum(one.stat().st_size for one in path.rglob("*") if one.is_file())}
    return {"sha256": sha256(path), "bytes": path.stat().st_size}
