"""What a model is compiled to: one trained student, several engines, each compared with torch before it is written.

A target is a function from a draft (``export.package``) to a file or folder, whole or not at all.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edgerec.distill.checkpoint import Checkpoint
from edgerec.errors import UsageError
from edgerec.export import TARGETS
from edgerec.files import atomic_path

Report = dict[str, Any]  # a JSON value
Write = Callable[[Checkpoint, str, Path], Report]


class Target(NamedTuple):
    """Where the function that writes it lies, and what it writes."""

    module: str
    function: str
    suffix: str  # of what is written where several targets share a folder; without a dot it is a folder's name


WRITERS = {
    "onnx": Target("edgerec.export.package", "package", ".edgerec"),
    "openvino": Target("edgerec.export.openvino_target", "write_openvino", "-openvino"),
    "ort": Target("edgerec.export.mobile", "write_ort", "-ort"),
    "web": Target("edgerec.export.web_target", "write_web", "-web"),
    "hugging-face": Target("edgerec.export.hugging_face", "write_hugging_face", "-hugging-face"),
    "tensorrt": Target("edgerec.export.jetson_kit", "write_tensorrt", "-tensorrt"),
}
assert tuple(WRITERS) == TARGETS


def compile_for(checkpoint: Checkpoint, targets: Sequence[str], precision: str, out: Path) -> dict[str, Report]:
    """Write a model for some targets.

    Args:
        checkpoint: A teacher or a student.
        targets: Keys of ``WRITERS``, each once.
        precision: Of the text encoder.
        out: What to write; for several targets a folder, in which each has a name of its own.

    Returns:
        What each says of what it wrote, with its ``path``.

    Raises:
        UsageError: A target twice, or what it cannot make something of.
        ParityError: An engine does not answer as torch does; that target was not written.
    """
    if len(set(targets)) != len(targets) or not targets:
        raise UsageError(f"got the targets {', '.join(targets)}; expected at least one, each once")
    reports = {}
    for name in targets:
        path = out if len(targets) == 1 else out / f"{checkpoint.folder.name}{WRITERS[name].suffix}"
        write: Write = getattr(importlib.import_module(WRITERS[name].module), WRITERS[name].function)
        reports[name] = {"path": str(path), **write(checkpoint, precision, path)}
    return reports


def compile_finished(
    checkpoint: Checkpoint,
    targets: Sequence[str],
    precision: str,
    out: Path,
    finishers: Mapping[str, Callable[[Path], object]],
) -> dict[str, Report]:
    """Write a model's bundle, changed further before it has its name; the report is that of ``compile_for``.

    Args:
        checkpoint: A teacher or a student.
        targets: ``onnx`` alone.
        precision: Of the text encoder.
        out: The file.
        finishers: Option -> what it does to the bundle, in place and in this order.

    Raises:
        UsageError: Another target than ``onnx``, or what a finisher cannot use.
        ParityError: The file does not answer as it should; nothing was written.
    """
    if tuple(targets) != ("onnx",):
        raise UsageError(f"got {' and '.join(finishers)} for {', '.join(targets)}; expected --target onnx alone")
    with atomic_path(out) as temporary:
        report = compile_for(checkpoint, targets, precision, temporary)["onnx"]
        for finish in finishers.values():
            finish(temporary)
        return {"onnx": {**report, "path": str(out), "bytes": temporary.stat().st_size}}
