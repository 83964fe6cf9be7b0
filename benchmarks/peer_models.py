"""What the peers of ``bench`` run on, made of one encoder: ``python benchmarks/peer_models.py ENCODER CATALOGUE OUT``.

ENCODER is a local folder of MiniLM-L6, CATALOGUE a JSON object of ``ids`` and ``texts``. Into OUT go

    minilm-int8/   optimum's export and its dynamic INT8 quantization for AVX2, with tokenizer.json
    model2vec/     what model2vec distils from the same encoder (where it is installed; 256 dimensions, its default)
    catalogue.json

Each in its package's own way and with its defaults, as a user of it would. Needs optimum-onnx, model2vec[distill].
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path


def minilm_int8(encoder: Path, out: Path) -> None:
    """Export and quantize an encoder with optimum."""
    from optimum.onnxruntime import ORTModelForFeatureExtraction, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    plain = out.with_name("minilm-fp32")
    ORTModelForFeatureExtraction.from_pretrained(encoder, export=True).save_pretrained(plain)
    quantizer = ORTQuantizer.from_pretrained(plain, file_name="model.onnx")
    quantizer.quantize(AutoQuantizationConfig.avx2(is_static=False, per_channel=False), out)
    shutil.copy(encoder / "tokenizer.json", out)


def model2vec(encoder: Path, out: Path) -> None:
    """Distil an encoder with model2vec."""
    from model2vec.distill import distill

    distill(str(encoder)).save_pretrained(out)


def main(encoder: Path, catalogue: Path, out: Path) -> None:
    """Make what is not there yet."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(catalogue, out / "catalogue.json")
    for name, make, package in (("minilm-int8", minilm_int8, "optimum"), ("model2vec", model2vec, "model2vec")):
        if importlib.util.find_spec(package) is None:
            sys.stderr.write(f"{package} is not installed here; {name} is left out\n")
        elif not (out / name).exists():
            make(encoder, out / name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
