"""The C client beside Python, on one bundle: ``python -m edgerec.benchmarks.c_client BUNDLE --out FILE``.

Both answer in this process, interleaved, by ids: Python as applications ask it, C through ctypes, whose own cost of a
few microseconds counts as C's. C turns ids into rows and answers; an id or title of the answer is a pointer then.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import onnxruntime

from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.quality import markdown
from edgerec.benchmarks.timer import measure, ratio
from edgerec.cli import main as run
from edgerec.errors import BundleError, UsageError
from edgerec.files import write_result
from edgerec.runtime import Recommender, recommender

SOURCE = Path(recommender.__file__).with_name("c")
FLAGS = ("-std=c11", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-O2", f"-I{SOURCE}")
EVENTS, K, HISTORIES = 50, 10, 200
AS_EXPORTED, LEFT_OUT, RETURNED = range(3)  # edgerec_seen


def compiler() -> str | None:
    """Return the C compiler that ``CC`` names or the machine has, or None."""
    names = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    return next(filter(None, map(shutil.which, names)), None)


def ort_library() -> Path | None:
    """Return the shared library inside the installed onnxruntime, or None where it has none."""
    names = ("libonnxruntime.so*", "libonnxruntime*.dylib", "onnxruntime.dll")
    folder = Path(onnxruntime.__file__).parent / "capi"
    return next((path for name in names for path in sorted(folder.glob(name))), None)


def built(folder: Path, *flags: str, sources: Sequence[Path] = (SOURCE / "edgerec.c",), name: str = "client") -> Path:
    """Compile C sources, by default the client, with all warnings as errors.

    Raises:
        UsageError: There is no compiler, or the sources do not compile.
    """
    if (command := compiler()) is None:
        raise UsageError("no C compiler was found; expected one as cc, gcc or clang: install one, or name it by CC")
    made = folder / name
    done = subprocess.run(
        [command, *FLAGS, *flags, "-o", str(made), *map(str, sources), "-ldl"], capture_output=True, text=True
    )
    if done.returncode:
        raise UsageError(f"{sources[0].name} does not compile here: {done.stderr[:500]}")
    return made


class Client:
    """The C client, called as a C program calls it.

    Args:
        library: What ``built(folder, "-shared", "-fPIC")`` made.
        bundle: The file to open.
        ort: onnxruntime's shared library.
        threads: Threads for one answer.

    Raises:
        BundleError: The client refuses to open it; the message is the client's.
    """

    def __init__(self, library: Path, bundle: Path, ort: Path | str, threads: int = 1) -> None:
        self.c = ctypes.CDLL(str(library))
        for name in ("open", "rows", "recommend", "verify"):
            getattr(self.c, f"edgerec_{name}").restype = ctypes.c_char_p
        for name in ("items", "item_row"):
            getattr(self.c, f"edgerec_{name}").restype = ctypes.c_int64
        for name in ("item_id", "item_title"):
            getattr(self.c, f"edgerec_{name}").restype = Text
        self.handle = ctypes.c_void_p()
        self.done(self.c.edgerec_open(os.fsencode(bundle), os.fsencode(ort), threads, ctypes.byref(self.handle)))

    def done(self, error: bytes | None) -> None:
        """Raise BundleError where a function returned an error."""
        if error is not None:
            raise BundleError(error.decode(errors="replace"))

    def close(self) -> None:
        """Close the bundle."""
        self.c.edgerec_close(self.handle)

    def item(self, row: int) -> tuple[str, str]:
        """Return an item's id and title; both are empty where there is no such row."""
        parts = [get(self.handle, ctypes.c_int64(row)) for get in (self.c.edgerec_item_id, self.c.edgerec_item_title)]
        item, title = (ctypes.string_at(one.bytes, one.size).decode() if one.bytes else "" for one in parts)
        return item, title

    def asking(self, ids: Sequence[str], k: int = K, seen: int = AS_EXPORTED, skip: bool = False) -> Callable[[], Any]:
        """Return a function that answers a history as int64 [found] rows and float32 [found] scores, all in C."""
        names = (ctypes.c_char_p * len(ids))(*(one.encode() for one in ids))
        history, items = np.zeros(len(ids), np.int64), np.zeros(k, np.int64)
        scores, known, found = np.zeros(k, np.float32), ctypes.c_size_t(), ctypes.c_size_t()
        size, most = ctypes.c_size_t(len(ids)), ctypes.c_size_t(k)
        rows, returned, values = (array.ctypes.data_as(ctypes.c_void_p) for array in (history, items, scores))
        ends = ctypes.byref(known), ctypes.byref(found)

        def ask() -> Any:
            self.done(self.c.edgerec_rows(self.handle, names, size, ctypes.c_bool(skip), rows, ends[0]))
            self.done(self.c.edgerec_recommend(self.handle, rows, known, most, seen, returned, values, ends[1]))
            return items[: found.value], scores[: found.value]

        return ask

    def recommend(self, ids: Sequence[str], k: int = K, **options: Any) -> list[tuple[str, float]]:
        """Return the best items and their scores."""
        rows, scores = self.asking(ids, k, **options)()
        return [(self.item(row)[0], score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True)]

    def verify(self) -> tuple[int, float]:
        """Return how many golden requests were answered, and the largest difference of a score."""
        requests, difference = ctypes.c_size_t(), ctypes.c_double()
        self.done(self.c.edgerec_verify(self.handle, ctypes.byref(requests), ctypes.byref(difference)))
        return requests.value, difference.value


