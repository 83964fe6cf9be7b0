"""OpenVINO IR: ``recommender`` and ``item_encoder`` as ``.xml`` with ``.bin``, checked against torch.

Made of the portable graphs, defaults of inputs taken away: OpenVINO would freeze them. ``int8-static`` quantizes the
encoder with NNCF (symmetric, transformer model), on titles of the catalogue; the tables are INT8 in each precision.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from edgerec.distill.checkpoint import Checkpoint
from edgerec.errors import UsageError, require
from edgerec.export import PRECISIONS as ALL
from edgerec.export.engines import OpenVinoEngine, required_inputs
from edgerec.export.package import STRINGS, Draft, draft, sizes_of, unpack, wanted
from edgerec.export.parity import compare, require_parity
from edgerec.export.recommender_graph import recommender_graph
from edgerec.files import atomic_folder, write_json
from edgerec.quiet_nncf import quiet_nncf
from edgerec.runtime.layout import ENCODER, GRAPH, TOKENIZER

PRECISIONS = ("fp32", "fp16", "int8-static")  # OpenVINO's


def write_openvino(checkpoint: Checkpoint, precision: str, out: Path) -> dict[str, Any]:
    """Write a model's folder for OpenVINO.

    Args:
        checkpoint: A teacher or a student.
        precision: ``fp32``, ``fp16`` (weights; it computes as the device likes) or ``int8-static``, for which the
            default of the other targets is taken.
        out: A new folder.

    Returns:
        ``files`` (sizes) and ``parity`` (``parity.compare``).

    Raises:
        UsageError: Another precision, or ``out`` is in use.
        MissingExtraError: ``openvino`` or ``nncf`` is not installed.
        ParityError: The engine does not answer as torch does; nothing was written.
    """
    precision = "int8-static" if precision == ALL[0] else precision
    if precision not in PRECISIONS:
        raise UsageError(f"OpenVINO has no {precision!r}; expected one of {', '.join(PRECISIONS)}")
    openvino = require("openvino", "openvino")
    prepared = draft(checkpoint)
    tower, core = prepared.rounded, openvino.Core()
    with TemporaryDirectory() as work, atomic_folder(out) as folder:
        model = unpack(prepared, Path(work))
        onnx.save(required_inputs(recommender_graph(tower)), Path(work) / GRAPH)
        encoder = core.read_model(Path(work) / ENCODER)
        if precision == "int8-static":
            encoder = quantized(encoder, prepared)
        openvino.save_model(core.read_model(Path(work) / GRAPH), folder / "recommender.xml", compress_to_fp16=False)
        openvino.save_model(encoder, folder / "item_encoder.xml", compress_to_fp16=precision == "fp16")
        for name in (TOKENIZER, *STRINGS):
            shutil.copyfile(Path(work) / name, folder / name)
        name = f"OpenVINO {openvino.__version__.split('-')[0]}, {precision}"
        shape = (len(tower.decays), tower.embedding_size)
        row = compare(OpenVinoEngine(name, folder, shape, tower.repeat_decays.size), wanted(prepared))
        require_parity(row, precision)
        write_json(folder / "model.json", {"model": model, "precision": precision, "parity": row})
        return {"precision": precision, "files": sizes_of(folder), "parity": row}


def quantized(model: Any, prepared: Draft) -> Any:
    """Return the encoder in INT8, calibrated on titles of the catalogue."""
    nncf = quiet_nncf()
    feeds = [dict(feed) for feed in prepared.calibration().feeds]
    if not feeds:
        raise UsageError("the catalogue has no title to calibrate on; expected --precision fp32 or fp16")
    return nncf.quantize(
        model,
        nncf.Dataset(feeds),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(feeds),
    )
