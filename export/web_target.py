"""Web: the unmodified bundle, which the browser opens, and a list of what onnxruntime-web must bring besides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgerec.bundle import Bundle
from edgerec.distill.checkpoint import Checkpoint
from edgerec.export.package import package, sizes_of
from edgerec.files import atomic_folder, write_json

BUNDLE = "model.edgerec"
NEEDS = {
    "onnxruntime-web": "ort-wasm-simd-threaded.wasm and its .mjs, beside the page; one thread needs no special headers",
    "@huggingface/tokenizers": "for search and new items only",
}


def write_web(checkpoint: Checkpoint, precision: str, out: Path) -> dict[str, Any]:
    """Write a folder to put beside a page: the bundle, and ``web.json``, which says what it holds and needs.

    Raises:
        UsageError: The precision cannot be made, or ``out`` is in use.
        ParityError: The file does not answer as torch does; nothing was written.
    """
    with atomic_folder(out) as folder:
        report = package(checkpoint, precision, folder / BUNDLE)
        members = Bundle(folder / BUNDLE).manifest["members"]
        write_json(
            folder / "web.json",
            {"bundle": BUNDLE, "bytes": {name: one["size"] for name, one in members.items()}, "needs": NEEDS},
        )
        return {"files": sizes_of(folder), "parity": report["parity"]}
