"""A million items: what a bundle of them weighs, and what opening it costs.

``python -m edgerec.benchmarks.million_bundle --out benchmarks/results/million-bundle.json`` makes a random tower of 1M
x 64 (``edgerec.export.synthetic``, in a process of its own) and opens it in fresh processes. Each reports the time of
every step, by the wall's clock and the processor's, and its memory from /proc (Linux): *private* is what the process
alone pays for, *resident* counts the file's pages too, which the system can take back. ``as it was`` gives onnxruntime
the tables as external initializers alone and leaves read pages resident, ``not packed`` switches its packing of the
table off; both are there for comparison. Last, an answer in numpy, a block of the table at a time.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.quality import markdown
from edgerec.bundle import Bundle
from edgerec.files import write_result
from edgerec.runtime import Recommender
from edgerec.runtime.contents import Contents, read
from edgerec.runtime.engine import Ranker
from edgerec.runtime.exact import best
from edgerec.runtime.layout import GRAPH, FloatArray

ITEMS, SIZE, HISTORY, ANSWERS, REPEATS = 1_000_000, 64, 50, 30, 7
VARIANTS = ("as shipped", "as it was", "not packed")
BLOCK = 1 << 15  # items: 8 MB of floats, which stay in the last cache


def memory() -> dict[str, float]:
    """Return this process's memory in MB: resident, private (written, or nobody else's) and its highest resident."""
    rollup, status = (Path(f"/proc/self/{name}").read_text() for name in ("smaps_rollup", "status"))
    dirty, anonymous, resident, peak = (
        int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024 / 1e6  # type: ignore[index]
        for name, text in (("Private_Dirty", rollup), ("Anonymous", rollup), ("Rss", rollup), ("VmHWM", status))
    )
    return {"private": max(dirty, anonymous), "resident": resident, "peak": peak}


def open_once(path: Path, variant: str) -> dict[str, Any]:
    """Open a bundle step by step in this process, and answer; call it once a process."""
    import onnxruntime  # noqa: F401  # its import is no part of opening a file

    if variant != "as shipped":
        reshape_engine(variant)
    steps: dict[str, dict[str, float]] = {}
    start = memory()

    def step(name: str, work: Callable[[], Any]) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        result = work()
        steps[name] = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - processor}
        return result

    bundle = step("hashes", lambda: Bundle(path))
    contents = step("contents", lambda: read(bundle))
    ranker = step("onnxruntime", lambda: Ranker(bundle, contents, 1))
    if variant != "as it was":
        bundle.release()
    opened = memory()
    step("first id", lambda: contents.rows[f"item-{contents.n_items // 2}"])
    histories = np.random.default_rng(0).integers(1, contents.n_items, (ANSWERS, 1, HISTORY))
    answers = [seconds(lambda row=row: ranker.rank(row, 10)) for row in histories]  # type: ignore[misc]
    grown = {name: {key: at[key] - start[key] for key in at} for name, at in (("opened", opened), ("asked", memory()))}
    user = ranker.rank(histories[0], 10).user[0]
    blocks = [seconds(lambda: numpy_answer(contents, user)) for _ in range(ANSWERS)]
    return {"steps": steps, "grown_mb": grown, "answer": median(answers), "answer_numpy": median(blocks)}


def seconds(work: Callable[[], object]) -> float:
    """Return what a call takes of the processor."""
    start = time.process_time()
    work()
    return time.process_time() - start


def reshape_engine(variant: str) -> None:
    """Have onnxruntime open graphs as ``variant`` says."""
    import onnxruntime

    class Options(onnxruntime.SessionOptions):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            if variant == "not packed":
                self.add_session_config_entry("session.disable_prepacking", "1")

        def add_initializer(self, name: str, value: Any) -> None:
            if variant != "as it was":
                super().add_initializer(name, value)

    onnxruntime.SessionOptions = Options


def numpy_answer(contents: Contents, user: FloatArray) -> list[int]:
    """Return the best ten rows for a user vector, by products of float blocks outside onnxruntime."""
    codes, scale = contents.external["item_out.i8"], contents.external["item_out.scale"]
    starts = range(0, codes.shape[1], BLOCK)
    parts = [user @ codes[:, start : start + BLOCK].astype(np.float32) for start in starts]
    return best(np.concatenate(parts) * scale + contents.external["bias.f32"], 10)


def sizes(path: Path) -> dict[str, Any]:
    """Return what the file holds, in MB, and whether any table lies in it twice."""
    bundle = Bundle(path)
    listed = bundle.manifest["members"]
    megabytes = {name: entry["size"] / 1e6 for name, entry in listed.items()}
    large = [entry["sha256"] for entry in listed.values() if entry["size"] > 1e6]
    return {
        "file": path.stat().st_size / 1e6,
        "members": megabytes,
        "item table, scales and bias": sum(megabytes[name] for name in ("item_out.i8", "item_out.scale", "bias.f32")),
        "text table and scales": sum(megabytes[name] for name in ("text.i8", "text.scale")),
        "graph": megabytes[GRAPH],
        "one copy of each": len(set(large)) == len(large) and path.stat().st_size < 1.001e6 * sum(megabytes.values()),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians over runs; the least sum beside them, since the wall's clock counts what else the machine does."""
    load = {
        clock: [sum(s[clock] for n, s in run["steps"].items() if n != "first id") for run in runs]
        for clock in ("wall", "cpu")
    }
    grown = {
        when: {key: median(run["grown_mb"][when][key] for run in runs) for key in runs[0]["grown_mb"][when]}
        for when in ("opened", "asked")
    }
    return {
        "load_s": {clock: {"median": median(values), "least": min(values)} for clock, values in load.items()},
        "steps_cpu_s": {name: median(run["steps"][name]["cpu"] for run in runs) for name in runs[0]["steps"]},
        "grown_mb": grown,
        "answer_cpu_ms": 1e3 * median(run["answer"] for run in runs),
        "answer_numpy_cpu_ms": 1e3 * median(run["answer_numpy"] for run in runs),
    }