class Text(ctypes.Structure):
    """``edgerec_text``."""

    _fields_ = (("bytes", ctypes.c_void_p), ("size", ctypes.c_size_t))


def compare(bundle: Path, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Return latencies of both, and how many times as long Python takes.

    Raises:
        UsageError: There is no compiler or no shared library of onnxruntime.
        BundleError: One of them cannot open the bundle.
    """
    if (ort := ort_library()) is None:
        raise UsageError("the installed onnxruntime has no shared library; expected one in its folder capi")
    python = Recommender.load(bundle)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, python.contents.n_items, (HISTORIES, EVENTS))
    histories = [[python.contents.ids[int(row)] for row in line] for line in rows]
    with TemporaryDirectory() as folder:
        client = Client(built(Path(folder), "-shared", "-fPIC"), bundle, ort)
        asks = [client.asking(history) for history in histories]

        def in_c(number: int) -> object:
            return asks[number % HISTORIES]()

        def in_python(number: int) -> object:
            return python.recommend(histories[number % HISTORIES], K)

        different = sum(
            [one for one, _ in client.recommend(history)] != [entry.item for entry in python.recommend(history, K)]
            for history in histories
        )
        clock = measure({"C": in_c, "Python": in_python}, rounds, warmup=HISTORIES, seed=seed)
        requests, difference = client.verify()
        client.close()
    return {
        "schema": "edgerec-c-client-1",
        "bundle": {"name": bundle.name, "bytes": bundle.stat().st_size, "items": python.contents.n_items},
        "events": EVENTS,
        "k": K,
        "threads": 1,
        "histories": HISTORIES,
        "different_lists": different,
        "goldens": {"requests": requests, "largest_score_difference": difference},
        "latency": {name: one.summary() for name, one in clock.items()},
        "python_to_c": ratio(clock["Python"], clock["C"], seed),
        "compiler": version(),
        "environment": environment(),
    }


def version() -> str:
    """Return the compiler's first line about itself."""
    return subprocess.run([str(compiler()), "--version"], capture_output=True, text=True).stdout.splitlines()[0]


def table(result: dict[str, Any]) -> str:
    """Return a result as a Markdown table, under what it was measured on."""
    machine, bundle, times = result["environment"], result["bundle"], result["python_to_c"]
    load = f"{machine['load_average'][0]:.1f}" if machine["load_average"] else "unknown"
    lines = [
        [name, *(f"{clock[f'{p}_ms']:.3f}" for p in ("p50", "p90", "p99")), str(clock["n"])]
        for name, clock in result["latency"].items()
    ]
    return (
        f"{bundle['items']:,} items, {result['events']} events, k = {result['k']}, {result['threads']} thread; "
        f"{machine['cpu']}, load average {load}, onnxruntime {machine['packages']['onnxruntime']}, "
        f"{result['compiler']}. {result['different_lists']} of {result['histories']} lists differ. Python takes "
        f"{times['ratio']:.2f} times as long ({times['low']:.2f} to {times['high']:.2f}).\n\n"
        + markdown(["", "p50 ms", "p90 ms", "p99 ms", "n"], lines)
    )


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--rounds", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="File for the result as JSON; its table lies beside it.")
def main(bundle: Path, rounds: int, seed: int, out: Path | None) -> None:
    """Time an answer to 50 events, in C and in Python."""
    result = compare(bundle, rounds, seed)
    if out:
        write_result(out, result, table(result) + "\n")
    click.echo(table(result))


if __name__ == "__main__":
    run(main)
