"""Do other tools read the text encoder that is written for them? Each runs in an environment of its own.

    edgerec export MODEL --target hugging-face --out FOLDER
    python -m edgerec.export.interop ask MODEL asked.json               # texts, and the vectors that torch gives
    OTHER/bin/python export/interop.py sentence-transformers FOLDER asked.json st.json
    OTHER/bin/python export/interop.py fastembed FOLDER asked.json fastembed.json
    NODE_PATH=... node export/interop.mjs FOLDER asked.json js.json      # @huggingface/transformers
    python -m edgerec.export.interop judge asked.json st.json fastembed.json js.json --out result.json

A tool's environment needs nothing of edgerec: for its own part, this file imports the tool alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

TEXTS = 64  # of the catalogue, evenly spread from the shortest to the longest
TOLERANCE = 1e-4  # cosine distance: float32 sums in another order


def ask(model: Path, asked: Path) -> None:
    """Write texts of a model's catalogue, and the vectors that torch gives for them before the projection."""
    from edgerec.distill.checkpoint import load
    from edgerec.export.hugging_face import expected, token_states
    from edgerec.export.package import spread

    checkpoint = load(model)
    texts = spread(sorted(set(checkpoint.texts)), TEXTS)
    vectors = expected(checkpoint, texts).tolist()
    normalised = token_states(checkpoint).normalised
    asked.write_text(json.dumps({"normalised": normalised, "texts": texts, "vectors": vectors}), "utf-8")


def sentence_transformers(folder: Path, texts: list[str]) -> Any:
    """Return the vectors of sentence-transformers' ONNX backend."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(folder), backend="onnx", model_kwargs={"file_name": "onnx/model.onnx"}, device="cpu"
    )
    return model.encode(texts)


def fastembed(folder: Path, texts: list[str], normalised: bool) -> Any:
    """Return the vectors of fastembed, to which the folder is a custom model."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    size = json.loads((folder / "1_Pooling" / "config.json").read_text("utf-8"))["word_embedding_dimension"]
    TextEmbedding.add_custom_model(
        model="own/encoder",
        pooling=PoolingType.MEAN,
        normalization=normalised,
        sources=ModelSource(hf="own/encoder"),
        dim=size,
        model_file="onnx/model.onnx",
    )
    model = TextEmbedding("own/encoder", specific_model_path=str(folder), providers=["CPUExecutionProvider"])
    return np.array(list(model.embed(texts)))


def answer(tool: str, folder: Path, asked: Path, out: Path) -> None:
    """Let a tool encode the texts, and write its vectors."""
    task = json.loads(asked.read_text("utf-8"))
    if tool == "fastembed":
        vectors = fastembed(folder, task["texts"], task["normalised"])
    else:
        vectors = sentence_transformers(folder, task["texts"])
    value = {"tool": tool, "version": version(tool), "vectors": np.asarray(vectors, np.float64).tolist()}
    out.write_text(json.dumps(value), "utf-8")


def judge(asked: Path, answers: list[Path], out: Path) -> bool:
    """Compare answers with torch's vectors, write and print what came out, and tell whether all are the same."""
    from edgerec.files import write_result

    task = json.loads(asked.read_text("utf-8"))
    wanted, rows = np.array(task["vectors"]), []
    for path in answers:
        given = json.loads(path.read_text("utf-8"))
        vectors = np.array(given["vectors"])
        cosines = (vectors * wanted).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(wanted, axis=1)
        worst = int(cosines.argmin())
        rows.append(
            {
                "tool": given["tool"],
                "version": given["version"],
                "texts": len(wanted),
                "largest_cosine_distance": float(1 - cosines[worst]),
                "largest_difference": float(np.abs(vectors - wanted).max()),
                "worst_text": task["texts"][worst],
                "same": bool(1 - cosines[worst] <= TOLERANCE),
            }
        )
    report = table(rows)
    result = {"schema": "edgerec-interop-1", "tolerance": TOLERANCE, "rows": rows}
    write_result(out, result, report + "\n")
    sys.stdout.write(report + "\n")
    return all(row["same"] for row in rows)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the verdicts as Markdown."""
    from edgerec.benchmarks.quality import markdown

    head = ["tool", "version", "texts", "largest cosine distance", "largest difference", "verdict"]
    lines = [
        [
            row["tool"],
            row["version"],
            str(row["texts"]),
            f"{row['largest_cosine_distance']:.0e}",
            f"{row['largest_difference']:.0e}",
            "same" if row["same"] else f"differs: {row['worst_text']}",
        ]
        for row in rows
    ]
    return markdown(head, lines)


def main() -> int:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    asking = parts.add_parser("ask")
    asking.add_argument("model", type=Path)
    asking.add_argument("asked", type=Path)
    for tool in ("sentence-transformers", "fastembed"):
        one = parts.add_parser(tool)
        for name in ("folder", "asked", "out"):
            one.add_argument(name, type=Path)
    judging = parts.add_parser("judge")
    judging.add_argument("asked", type=Path)
    judging.add_argument("answers", type=Path, nargs="+")
    judging.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.part == "ask":
        ask(given.model, given.asked)
    elif given.part == "judge":
        return 0 if judge(given.asked, given.answers, given.out) else 1
    else:
        answer(given.part, given.folder, given.asked, given.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
