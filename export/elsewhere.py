"""Engines in other processes: a Python elsewhere, such as an emulated one, and a browser; both answer all at once.

Requests for a Python are a file ``requests.npz``: ``history_I`` int64 [1, L] of each history, ``input_ids_I`` and
``attention_mask_I`` int64 [B, L] of each batch of texts, ``k`` (all items), ``shape`` of a session's state. Its answers
are ``items`` int64 and ``scores`` float32 [n, k], ``vectors`` float32 [T, d], onnxruntime's ``version``, ``processor``.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from edgerec.benchmarks.run_web import node
from edgerec.benchmarks.web_subject import WEB, no_browser
from edgerec.errors import EdgerecError
from edgerec.export import onnx_engine
from edgerec.export.engines import Feed
from edgerec.export.onnx_engine import ANSWERS, REQUESTS
from edgerec.export.parity import Reference
from edgerec.runtime.engine import RowArray
from edgerec.runtime.layout import FloatArray

AT_ONCE = 64  # histories that a page answers before it is asked for more: an answer holds every item


@dataclass
class Recorded:
    """What an engine answered, behind ``Engine``."""

    name: str
    ranked: Mapping[bytes, tuple[RowArray, FloatArray]]  # by the bytes of the history
    encoded: Mapping[bytes, FloatArray]  # by those of the token ids

    def rank(self, history: RowArray, k: int) -> tuple[RowArray, FloatArray]:
        """Return the k best rows and their scores."""
        items, scores = self.ranked[history.tobytes()]
        return items[:k], scores[:k]

    def encode(self, feed: Feed) -> FloatArray:
        """Return text vectors."""
        return self.encoded[feed["input_ids"].tobytes()]


def recorded(
    name: str, wanted: Reference, ranked: Sequence[tuple[RowArray, FloatArray]], vectors: FloatArray
) -> Recorded:
    """Put answers behind ``Engine``.

    Args:
        name: What a table calls the engine.
        wanted: What was asked.
        ranked: Rows and scores, best first, by history.
        vectors: float32 [T, d], in the order of the texts.

    Raises:
        ValueError: There is not one answer to each request.
    """
    if (len(ranked), vectors.shape) != (len(wanted.histories), wanted.vectors.shape):
        raise ValueError(f"{len(ranked)} lists and vectors {vectors.shape}")
    asked = [np.array([history], np.int64).tobytes() for history in wanted.histories]
    ends = np.cumsum([len(feed["input_ids"]) for feed in wanted.feeds])[:-1]
    ids = [feed["input_ids"].tobytes() for feed in wanted.feeds]
    return Recorded(name, dict(zip(asked, ranked, strict=True)), dict(zip(ids, np.split(vectors, ends), strict=True)))


def output_of(words: Sequence[str], expected: str) -> str:
    """Return what a command prints.

    Raises:
        EdgerecError: It cannot be started, or fails; the message ends in what was ``expected``.
    """
    program = Path(words[0]).name
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except OSError as error:
        raise EdgerecError(f"{program} cannot be started ({error.strerror}); {expected}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise EdgerecError(f"{program} exited with {done.returncode} ({said[-1][:200]}); {expected}")
    return done.stdout


def in_python(command: str, folder: Path, shape: tuple[int, int], wanted: Reference) -> Recorded:
    """Have another Python answer by its onnxruntime.

    Args:
        command: That starts it, as a shell would split it; it has numpy and onnxruntime, and sees the same files.
        folder: With both graphs and their tables, as ``package.unpack`` writes it; requests and answers go there.
        shape: Of a session's state, [K, d].
        wanted: What to ask.

    Raises:
        EdgerecError: It did not answer.
    """
    asked = {f"history_{one}": np.array([history], np.int64) for one, history in enumerate(wanted.histories)}
    asked |= {f"{name}_{one}": feed[name] for one, feed in enumerate(wanted.feeds) for name in feed}
    np.savez(folder / REQUESTS, k=wanted.scores.shape[1], shape=shape, **asked)  # type: ignore[arg-type]
    words = shlex.split(command)
    program = Path(words[0]).name
    (folder / ANSWERS).unlink(missing_ok=True)  # of the command before
    expected = "expected a Python with numpy and onnxruntime"
    output_of([*words, onnx_engine.__file__, str(folder)], expected)
    try:
        with np.load(folder / ANSWERS) as found:
            name = f"ORT {found['version']}, {found['processor']}, {program}"
            ranked = list(zip(found["items"], found["scores"], strict=True))
            return recorded(name, wanted, ranked, found["vectors"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise EdgerecError(f"{program} left no usable answers ({type(error).__name__}); {expected}") from error


def in_browser(bundle: Path, engine: str, ids: Sequence[str], wanted: Reference) -> Recorded:
    """Have ``runtime/web`` answer in headless Chromium, with its own tokenizer.

    Args:
        bundle: The file, as it is.
        engine: ``onnxruntime`` or ``plain``.
        ids: Of the catalogue.
        wanted: What to ask.

    Raises:
        EdgerecError: It did not answer.
    """
    if reason := no_browser():
        raise EdgerecError(reason)
    every = {"k": len(ids), "excludeSeen": False}
    steps: list[Any] = [["recommend", [ids[row - 1] for row in rows], every] for rows in wanted.histories]
    jobs = [steps[start : start + AT_ONCE] for start in range(0, len(steps), AT_ONCE)]
    jobs.append([["encode", text] for text in wanted.texts])
    told = node("browser.mjs", *({"bundle": str(bundle.resolve()), "engine": engine, "steps": job} for job in jobs))
    answers = [one for page in told for one in page.get("answers", [page["load"]] if "load" in page else [])]
    if failed := [one["error"]["message"] for one in answers if "error" in one]:
        raise EdgerecError(f"{len(failed)} of {len(answers)} answers failed: {failed[0]}")
    rows = {item: row for row, item in enumerate(ids, 1)}
    ranked = [
        (
            np.array([rows[entry["item"]] for entry in one["value"]]),
            np.array([entry["score"] for entry in one["value"]], np.float32),
        )
        for one in answers[: len(steps)]
    ]
    vectors = np.array([one["value"] for one in answers[len(steps) :]], np.float32)
    version = json.loads((WEB / "package.json").read_text("utf-8"))["dependencies"]["onnxruntime-web"]
    runtime = {"onnxruntime": f"onnxruntime-web {version}", "plain": "plain JavaScript"}[engine]
    return recorded(f"{runtime}, Chromium {told[0]['browser']}", wanted, ranked, vectors)
