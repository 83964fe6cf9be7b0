r"""``make bench``: the measurements behind docs/benchmarking.md, under half an hour on two cores.

    python -m edgerec.benchmarks.run_bench --study DIR --peers PYTHON --peer-models DIR \
        --sasrec PYTHON --sasrec-model DIR

DIR of the study holds ``tiny.edgerec``, ``static.edgerec`` and the folder ``tiny`` (a seed of ``make quality``). Peers
are measured where an interpreter with their packages and the folder that ``peer_models.py`` made are named. Results go
to ``benchmarks/results``, the report beside them. SASRec is what ``peer_sasrec.py`` left in a folder and
``peer_sasrec_bench.py`` exported; its name says for how many epochs it was trained, so that a short training shows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from edgerec.benchmarks.devices import no_tensorrt
from edgerec.cli import main as run

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PEERS = {
    "MiniLM-L6 INT8 (optimum)": "MiniLM:encode",
    "MiniLM-L6 INT8 (optimum), exact": "MiniLM:search",
    "MiniLM-L6 (sentence-transformers)": "SentenceTransformers:encode",
    "MiniLM-L6 (sentence-transformers), exact": "SentenceTransformers:search",
    "MiniLM-L6 (sentence-transformers), profile": "SentenceTransformers:recommend",
    "MiniLM-L6 (fastembed)": "FastEmbed:encode",
    "model2vec": "Model2Vec:encode",
    "model2vec, exact": "Model2Vec:search",
    "model2vec, usearch": "Model2Vec:search:index=usearch",
    "model2vec, faiss": "Model2Vec:search:index=faiss",
}
PRECISIONS = ("fp32", "fp16", "int8-dynamic")  # beside the one that ships
PARTS = ("subjects", "elsewhere", "precisions", "threads", "scenarios", "compare", "lean")
SASREC = {"RecTools": "Recommend", "torch": "Network", "onnxruntime": "OnnxRuntime"}


QUICK = ("--seconds", "0.2", "--rounds", "1", "--cold", "1")
LENGTH = ("--seconds", "1", "--count", "700", "--cold", "3")


def measure(arguments: Sequence[str], out: Path) -> None:
    """Run ``edgerec bench run``; a cell that failed is in the result, and stops nothing.

    Raises:
        ClickException: There is no result of this run.
    """
    began = time.time_ns()
    command = [sys.executable, "-m", "edgerec", "bench", "run", *arguments, "--out", str(out)]
    code = subprocess.run(command, check=False).returncode
    if not out.exists() or out.stat().st_mtime_ns < began:
        raise click.ClickException(f"bench run ended with code {code}, and wrote no {out.name}: nothing was measured")


def peer_options(python: Path | None, models: Path | None) -> list[str]:
    """Return what names the peers, or nothing where they are not at hand."""
    if python is None or models is None:
        return []
    file = Path(__file__).with_name("peer_text.py")
    options = []
    for name, place in PEERS.items():
        options += ["--peer", f"{name}={python}:{file}:{place}:folder={models}"]
    return options


def sasrec_options(python: Path | None, model: Path | None) -> list[str]:
    """Return what names SASRec in its three ways, or nothing where it is not at hand."""
    if python is None or model is None:
        return []
    epochs = json.loads((model / "peer.json").read_text("utf-8"))["chosen"]["epochs"]
    file = Path(__file__).with_name("peer_sasrec_bench.py")
    options = []
    for name, place in SASREC.items():
        options += ["--peer", f"SASRec ({epochs} epochs), {name}={python}:{file}:{place}:recommend:folder={model}"]
    return options


def exported(student: Path, folder: Path) -> list[str]:
    """Return the files of a student in each further precision."""
    paths = [str(folder / f"{student.name}-{precision}.edgerec") for precision in PRECISIONS]
    for precision, path in zip(PRECISIONS, paths, strict=True):
        command = [sys.executable, "-m", "edgerec", "export", str(student), "--precision", precision, "--out", path]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return paths


def kit_options(student: Path, folder: Path) -> list[str]:
    """Return what names a student's TensorRT kit, its engines built; nothing where there can be none."""
    if no_tensorrt(folder):
        return []  # the row will say why
    edgerec = [sys.executable, "-m", "edgerec"]
    commands = [["run-kit", str(folder)]]
    if not folder.exists():
        commands.insert(0, ["export", str(student), "--target", "tensorrt", "--out", str(folder)])
    for command in commands:
        if code := subprocess.run([*edgerec, *command], check=False, stdout=sys.stderr).returncode:
            click.echo(f"edgerec {command[0]} ended with code {code}; see above", err=True)
    return ["--kit", str(folder)] if folder.exists() else []


