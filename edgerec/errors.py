"""Every error a user can meet, as one short tree.

A message says what was got, what was expected and what to do, in one line. The command line prints it without a
traceback and exits with the class's ``exit_code``: 2 where the user's input is at fault, 1 where the work failed.
Programming errors are not wrapped: they surface as themselves.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


class EdgerecError(Exception):
    """Base of all errors that edgerec raises on purpose."""

    exit_code = 1


class UsageError(EdgerecError):
    """An argument has a value that cannot work (negative k, unknown preset, mixed types)."""

    exit_code = 2


class DataError(UsageError):
    """The log or the catalogue cannot be used: missing column, unreadable file, nothing left after validation."""


class BundleError(UsageError):
    """A bundle is missing, truncated, tampered with, of a newer format, or not a bundle at all."""


class UnknownItemError(UsageError):
    """An item id is not in the bundle's catalogue. Not raised where the caller asked to skip unknown items."""


class MissingExtraError(UsageError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class InterruptedTraining(EdgerecError):
    """Ctrl-C stopped a training; its checkpoint is on disk and ``--resume`` goes on from it."""

    exit_code = 130


class ParityError(EdgerecError):
    """An engine's outputs differ from the reference beyond the threshold of its precision; nothing was written."""


# Packages that report each use to their makers, and what they report through. ``None`` in ``sys.modules`` is Python's
# way to say that it cannot be imported, for them and for whatever else in this process would: they then send nothing.
SILENCED = {"nncf": "openvino_telemetry", "openvino": "openvino_telemetry"}


def require(module: str, extra: str) -> Any:
    """Import an optional dependency, or say which extra brings it; what it would report to others is switched off.

    Args:
        module: Importable module name, such as ``"torch"``.
        extra: The extra of edgerec that installs it.

    Raises:
        MissingExtraError: The module is not installed.
    """
    if module in SILENCED:
        sys.modules[SILENCED[module]] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module} is not available ({error}); it comes with the extra: pip install 'edgerec[{extra}]'"
        ) from error
