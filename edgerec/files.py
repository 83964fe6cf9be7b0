"""Files are written whole or not at all; downloads are cached and checked by sha256."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgerec.errors import UsageError

# a list of numbers in indented JSON; no string holds a line break
NUMBERS = re.compile(r"\[\n((?: *[-+.\deE]+,?\n)+) *\]")


def cache_dir() -> Path:
    """Return ``$EDGEREC_CACHE``, else ``$XDG_CACHE_HOME/edgerec``, else ``~/.cache/edgerec``."""
    if path := os.environ.get("EDGEREC_CACHE"):
        return Path(path)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgerec"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success fsync and rename it, on any error remove it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success rename it, on any error remove it: whole or not at all.

    Raises:
        UsageError: ``path`` holds something already.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} exists already; expected a new folder: name another one")
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        import shutil  # here, since the runtime imports this module, and deletes no folder

        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented, UTF-8, with a final newline."""
    write_bytes(path, (indented(value) + "\n").encode())


def indented(value: Any) -> str:
    """Return a value as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def on_one_line(found: re.Match[str]) -> str:
    """Return a list without its line breaks."""
    return f"[{' '.join(found[1].split())}]"


def write_result(path: Path, result: Any, report: str) -> None:
    """Write a measurement as JSON, and what it prints as Markdown beside it, under the same name.

    Numbers of a list share a line: a result has thousands, and each on its own would be twice the file.
    """
    write_bytes(path, (NUMBERS.sub(on_one_line, indented(result)) + "\n").encode())
    write_bytes(path.with_suffix(".md"), report.encode())


def sha256(path: Path) -> str:
    """Return a file's sha256 as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
