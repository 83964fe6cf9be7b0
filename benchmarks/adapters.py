"""What can be measured: anything with ``prepare``, ``run_one`` and ``close``. Own runtimes and peers, on equal terms.

A subject is a class, named ``module:Class`` or ``file.py:Class``, made in a new process as ``Class(kind, **options)``:

    prepare()          load everything; raise NotHere where the device cannot do it, with the reason
    run_one(request)   answer one request of its kind; what it returns must depend on nothing but the request
    close()            let go

A request is a JSON value: for ``recommend`` and ``session`` a list of item ids, oldest first; for ``encode`` and
``search`` a text. The answer is a list of item ids, best first, or for ``encode`` a vector. Five methods are optional:
``run_batch(requests)`` answers several at once; ``observe(requests)`` lets sessions take in all events but the last of
each history before the clock starts, and may be called again, for the same histories too, which then begin anew;
``clock()`` tells nanoseconds in place of this process's clock, where an answer comes from another one and its way must
not count; ``stages()`` yields the names and functions that ``prepare`` consists of, so that a cold start can be split;
``goldens()`` answers what the file itself knows the answers of, and tells in a JSON value whether it ``passes``; what
it raises is a failure of that.

A peer's file needs numpy and nothing of edgerec but this module; it runs in the interpreter that ``--peer`` names.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgerec.errors import EdgerecError, UsageError

KINDS = ("recommend", "session", "search", "encode")
TORCH_MODES = ("eager", "compiled")
K = 10  # items of an answer


class NotHere(EdgerecError):
    """The subject cannot be measured on this device; the message is the reason, and no failure."""


class Subject(Protocol):
    """The protocol; see the module."""

    def prepare(self) -> None:
        """Load everything."""

    def run_one(self, request: Any) -> Any:
        """Answer one request."""

    def close(self) -> None:
        """Let go."""


class Staged:
    """Prepares by its stages: what own subjects and peers that part their cold start derive from."""

    def stages(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield names and functions; together they prepare."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Load everything, stage by stage."""
        for _, stage in self.stages():
            stage()


def importing(*names: str) -> Callable[[], object]:
    """Return a stage that imports modules."""
    return lambda: [importlib.import_module(name) for name in names]


class Empty:
    """Does nothing: what the harness itself costs."""

    def __init__(self, kind: str) -> None:
        self.answer: list[str] = []

    def prepare(self) -> None:
        """Load nothing."""

    def run_one(self, request: Any) -> list[str]:
        """Answer nothing."""
        return self.answer

    def close(self) -> None:
        """Let go of nothing."""


def load(where: str, kind: str, options: Mapping[str, Any]) -> Subject:
    """Make a subject.

    Args:
        where: ``module:Class`` or ``file.py:Class``.
        kind: One of ``KINDS``.
        options: What the class is made with.

    Raises:
        UsageError: There is no such class.
    """
    home, _, name = where.rpartition(":")
    try:
        found: Subject = getattr(module(home), name)(kind, **options)
    except (ImportError, AttributeError, OSError, ValueError) as error:
        raise UsageError(f"{where} cannot be used ({error}); expected module:Class or file.py:Class") from error
    return found


def module(home: str) -> Any:
    """Import a module by name, or a file."""
    if not home.endswith(".py"):
        return importlib.import_module(home)
    spec = importlib.util.spec_from_file_location(Path(home).stem, home)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def observe(subject: Subject, kind: str, requests: Sequence[Any]) -> None:
    """Let a subject of sessions take in the histories; the other kinds see no request before it is asked."""
    own: Callable[[Sequence[Any]], None] | None = getattr(subject, "observe", None)
    if own and kind == "session":
        own(requests)


def clock(subject: Subject) -> Callable[[], int]:
    """Return what tells a subject's nanoseconds."""
    own: Callable[[], int] = getattr(subject, "clock", time.perf_counter_ns)
    return own


def stages(subject: Subject) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what preparing consists of; one stage where the subject does not say."""
    own: Callable[[], Iterator[tuple[str, Callable[[], object]]]] | None = getattr(subject, "stages", None)
    yield from own() if own else iter([("prepare", subject.prepare)])


def goldens(subject: Subject) -> dict[str, Any] | None:
    """Return how a subject answers what its file knows the answers of; None where it knows none."""
    own: Callable[[], dict[str, Any] | None] = getattr(subject, "goldens", lambda: None)
    return own()


def asker(subject: Subject) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Return a function that answers a batch, all at once where the subject can."""
    batch: Callable[[Sequence[Any]], Sequence[Any]] | None = getattr(subject, "run_batch", None)
    one = subject.run_one

    def ask(requests: Sequence[Any]) -> Sequence[Any]:
        if batch and len(requests) > 1:
            return batch(requests)
        return [one(request) for request in requests]

    return ask
