"""What ``edgerec export --target`` can write: a name, and the module whose ``export_to`` writes it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from edgerec.export.package import Draft


@dataclass(frozen=True)
class Report:
    """What was written: lines for a person, and a JSON value."""

    lines: Sequence[str]
    facts: dict[str, Any]


class Target(NamedTuple):
    """A target.

    Attributes:
        module: Has ``export_to(prepared: Draft, precision: str, out: Path) -> Report``, which writes whole or not at all.
        entry: What it is called in a folder of several.
    """

    module: str
    entry: str


TARGETS = {
    "onnx": Target("edgerec.export.package", "model.edgerec"),
    "tensorrt": Target("edgerec.export.jetson_kit", "tensorrt"),
}


def export_all(prepared: Draft, names: Sequence[str], precision: str, out: Path) -> dict[str, Report]:
    """Write targets.

    Args:
        prepared: The model.
        names: Keys of ``TARGETS``.
        precision: Of the bundle's text encoder.
        out: What one target writes; the folder of what several do.
    """
    targets = {name: TARGETS[name] for name in names}
    return {
        name: importlib.import_module(one.module).export_to(
            prepared, precision, out if len(targets) == 1 else out / one.entry
        )
        for name, one in targets.items()
    }
