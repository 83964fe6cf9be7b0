"""Replaying a bundle's golden requests on the device that it will run on.

The same file can rank differently on another processor, so ranks are compared too, not only scores. Two items may
change places only where the reference scored them closer than the tolerance; at the end of a list, an item may be
replaced by another that scores as much as the last, within the tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerec import strict_json
from edgerec.errors import BundleError, MissingExtraError, ParityError
from edgerec.runtime.contents import is_count, is_number
from edgerec.runtime.engine import NOBODY
from edgerec.runtime.layout import GOLDENS
from edgerec.runtime.recommender import Recommender
from edgerec.signing import Key


def verify(
    path: str | Path, threads: int = 1, key: Key | None = None, deltas: Sequence[str | Path] = ()
) -> dict[str, Any]:
    """Answer every golden request and text with the shipped graphs.

    Args:
        path: The bundle.
        threads: Threads within one operator.
        key: The public key that it must be signed with; None to look at no signature.
        deltas: Its deltas, in order: each must be whole, apply, and be signed likewise.

    Returns:
        A JSON value: ``bundle``, ``signature`` ("valid", "unchecked" or "absent"), ``requests``, ``texts`` (how many
        were replayed), ``largest_score_difference``, ``largest_text_distance`` (of cosines, None without texts) and
        ``skipped`` (None, or why no text was replayed).

    Raises:
        ParityError: An answer differs; the message names the first and says how many do.
        BundleError: The bundle cannot be opened, or holds no golden requests, or a delta cannot be applied.
    """
    recommender = Recommender.load(path, threads, key=key, deltas=deltas)
    signature = "valid" if key is not None else "unchecked" if recommender.bundle.signed else "absent"
    return {"bundle": str(path), "signature": signature, **verify_open(recommender)}


def verify_open(recommender: Recommender) -> dict[str, Any]:
    """Do what ``verify`` does with a bundle that is open already; the file is not looked at again.

    Raises:
        ParityError: An answer differs; the message names the first and says how many do.
        BundleError: It holds no golden requests.
    """
    goldens = read_goldens(recommender)
    failed, difference = [], 0.0
    for number, request in enumerate(goldens["requests"]):
        rows, scores = replay(recommender, request)
        if fault := disagreement(request, rows, scores, goldens["tolerance"]):
            failed.append(f"golden request {number} (history {request['history'][:10]}): {fault}")
        elif rows:
            difference = max(difference, float(np.abs(np.subtract(scores, request["scores"])).max()))
    skipped, distance = None, None
    if texts := goldens.get("texts"):
        try:
            distances = text_distances(recommender, texts)
            distance = max(distances)
            failed += text_faults(texts, distances, goldens["text_tolerance"])
        except MissingExtraError as error:  # a device that only recommends needs no tokenizer
            skipped = str(error)
    if failed:
        total = len(goldens["requests"]) + len(texts or [])
        raise ParityError(
            f"{recommender.bundle.path}: {len(failed)} of {total} goldens fail here; first: {failed[0]}; "
            "do not use it on this device: update onnxruntime, or export for this target"
        )
    return {
        "requests": len(goldens["requests"]),
        "texts": 0 if skipped else len(texts or []),
        "largest_score_difference": difference,
        "largest_text_distance": distance,
        "skipped": skipped,
    }


def read_goldens(recommender: Recommender) -> dict[str, Any]:
    """Return the parsed goldens.

    Raises:
        BundleError: They are malformed, or there are none.
    """
    try:
        view = recommender.bundle[GOLDENS]
        goldens = strict_json.parse(view, len(view))
        requests, texts = goldens["requests"], goldens.get("texts", [])
        usable = bool(requests) and all(is_usable(one, recommender.contents.n_items) for one in requests)
        usable = usable and is_number(goldens["tolerance"]) and goldens["tolerance"] >= 0
        vectors = [entry["text_vector"] for entry in texts if entry["text"] + ""]
        usable = usable and all(len(one) == recommender.contents.embedding_size for one in vectors)
        usable = usable and all(is_number(value) for one in vectors for value in one)
        usable = usable and (not texts or (is_number(goldens["text_tolerance"]) and goldens["text_tolerance"] >= 0))
    except (ValueError, KeyError, TypeError, AttributeError):
        usable = False
    if not usable:
        raise BundleError(
            f"{recommender.bundle.path}: {GOLDENS} holds no usable golden requests; expected a tolerance and at least "
            "one request with rows of this catalogue: export the bundle again"
        )
    return goldens


def is_usable(request: dict[str, Any], n_items: int) -> bool:
    """Tell whether a golden request holds rows of the catalogue, with a finite score for each expected one."""
    rows = [*request["history"], *request["items"]]
    counted = all(type(row) is int and 0 <= row <= n_items for row in rows) and is_count(request["k"])
    scores = request["scores"]
    return (
        counted and len(scores) == len(request["items"]) and all(map(is_number, scores)) and "exclude_seen" in request
    )


def replay(recommender: Recommender, request: dict[str, Any]) -> tuple[list[int], list[float]]:
    """Return the rows and scores that the shipped graph answers a golden request with.

    Raises:
        ParityError: onnxruntime cannot run the graph.
    """
    rows = request["history"]
    history = np.array([rows], np.int64) if rows else NOBODY
    exclude = np.unique(history)[None] if request["exclude_seen"] else None
    try:
        answer = recommender.ranker.rank(history, request["k"], exclude=exclude)
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        raise ParityError(f"{recommender.bundle.path}: the graph cannot run here ({error}); export it again") from error
    kept = answer.items[0] >= 0
    return answer.items[0][kept].tolist(), answer.scores[0][kept].tolist()


def disagreement(request: dict[str, Any], rows: list[int], scores: list[float], tolerance: float) -> str | None:
    """Return how an answer differs from a golden request, or None."""
    wanted = dict(zip(request["items"], request["scores"], strict=True))
    if len(rows) != len(wanted) or len(set(rows)) != len(rows):
        return f"got items {rows}, expected {len(wanted)} different ones"
    last = request["scores"][-1] if wanted else 0.0
    for place, (row, score) in enumerate(zip(rows, scores, strict=True)):
        expected = request["scores"][place]
        own = wanted.get(row, last)  # an item from outside may only stand in for the last
        if not abs(score - own) <= tolerance or not abs(own - expected) <= tolerance:
            return (
                f"place {place + 1} has row {row} with score {score:.6g}, expected {request['items'][place]} with "
                + (f"{expected:.6g} within {tolerance:.2g}")
            )
    for row in wanted.keys() - set(rows):
        if wanted[row] - last > tolerance:
            return f"row {row} with score {wanted[row]:.6g} is missing"
    return None


def text_distances(recommender: Recommender, texts: list[dict[str, Any]]) -> list[float]:
    """Return 1 - cosine between each golden text's vector and the one that is made here."""
    got = recommender.encoder.encode([entry["text"] for entry in texts]).text
    wanted = np.array([entry["text_vector"] for entry in texts], np.float64)
    return [float(distance) for distance in 1 - cosines(got, wanted)]


def cosines(got: NDArray[Any], wanted: NDArray[Any]) -> NDArray[Any]:
    """Return the cosine between each row of two arrays [n, d], float [n]; 0 where one is all zeros."""
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1)
    found: NDArray[Any] = (got * wanted).sum(axis=1) / np.maximum(lengths, 1e-12)
    return found


def text_faults(texts: list[dict[str, Any]], distances: list[float], tolerance: float) -> list[str]:
    """Return a phrase for each text whose vector is too far off."""
    return [
        f"golden text {entry['text'][:40]!r}: cosine distance {distance:.2g}, expected at most {tolerance:.2g}"
        for entry, distance in zip(texts, distances, strict=True)
        if not distance <= tolerance  # also where it is not a number
    ]
