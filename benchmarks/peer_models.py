"""What the peers of ``bench`` run on: ``python -m edgerec.benchmarks.peer_models DATA OUT``.

DATA is a data set, by name or folder, whose catalogue the peers have; the encoder is MiniLM-L6. Into OUT go

    minilm/        the encoder itself
    minilm-fp32/   optimum's export, with its tokenizer
    minilm-int8/   its dynamic INT8 quantization for AVX2, with its tokenizer
    model2vec/     what model2vec distils from the same encoder (where it is installed; 256 dimensions, its default)
    catalogue.json    the ids and texts of DATA

Each in its package's own way and with its defaults, as a user of it would. Needs optimum-onnx, model2vec[distill].
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

from edgerec.data import load
from edgerec.files import write_json
from edgerec.sources import fetch


def minilm(encoder: Path, out: Path) -> None:
    """Copy an encoder."""
    shutil.copytree(encoder, out)


def minilm_fp32(encoder: Path, out: Path) -> None:
    """Export an encoder with optimum."""
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    ORTModelForFeatureExtraction.from_pretrained(encoder, export=True).save_pretrained(out)
    copy_tokenizer(encoder, out)


def minilm_int8(encoder: Path, out: Path) -> None:
    """Quantize the exported encoder with optimum."""
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    quantizer = ORTQuantizer.from_pretrained(out.with_name("minilm-fp32"), file_name="model.onnx")
    quantizer.quantize(AutoQuantizationConfig.avx2(is_static=False, per_channel=False), out)
    copy_tokenizer(encoder, out)


def copy_tokenizer(encoder: Path, out: Path) -> None:
    """Copy an encoder's tokenizer."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(encoder / name, out)


def model2vec(encoder: Path, out: Path) -> None:
    """Distil an encoder with model2vec."""
    from model2vec.distill import distill

    distill(str(encoder)).save_pretrained(out)


PARTS = (
    ("minilm", minilm, "shutil"),
    ("minilm-fp32", minilm_fp32, "optimum"),
    ("minilm-int8", minilm_int8, "optimum"),
    ("model2vec", model2vec, "model2vec"),
)


def main(source: str, out: Path) -> None:
    """Make what is not there yet."""
    data, encoder = load(source), fetch("minilm-l6")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "catalogue.json", {"ids": data.item_ids, "texts": data.texts})
    for name, make, package in PARTS:
        if importlib.util.find_spec(package) is None:
            sys.stderr.write(f"{package} is not installed here; {name} is left out\n")
        elif not (out / name).exists():
            make(encoder, out / name)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