@click.command()
@click.option("--study", type=click.Path(path_type=Path), default=ROOT / "build/quality/quality-ml-100k/seed-0")
@click.option("--peers", type=click.Path(path_type=Path), help="Python of the peers' environment.")
@click.option("--peer-models", type=click.Path(path_type=Path), help="What peer_models.py made.")
@click.option("--sasrec", type=click.Path(path_type=Path), help="Python of SASRec's environment.")
@click.option("--sasrec-model", type=click.Path(path_type=Path), help="What peer_sasrec.py made.")
@click.option("--data", default="ml-100k", show_default=True, help="What the study is of, by name or folder.")
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Some of the parts.  [default: all]")
@click.option("--quick", is_flag=True, help="To see that everything runs; the numbers mean nothing.")
def main(
    study: Path,
    peers: Path | None,
    peer_models: Path | None,
    sasrec: Path | None,
    sasrec_model: Path | None,
    data: str,
    only: tuple[str, ...],
    quick: bool,
) -> None:
    """Measure what the document shows."""
    tiny, static = (study / f"{name}.edgerec" for name in ("tiny", "static"))
    if not tiny.exists() or not static.exists():
        raise click.UsageError(
            f"{study} holds no tiny.edgerec and static.edgerec; make quality trains them, --study names them"
        )
    parts, model = only or PARTS, ["--model", str(study / "tiny")]

    def bench(suffix: str, *arguments: str) -> None:
        length = QUICK if quick else LENGTH
        measure([*arguments, *length, "--data", data], RESULTS / f"bench-{Path(data).name}{suffix}.json")

    kinds = [f"--kind={name}" for name in ("recommend", "session", "search")]
    if "subjects" in parts:
        devices = [f"--device={name}" for name in ("cpu-ort", "openvino", "web", "cpu-torch")]
        others = [*peer_options(peers, peer_models), *sasrec_options(sasrec, sasrec_model)]
        bench("", str(tiny), str(static), *devices, *model, *teacher_of(study), *kinds, "--kind=encode", *others)
    if "elsewhere" in parts:  # what is not here is a row that says so
        devices = [f"--device={name}" for name in ("cuda-torch", "cuda-ort", "tensorrt", "jetson")]
        with TemporaryDirectory() as folder:
            devices += kit_options(study / "tiny", Path(folder) / "kit")
            bench("-elsewhere", str(tiny), *devices, *model, *kinds, "--kind=encode")
    if "precisions" in parts:
        with TemporaryDirectory() as folder:
            files = [str(tiny), *exported(study / "tiny", Path(folder))]
            bench("-precisions", *files, "--kind=recommend", "--kind=search", "--kind=encode")
    if "threads" in parts:
        bench("-2-threads", str(tiny), *kinds, "--kind=encode", "--threads", "2")
    if "scenarios" in parts:
        scenarios = [f"--scenario={name}" for name in ("single-stream", "multi-stream", "server", "offline")]
        bench("-scenarios", str(tiny), *kinds, *scenarios)
    if "compare" in parts:
        measure_compared(tiny, static)
    if "lean" in parts:
        measure_lean(tiny, quick)


def teacher_of(study: Path) -> list[str]:
    """Return what names a study's teacher, where it is kept."""
    return ["--model", str(study / "teacher")] if (study / "teacher").exists() else []


def measure_compared(tiny: Path, static: Path) -> None:
    """Compare two files, and one with itself, in interleaved rounds."""
    for other in (tiny, static):
        out = RESULTS / f"compare-tiny-{other.stem}.json"
        compare = [sys.executable, "-m", "edgerec", "bench", "compare", str(tiny), str(other), "--out", str(out)]
        subprocess.run([*compare, "--kind=recommend", "--kind=search", "--seconds=1"], check=True)


def measure_lean(tiny: Path, quick: bool) -> None:
    """Measure what the runtime adds to an app.

    Raises:
        ClickException: It is over its budgets.
    """
    lean = [sys.executable, "-m", "edgerec.benchmarks.lean", str(tiny), "--out", str(RESULTS / "lean-ml-100k.json")]
    if subprocess.run([*lean, *(["--rounds", "1"] if quick else [])], check=False).returncode:
        raise click.ClickException("the runtime is over its budgets, or was not measured; see above")


if __name__ == "__main__":
    run(main)
