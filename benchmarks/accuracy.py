"""How good the very file is on the very device, from the answers that the measured subjects gave."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgerec.benchmarks.devices import TORCH_DEVICES
from edgerec.bundle import Bundle
from edgerec.files import sha256
from edgerec.interactions import Dataset, IntArray, Split
from edgerec.metrics import summarise
from edgerec.runtime.contents import read
from edgerec.runtime.reference import golden_request, tower_of
from edgerec.runtime.verify import cosines

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


def closeness(answers: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the mean and the least cosine of vectors to the reference's; 0 where one is all zeros."""
    found = cosines(np.array(answers, np.float64), np.array(reference, np.float64))
    return {"mean": float(found.mean()), "least": float(found.min())}


def reference_of(row: Mapping[str, Any], answered: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return whose answers to texts a row's are set against; None where it would be its own.

    That is torch in float32 with the model of the same name, or else the first subject asked, of vectors the first of
    as many numbers.
    """

    def alike(other: Mapping[str, Any]) -> bool:
        same = other["kind"] == row["kind"] and other["device"] != "harness" and "answers" in other
        return same and (row["kind"] != "encode" or len(other["answers"][0]) == len(row["answers"][0]))

    others = [other for other in answered if alike(other)]
    torch = [other for other in others if row["model"] == other["model"] and other["device"] in TORCH_DEVICES]
    first = (torch or others)[0]
    return None if first["subject"] == row["subject"] else first


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
        files: Subject -> the file or folder that was measured.
        bundles: Subject -> the bundle whose tables are its reference.
        data: What the inputs came from, if they came from a data set.
    """
    references: dict[Path, list[list[str]]] = {}
    facts = {path: file_facts(path) for path in {None, *files.values()}}
    rows = []
    for one in answered:
        row = {key: value for key, value in one.items() if key != "answers"}
        row |= {"quality": None, "overlap10": None, "overlap_with": None, "cosine": None, "cosine_with": None}
        row |= {"goldens": one.get("goldens"), **facts[files.get(one["subject"])]}
        rows.append(row)
        if "answers" not in one or one["device"] == "harness":
            continue
        answers, path = one["answers"], bundles.get(one["subject"])
        if one["kind"] in ("recommend", "session"):
            if data:
                row["quality"] = quality(answers, *data)
            if path:
                if path not in references:  # the histories of both kinds are the same
                    references[path] = reference_answers(path, inputs[one["kind"]])
                row |= {"overlap10": overlap(answers, references[path]), "overlap_with": "float64 of its tables"}
        elif other := reference_of(one, answered):
            name = "cosine" if one["kind"] == "encode" else "overlap10"
            found = closeness(answers, other["answers"]) if name == "cosine" else overlap(answers, other["answers"])
            row |= {name: found, f"{name.removesuffix('10')}_with": other["subject"]}
    return rows


def file_facts(path: Path | None) -> dict[str, Any]:
    """Return the sha256 and the size of a file, or of a folder's files and their names; None for what there is not."""
    if path is None or not path.exists():
        return {"sha256": None, "bytes": None}
    if not path.is_dir():
        return {"sha256": sha256(path), "bytes": path.stat().st_size}
    held = sorted(one for one in path.rglob("*") if one.is_file())
    listed = "".join(f"{sha256(one)}  {one.relative_to(path).as_posix()}\n" for one in held)  # as sha256sum writes it
    return {"sha256": hashlib.sha256(listed.encode()).hexdigest(), "bytes": sum(one.stat().st_size for one in held)}
