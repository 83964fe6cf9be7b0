"""A session as bytes: what an application stores between two starts, as JSON in UTF-8.

Items stand by id, since rows of added items may differ at the next start. An item that is gone by then is left out;
what its events left of the state stays in it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgerec.errors import UsageError
from edgerec.runtime.contents import is_number
from edgerec.runtime.layout import FloatArray
from edgerec.runtime.overlay import identity
from edgerec.runtime.repeat import RepeatMemory
from edgerec.runtime.session import Event, Session

if TYPE_CHECKING:
    from edgerec.runtime.recommender import Recommender

FORMAT_VERSION = 1


def export_state(session: Session) -> bytes:
    """Return all that a session is."""
    recommender = session.recommender
    name = recommender.item_id
    history = session.history
    saved = {
        "format_version": FORMAT_VERSION,
        "bundle": identity(recommender.bundle),
        "state": base64.b64encode(session.state.astype("<f4").tobytes()).decode(),
        "events": session.events,
        "seconds_per_event": session.seconds_per_event,
        "at": session.at,
        "taken": {name(row): count for row, count in session.counts.items()},
        "memory": {name(row): entry for row, entry in session.memory.entries().items()},
        "skipped": {name(row): entry for row, entry in session.skipped.entries().items()},
        "history": None if history is None else [[name(one.row), one.at, one.skipped] for one in history],
    }
    return json.dumps(saved, ensure_ascii=False).encode()


def restore(recommender: Recommender, saved: bytes | str) -> Session:
    """Return the session that ``export_state`` described.

    Raises:
        UsageError: It is no such description, one of a newer format, or of another bundle.
    """
    try:
        found = json.loads(saved)
        version = found["format_version"]
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise UsageError(f"got a session of format {version!r}; expected up to {FORMAT_VERSION}: update edgerec")
        if found["bundle"] != identity(recommender.bundle):
            raise UsageError(
                f"got a session of the bundle {str(found['bundle'])[:12]}; expected one of "
                f"{identity(recommender.bundle)[:12]} ({recommender.bundle.path}): start a new session"
            )
        return filled(recommender, found)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, binascii.Error) as error:
        raise UsageError(
            f"this is no exported session ({error}); expected the bytes of Session.export_state"
        ) from error


def filled(recommender: Recommender, found: Mapping[str, Any]) -> Session:
    """Return a session with what a parsed description says; anything that cannot be is a ValueError or its like."""
    history = found["history"]
    session = Session(recommender, history is not None, found["seconds_per_event"])

    def row_of(item: str) -> int:
        return next(iter(recommender.rows([item], skip_unknown=True)), 0)

    state = np.frombuffer(base64.b64decode(found["state"], validate=True), "<f4")
    session.state = finite(state).reshape(recommender.no_state.shape).astype(np.float32)
    session.counts = Counter({row: whole(count) for item, count in found["taken"].items() if (row := row_of(item))})
    for memory, name in ((session.memory, "memory"), (session.skipped, "skipped")):
        memory.events = real(found["events"])
        fill(memory, found[name], row_of)
    session.at = None if found["at"] is None else real(found["at"])
    if history is not None:
        entries = [(row_of(item), optional(at), optional(weight)) for item, at, weight in history]
        session.history = [Event(*entry) for entry in entries if entry[0]]
    return session


def fill(memory: RepeatMemory, entries: Mapping[str, Any], row_of: Callable[[str], int]) -> None:
    """Put entries by item id into an empty memory."""
    for item, (event, left) in entries.items():
        if real(event) > memory.events:
            raise ValueError(f"{item!r} was remembered in the future")
        if row := row_of(item):
            memory.put(row, finite(np.array(left, np.float32)), float(event))


def finite(values: FloatArray) -> FloatArray:
    """Return finite numbers, or raise ValueError."""
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite")
    return values


def real(value: Any) -> float:
    """Return a finite number, or raise ValueError."""
    if not is_number(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def optional(value: Any) -> float | None:
    """Return None, or a finite number."""
    return None if value is None else real(value)


def whole(value: Any) -> int:
    """Return a whole number above 0, or raise ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r} is no count")
    return value
