"""Peers from outside this environment: what they are asked, as plain files, and their TREC runs read back and checked.

``write_requests`` fills a folder that any recommender can read:

    train.tsv                       user_id, item_id, step; oldest first; the events of a basket share a step
    validation.tsv  test.tsv        user_id, item_id: the history of each request, oldest first
    validation.qrels  test.qrels    what followed, in TREC layout; choose on validation, and leave test alone
    meta.json                       which data and split these are, whether seen items may be listed, all item ids

A peer answers with a folder of ``validation.run``, ``test.run`` (``user Q0 item rank score tag``, DEPTH places for
every request) and ``peer.json``, an object that repeats meta.json's ``requests`` and says how the runs were made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgerec.benchmarks.evaluate import DEPTH, Rankings
from edgerec.errors import UsageError
from edgerec.files import write_bytes, write_json
from edgerec.interactions import Dataset, IntArray, Ragged, Requests, Split
from edgerec.metrics import to_qrels

PARTS = ("validation", "test")
Place = tuple[float, float]  # sorts best first: minus the score, then the rank as written


class Peer(NamedTuple):
    """A peer's answers, and what it says of itself."""

    rankings: Rankings
    report: dict[str, Any]


def identity(data: Dataset, split: Split) -> dict[str, Any]:
    """Return what a run must have been made from to stand in the same table."""
    return {"fingerprint": data.fingerprint, "split": split.name, "seen_masked": split.mask_seen}


def write_requests(folder: Path, data: Dataset, split: Split) -> None:
    """Write what a peer learns from and is asked; meta.json comes last.

    Raises:
        UsageError: An id holds a tab or a line break, which the files cannot carry.
    """
    if bad := next((one for one in (*data.user_ids, *data.item_ids) if {*one} & {*"\t\n\r"}), None):
        raise UsageError(f"the id {bad!r} holds a tab or a line break; expected none, rename it to write requests")
    user_id, item_id = data.user_ids.__getitem__, data.item_ids.__getitem__
    train = events(data, range(len(split.train)), split.train, split.train_steps)
    write_table(folder / "train.tsv", ("user_id", "item_id", "step"), train)
    for name in PARTS:
        requests: Requests = getattr(split, name)
        write_table(folder / f"{name}.tsv", ("user_id", "item_id"), events(data, requests.users, requests.histories))
        write_bytes(folder / f"{name}.qrels", to_qrels(requests, user_id, item_id).encode())
    meta = {
        "schema": "edgerec-requests-1",
        "name": data.name,
        "requests": identity(data, split),
        "places": DEPTH,
        "n_items": split.n_items,
        "item_ids": data.item_ids,
    }
    write_json(folder / "meta.json", meta)


def events(data: Dataset, users: Iterable[int], histories: Ragged, *columns: IntArray) -> Iterator[tuple[str, ...]]:
    """Yield the ids of every event, then its entries of ``columns`` (each [total])."""
    owners = np.repeat(np.asarray(users), histories.lengths)
    for user, item, *others in zip(owners, histories.values, *columns, strict=True):
        yield data.user_ids[user], data.item_ids[item], *map(str, others)


def write_table(path: Path, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Write tab-separated lines under a header."""
    write_bytes(path, "".join("\t".join(row) + "\n" for row in (head, *rows)).encode())


def read_peer(folder: Path, data: Dataset, split: Split) -> Peer:
    """Read and check a peer's answers to the requests of a split.

    Raises:
        UsageError: A file is missing or malformed, was made from other requests, or does not answer every request.
    """
    report = read_report(folder / "peer.json")
    made_from, expected = report.get("requests"), identity(data, split)
    if made_from != expected:
        raise UsageError(f"{folder} answers {made_from}, got requests of {expected}; run the peer on these requests")
    runs = (read_run(folder / f"{name}.run", getattr(split, name), data, split) for name in PARTS)
    return Peer(Rankings(*runs), report)


def read_report(path: Path) -> dict[str, Any]:
    """Return the object in peer.json."""
    try:
        report = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}); expected the JSON that a peer wrote") from error
    if not isinstance(report, dict):
        raise UsageError(f"{path} holds a {type(report).__name__}; expected an object with 'requests' as in meta.json")
    return report


def read_run(path: Path, requests: Requests, data: Dataset, split: Split) -> IntArray:
    """Return a TREC run as item rows, int32 [R, DEPTH]: by falling score, ties by rank; further places are dropped.

    Raises:
        UsageError: As ``read_peer``; the message names the line or the user.
    """
    numbers = {data.user_ids[user]: number for number, user in enumerate(requests.users)}
    rows = {item: row for row, item in enumerate(data.item_ids)}
    listed: list[dict[int, Place]] = [{} for _ in numbers]
    for where, user, item, place in read_lines(path):
        if user not in numbers:
            raise UsageError(f"{where} is for user {user!r}, who is in none of the {len(numbers)} requests")
        if item not in rows:
            raise UsageError(f"{where} lists item {item!r}, which is not in the catalogue of {data.name}")
        if rows[item] in listed[numbers[user]]:
            raise UsageError(f"{where} lists item {item!r} a second time for user {user!r}; expected distinct items")
        listed[numbers[user]][rows[item]] = place
    ranked = np.full((len(requests), DEPTH), -1, dtype=np.int32)
    for user, number in numbers.items():
        seen = {*map(int, requests.histories[number])} if split.mask_seen else set()
        check_list(f"{path}, user {user!r},", listed[number], seen, data)
        best = sorted(listed[number], key=listed[number].__getitem__)[:DEPTH]
        ranked[number, : len(best)] = best
    return ranked


def read_lines(path: Path) -> Iterator[tuple[str, str, str, Place]]:
    """Yield where each line of a run stands, its user, item and place; fields are parted by tabs, else by spaces."""
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); expected a TREC run in UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = line.rstrip("\r").split("\t") if "\t" in line else line.split()
        try:
            user, _, item, rank, score, _ = fields
            place = -float(score), float(rank)
        except ValueError:
            place = math.nan, math.nan
        if not all(map(math.isfinite, place)):
            raise UsageError(f"{path}, line {number} is {line!r}; expected: user Q0 item rank score tag")
        yield f"{path}, line {number}", user, item, place


def check_list(who: str, listed: dict[int, Place], seen: set[int], data: Dataset) -> None:
    """Refuse a list that is missing, too short, or holds what the request's user has seen."""
    if not listed:
        raise UsageError(f"{who} has no line; expected an answer to every request")
    if forbidden := seen & listed.keys():
        raise UsageError(f"{who} has item {data.item_ids[min(forbidden)]!r}, which is in the history; mask seen items")
    places = min(DEPTH, len(data.item_ids) - len(seen))
    if len(listed) < places:
        raise UsageError(f"{who} has {len(listed)} places; expected at least {places}")
