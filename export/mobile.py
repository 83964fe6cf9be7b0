"""ORT-mobile: both graphs as ``.ort`` with their tables inside, the operators that a reduced build needs, and callers.

``.ort`` opens faster than ``.onnx`` and needs no ONNX parser: what ``onnxruntime-mobile`` and reduced builds take.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime

from edgerec.distill.checkpoint import Checkpoint
from edgerec.export.onnx_engine import OnnxEngine
from edgerec.export.package import STRINGS, draft, sizes_of, unpack, wanted
from edgerec.export.parity import compare, require_parity
from edgerec.export.quantization import made
from edgerec.files import atomic_folder, write_bytes, write_json
from edgerec.runtime.engine import EXACT
from edgerec.runtime.layout import ENCODER, TOKENIZER

OPERATORS = "required_operators_and_types.config"
NOTES = "mobile_notes.md"  # beside this module


def write_ort(checkpoint: Checkpoint, precision: str, out: Path) -> dict[str, Any]:
    """Write a model's folder for ONNX Runtime on phones.

    Args:
        checkpoint: A teacher or a student.
        precision: Of the text encoder.
        out: A new folder.

    Returns:
        ``files`` (sizes) and ``parity`` (``parity.compare``).

    Raises:
        UsageError: The precision cannot be made, or ``out`` is in use.
        ParityError: The engine does not answer as torch does; nothing was written.
    """
    from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

    prepared = draft(checkpoint)
    tower = prepared.rounded
    with TemporaryDirectory() as work, atomic_folder(out) as folder:
        model = unpack(prepared, Path(work))
        write_bytes(Path(work) / ENCODER, made(precision, prepared.graph, prepared.calibration()))
        with silence():
            convert_onnx_models_to_ort(
                Path(work),
                output_dir=folder,
                optimization_styles=[OptimizationStyle.Fixed],
                target_platform="arm",
                enable_type_reduction=True,
            )
        for name in (TOKENIZER, *STRINGS):
            write_bytes(folder / name, (Path(work) / name).read_bytes())
        write_bytes(folder / "README.md", files("edgerec.export").joinpath(NOTES).read_bytes())
        name, shape = f"ORT {onnxruntime.__version__} .ort, {precision}", (len(tower.decays), tower.embedding_size)
        # exactly, as an arm processor multiplies
        engine = OnnxEngine(name, folder / "recommender.ort", folder / "item_encoder.ort", shape, EXACT)
        row = compare(engine, wanted(prepared))
        require_parity(row, precision)
        write_json(folder / "model.json", {"model": model, "precision": precision, "parity": row})
        return {"files": sizes_of(folder), "parity": row}


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep the converter's own words off the terminal."""
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        onnxruntime.set_default_logger_severity(2)
        logging.disable(logging.NOTSET)
