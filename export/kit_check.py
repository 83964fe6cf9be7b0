#!/usr/bin/env python3
"""Compare what engines answered with the golden answers of this folder: ``python3 check.py [--answers out]``.

It needs numpy only. For each engine, the answers are ``NAME.json``, as ``trtexec --exportOutput`` writes it, or a
folder ``NAME`` with a raw file ``OUTPUT.bin`` for each output. Recommendations are compared by rank: two items may
change places where the golden scores are closer than the tolerance, and no others. Text vectors are compared by cosine,
and by which golden text is the nearest to each.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
Arrays = dict[str, Any]


def read_answers(answers: Path, name: str, kit: dict[str, Any]) -> Arrays:
    """Return an engine's outputs, by name."""
    outputs = kit["graphs"][name]["outputs"]
    if (answers / name).is_dir():
        return {one: read_raw(answers / name / f"{one}.bin", kind) for one, kind in outputs.items()}
    text = (answers / f"{name}.json").read_text()
    text = re.sub(r'(?<![\w"])-?nan\b', "NaN", text)  # as C++ writes them
    text = re.sub(r'(?<![\w"])inf\b', "Infinity", text)
    made = {}
    for entry in json.loads(text):
        if entry["name"] in outputs:
            kind = outputs[entry["name"]]
            made[entry["name"]] = np.array(entry["values"], np.float64).astype(kind["dtype"]).reshape(kind["shape"])
    if missing := sorted(set(outputs) - set(made)):
        raise ValueError(f"no output {', '.join(missing)}")
    return made


def read_raw(path: Path, kind: dict[str, Any]) -> Any:
    """Return an array from a raw file."""
    return np.fromfile(path, kind["dtype"]).reshape(kind["shape"])


def check_recommender(got: Arrays, wanted: Arrays, tolerance: float) -> list[str]:
    """Return what is wrong with recommendations, one phrase for each request."""
    found = []
    for line, (items, scores) in enumerate(zip(wanted["items"], wanted["scores"], strict=True)):
        if fault := disagreement(items, scores, got["items"][line], got["scores"][line], tolerance):
            found.append(f"request {line}: {fault}")
    return found


def disagreement(items: Any, scores: Any, got_items: Any, got_scores: Any, tolerance: float) -> str | None:
    """Return how one list differs from its golden one, or None; -1 stands where nothing is left to return."""
    kept, asked = got_items >= 0, items >= 0
    rows, golden = got_items[kept].tolist(), dict(zip(items[asked].tolist(), scores[asked].tolist(), strict=True))
    if len(rows) != len(golden) or len(set(rows)) != len(rows):
        return f"got items {rows}, expected {list(golden)}"
    last = min(golden.values()) if golden else 0.0
    for place, (row, score) in enumerate(zip(rows, got_scores[kept].tolist(), strict=True)):
        own = golden.get(row, last)  # an item from outside may only stand in for the last
        if not (abs(score - own) <= tolerance and abs(own - scores[place]) <= tolerance):
            return (
                f"place {place + 1} has row {row} with score {score:.6g}, expected row {items[place]} with "
                f"{scores[place]:.6g} within {tolerance:.2g}"
            )
    lost = [row for row in golden if row not in rows and golden[row] - last > tolerance]
    return f"rows {lost} are missing" if lost else None


def check_encoder(got: Arrays, wanted: Arrays, tolerance: float) -> list[str]:
    """Return what is wrong with text vectors, one phrase for each text."""
    found = []
    mine, golden = (one["text_vector"].astype(np.float64) for one in (got, wanted))
    expected, answered = golden @ golden.T - 2 * np.eye(len(golden)), mine @ mine.T - 2 * np.eye(len(mine))
    for line, distance in enumerate(distances(mine, golden)):
        near = int(answered[line].argmax())
        lost = expected[line].max() - expected[line, near]
        if not distance <= tolerance:  # also where it is not a number
            found.append(f"text {line}: cosine distance {distance:.2g}, expected at most {tolerance:.2g}")
        elif len(golden) > 1 and lost > 2 * np.sqrt(2 * tolerance):  # a cosine moves by at most the length of the error
            found.append(f"text {line}: nearest is text {near}, expected {int(expected[line].argmax())}")
    return found


def distances(mine: Any, golden: Any) -> Any:
    """Return 1 - cosine between the rows of two arrays [n, d], the second ones of length 1."""
    return 1 - (mine * golden).sum(1) / np.maximum(np.linalg.norm(mine, axis=1), 1e-12)


CHECKS = {"recommender": check_recommender, "encoder": check_encoder}


def check_all(folder: Path, answers: Path) -> dict[str, list[str]]:
    """Return what is wrong with each engine's answers; an engine without answers has that as its fault."""
    kit, found = json.loads((folder / "kit.json").read_text()), {}
    for name, graph in kit["graphs"].items():
        goldens = folder / "goldens" / graph["kind"]
        wanted = {one: read_raw(goldens / f"{one}.bin", kind) for one, kind in graph["outputs"].items()}
        try:
            got = read_answers(answers, name, kit)
        except (OSError, ValueError) as error:
            found[name] = [f"no answers ({error}); expected {name}.json of trtexec, or raw files in {name}/"]
            continue
        found[name] = CHECKS[graph["kind"]](got, wanted, graph["tolerance"])
    return found


def main() -> int:
    """Print a line for each engine; return 1 where one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=Path, default=HERE / "out", help="folder of the engines' answers")
    found = check_all(HERE, parser.parse_args().answers)
    for name, faults in found.items():
        sys.stdout.write(f"{name}: {'agrees' if not faults else f'{len(faults)} differ; first: {faults[0]}'}\n")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