def report(result: dict[str, Any]) -> str:
    """Return a result as Markdown: what an item's tables weigh, then a row per variant."""
    mb, machine = result["sizes_mb"], result["environment"]
    load = max(machine["load_average"])
    said = (
        f"{result['items']:,} items of {result['embedding_size']} dimensions: {mb['file']:.0f} MB, of which the item "
        f"table with scales and biases {mb['item table, scales and bias']:.1f} MB, the text table with scales "
        f"{mb['text table and scales']:.1f} MB; one copy of each: {'yes' if mb['one copy of each'] else 'no'}. "
        f"{machine['cpu']}, onnxruntime {machine['packages']['onnxruntime']}, one thread, {result['repeats']} "
        f"fresh processes each, medians; load average up to {load:.0f}, so the wall's clock counts others' work too."
    )
    head = ["", "open: CPU s (hashes, contents, onnxruntime)", "wall s, least", "private MB, opened"]
    head += ["resident MB, opened", "private MB, asked", "answer, CPU ms"]
    lines = []
    for name, row in result["variants"].items():
        steps = ", ".join(f"{row['steps_cpu_s'][step]:.2f}" for step in ("hashes", "contents", "onnxruntime"))
        opened, asked = row["grown_mb"]["opened"], row["grown_mb"]["asked"]
        cells = [name, f"{row['load_s']['cpu']['median']:.2f} ({steps})", f"{row['load_s']['wall']['least']:.2f}"]
        cells += [f"{opened['private']:.0f}", f"{opened['resident']:.0f}", f"{asked['private']:.0f}"]
        lines.append([*cells, f"{row['answer_cpu_ms']:.1f}"])
    shipped = result["variants"][VARIANTS[0]]
    after = (
        f"Private memory grew to {result['growth over the tables of recommender.onnx']:.2f} of the tables that the "
        f"graph uses. The first look-up of an id: {1e3 * shipped['steps_cpu_s']['first id']:.1f} ms. The same answer "
        f"in numpy, outside onnxruntime: {shipped['answer_numpy_cpu_ms']:.1f} ms."
    )
    return f"{said}\n\n{markdown(head, lines)}\n\n{after}"


def main() -> None:
    """Make the bundle, measure, and write a JSON file with its report beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("million-bundle.json"))
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--variant", choices=VARIANTS, default=VARIANTS[0], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.open:
        sys.stdout.write(json.dumps(open_once(asked.open, asked.variant)))
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "million.edgerec"
        shape = ["--items", str(asked.items), "--embedding-size", str(SIZE), "--out", str(path)]
        subprocess.run([sys.executable, "-m", "edgerec.export.synthetic", *shape], check=True)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
        for _ in range(REPEATS):
            for name in VARIANTS:
                command = [
                    sys.executable,
                    "-m",
                    "edgerec.benchmarks.million_bundle",
                    "--open",
                    str(path),
                    "--variant",
                    name,
                ]
                runs[name].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        megabytes, recommender = sizes(path), Recommender.load(path)
        assert [one.item for one in recommender.recommend(["item-1"], 3)]
    variants = {name: summary(values) for name, values in runs.items()}
    table = megabytes["item table, scales and bias"] + megabytes["members"]["popularity.f32"]
    result = {
        "schema": "edgerec-million-1",
        "items": asked.items,
        "embedding_size": SIZE,
        "repeats": REPEATS,
        "sizes_mb": megabytes,
        "growth over the tables of recommender.onnx": variants[VARIANTS[0]]["grown_mb"]["opened"]["private"] / table,
        "variants": variants,
        "environment": environment(),
    }
    write_result(asked.out, result, report(result))
    sys.stdout.write(report(result) + "\n")


if __name__ == "__main__":
    main()
