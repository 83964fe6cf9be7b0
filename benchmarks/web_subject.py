"""A bundle in headless Chromium as a subject: node drives the page, and the page's own clock counts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgerec.benchmarks.adapters import NotHere, Staged
from edgerec.errors import EdgerecError

WEB = Path(__file__).resolve().parents[1] / "runtime" / "web"
ENGINES = ("onnxruntime", "plain")
VERIFIED = {  # ours -> the page's
    "requests": "requests",
    "texts": "texts",
    "largest_score_difference": "largestScoreDifference",
    "largest_text_distance": "largestTextDistance",
    "skipped": "skipped",
}
BROWSERS = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")  # as browser.mjs looks


def browser() -> str | None:
    """Return the path of this machine's Chromium, or None."""
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


def no_browser() -> str | None:
    """Return what a machine lacks to answer in a browser, or None."""
    if not shutil.which("node"):
        return "node is not installed"
    if not browser():
        return "no Chromium is installed; CHROMIUM can name one"
    return None if (WEB / "dist" / "edgerec-web.js").exists() else "runtime/web is not built: run make web"


class WebSubject(Staged):
    """``runtime/web`` over one bundle, on onnxruntime-web or in plain JavaScript."""

    def __init__(self, kind: str, bundle: str, engine: str) -> None:
        self.kind, self.bundle, self.engine = kind, bundle, engine
        self._outside = 0  # nanoseconds that answers took on their way, so far
        self._node: subprocess.Popen[str] | None = None

    def stages(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield the browser's start, and the bundle's opening in it.

        Raises:
            NotHere: Of a stage: node, Chromium or a built ``runtime/web`` is missing, or another engine runs the file.
            EdgerecError: Of a stage: the page cannot open the bundle.
        """
        yield "browser", self._start
        yield "open", self._open

    def _start(self) -> None:
        if reason := no_browser():
            raise NotHere(reason)
        command = ["node", str(WEB / "subject.mjs"), str(Path(self.bundle).resolve()), self.engine]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self._node = subprocess.Popen(command, **pipes)
        self._version = self._next()["browser"]

    def _open(self) -> None:
        opened = self._next()
        if "error" in opened:
            raise EdgerecError(f"{self.engine} in Chromium cannot open the bundle ({opened['error']})")
        if opened["engine"] != self.engine:
            raise NotHere(f"Chromium {self._version} runs the bundle by {opened['engine']}, not by {self.engine}")

    def run_one(self, request: Any) -> list[str]:
        """Answer one request."""
        start = time.perf_counter_ns()
        found = self._ask(self.kind, request)
        if "error" in found:
            raise EdgerecError(f"{self.engine} in Chromium cannot answer {self.kind} ({found['error']})")
        self._outside += time.perf_counter_ns() - start - int(found["ms"] * 1e6)
        items: list[str] = found["items"]
        return items

    def goldens(self) -> dict[str, Any]:
        """Replay the file's golden requests in the page.

        Raises:
            EdgerecError: An answer differs.
        """
        found = self._ask("verify")
        if "error" in found:
            raise EdgerecError(found["error"])
        return {"passes": True, **{ours: found["verified"][theirs] for ours, theirs in VERIFIED.items()}}

    def clock(self) -> int:
        """Return nanoseconds, of which requests and answers on their way are no part."""
        return time.perf_counter_ns() - self._outside

    def close(self) -> None:
        """End the browser."""
        if self._node and self._node.stdin:
            self._node.stdin.close()
            self._node.wait(timeout=30)

    def _ask(self, *call: Any) -> Any:
        assert self._node and self._node.stdin
        self._node.stdin.write(json.dumps(call) + "\n")
        self._node.stdin.flush()
        return self._next()

    def _next(self) -> Any:
        assert self._node and self._node.stdout and self._node.stderr
        if line := self._node.stdout.readline():
            return json.loads(line)
        said = self._node.stderr.read().strip().splitlines() or ["it said nothing"]
        raise EdgerecError(f"headless Chromium did not answer ({said[0][:200]})")
