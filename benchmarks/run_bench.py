r"""``make bench``: the measurements behind docs/benchmarking.md, about half an hour on two cores.

    python -m edgerec.benchmarks.run_bench --study DIR --peers PYTHON --peer-models DIR \
        --sasrec PYTHON --sasrec-model DIR

DIR of the study holds ``tiny.edgerec``, ``static.edgerec`` and the folder ``tiny`` (a seed of ``make quality``). Peers
are measured where an interpreter with their packages and the folder that ``peer_models.py`` made are named. Results go
to ``benchmarks/results``, the report beside them. SASRec is what ``peer_sasrec.py`` left in a folder and
``peer_sasrec_bench.py`` exported; its name says for how many epochs it was trained, so that a short training shows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from edgerec.benchmarks import peer_text
from edgerec.benchmarks.bench import loaded
from edgerec.benchmarks.devices import no_tensorrt
from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.inputs import from_data
from edgerec.benchmarks.peer_sasrec_bench import GRAPH
from edgerec.benchmarks.processes import importable
from edgerec.benchmarks.quality import markdown
from edgerec.cli import main as run
from edgerec.files import write_json, write_result

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PEERS = {  # the first with MiniLM's vectors is what the others' are set against
    "MiniLM-L6 (sentence-transformers)": "SentenceTransformers:encode",
    "MiniLM-L6 (sentence-transformers), exact": "SentenceTransformers:search",
    "MiniLM-L6 (sentence-transformers), profile": "SentenceTransformers:recommend",
    "MiniLM-L6 INT8 (optimum)": "MiniLM:encode",
    "MiniLM-L6 INT8 (optimum), exact": "MiniLM:search",
    "MiniLM-L6 (fastembed)": "FastEmbed:encode",
    "model2vec": "Model2Vec:encode",
    "model2vec, exact": "Model2Vec:search",
    "model2vec, usearch": "Model2Vec:search:index=usearch",
    "model2vec, faiss": "Model2Vec:search:index=faiss",
}
PRECISIONS = ("fp32", "fp16", "int8-dynamic")  # beside the one that ships
PARTS = (  # methods of Job
    "subjects",
    "compiled",
    "elsewhere",
    "precisions",
    "threads",
    "scenarios",
    "compare",
    "lean",
    "referees",
)
KINDS = tuple(f"--kind={name}" for name in ("recommend", "session", "search", "encode"))
SASREC = {"RecTools": "Recommend", "onnxruntime": "OnnxRuntime"}


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
        home = models / getattr(peer_text, place.partition(":")[0]).home
        options += ["--peer", f"{name}={python}:{file}:{place}:folder={models}:file={home}"]
    return options


def sasrec_options(python: Path | None, model: Path | None) -> list[str]:
    """Return what names SASRec in its two ways, or nothing where it is not at hand."""
    if python is None or model is None:
        return []
    epochs = json.loads((model / "peer.json").read_text("utf-8"))["chosen"]["epochs"]
    file = Path(__file__).with_name("peer_sasrec_bench.py")
    options = []
    for name, place in SASREC.items():
        measured = f"folder={model}:file={model / (GRAPH if place == 'OnnxRuntime' else 'model.pkl')}"
        options += ["--peer", f"SASRec ({epochs} epochs), {name}={python}:{file}:{place}:recommend:{measured}"]
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


@dataclass(frozen=True)
class Job:
    """What is measured; a method per part.

    Attributes:
        study: Folder of ``tiny.edgerec``, ``static.edgerec``, the folder ``tiny`` and perhaps ``teacher``.
        data: What the study is of, by name or folder.
        others: Options that name the peers.
        peers: Python with the peers and ``mlcommons-loadgen``, if there is one.
        quick: To see that everything runs.
    """

    study: Path
    data: str
    others: Sequence[str]
    peers: Path | None
    quick: bool

    @property
    def tiny(self) -> Path:
        """The student's file."""
        return self.study / "tiny.edgerec"

    @property
    def static(self) -> Path:
        """The static student's file."""
        return self.study / "static.edgerec"

    @property
    def models(self) -> list[str]:
        """What names the folders that torch runs."""
        names = ("tiny", "static", "teacher")
        return [f"--model={self.study / name}" for name in names if (self.study / name).exists()]

    def bench(self, suffix: str, *arguments: str) -> None:
        """Run ``bench run`` for one table."""
        length = QUICK if self.quick else LENGTH
        measure([*arguments, *length, "--data", self.data], RESULTS / f"bench-{Path(self.data).name}{suffix}.json")

    def subjects(self) -> None:
        """The main table."""
        devices = [f"--device={name}" for name in ("cpu-ort", "openvino", "web", "cpu-torch")]
        torch = (*self.models, "--torch-mode=eager")
        self.bench("", str(self.tiny), str(self.static), *devices, *torch, *KINDS, *self.others)

    def compiled(self) -> None:
        """What torch.compile brings the student; the main table does without, as each process would compile first."""
        self.bench("-compiled", f"--model={self.study / 'tiny'}", "--device=cpu-torch", "--kind=encode")

    def elsewhere(self) -> None:
        """What is not here is a row that says so."""
        devices = [f"--device={name}" for name in ("cuda-torch", "cuda-ort", "tensorrt", "jetson")]
        with TemporaryDirectory() as folder:
            devices += kit_options(self.study / "tiny", Path(folder) / "kit")
            self.bench("-elsewhere", str(self.tiny), *devices, f"--model={self.study / 'tiny'}", *KINDS)

    def precisions(self) -> None:
        """The student in each precision; float32 comes first, and the others are set against it."""
        with TemporaryDirectory() as folder:
            files = [*exported(self.study / "tiny", Path(folder)), str(self.tiny)]
            self.bench("-precisions", *files, "--kind=recommend", "--kind=search", "--kind=encode")

    def threads(self) -> None:
        """Two threads."""
        self.bench("-2-threads", str(self.tiny), *KINDS, "--threads", "2")

    def scenarios(self) -> None:
        """All scenarios; a session's rate is searched for as long as a whole history's, and shows no more."""
        scenarios = [f"--scenario={name}" for name in ("single-stream", "multi-stream", "server", "offline")]
        self.bench("-scenarios", str(self.tiny), "--kind=recommend", "--kind=search", *scenarios)

    def compare(self) -> None:
        """Two files, and one with itself, in interleaved rounds."""
        for other in (self.tiny, self.static):
            out = RESULTS / f"compare-tiny-{other.stem}.json"
            command = [sys.executable, "-m", "edgerec", "bench", "compare", str(self.tiny), str(other)]
            options = ["--kind=recommend", "--kind=search", "--seconds=1", "--out", str(out)]
            subprocess.run([*command, *options], check=True)

    def lean(self) -> None:
        """What the runtime adds to an app.

        Raises:
            ClickException: It is over its budgets.
        """
        out = str(RESULTS / "lean-ml-100k.json")
        lean = [sys.executable, "-m", "edgerec.benchmarks.lean", str(self.tiny), "--out", out]
        if subprocess.run([*lean, *(["--rounds", "1"] if self.quick else [])], check=False).returncode:
            raise click.ClickException("the runtime is over its budgets, or was not measured; see above")

    def referees(self) -> None:
        """LoadGen, a bare loop and hyperfine on the histories of the data.

        Raises:
            ClickException: They did not come to an end.
        """
        with TemporaryDirectory() as folder:
            asked = Path(folder) / "inputs.json"
            write_json(asked, from_data(*loaded(self.data))["recommend"])
            command = [str(self.peers), "-m", "edgerec.benchmarks.referee", str(self.tiny), str(asked)]
            environ = {**os.environ, "PYTHONPATH": str(importable(Path(folder)))}
            if subprocess.run([*command, str(RESULTS / "bench-referee.json")], check=False, env=environ).returncode:
                raise click.ClickException("the referees did not come to an end; see above")


def report(result: Mapping[str, Any]) -> str:
    """Return how long everything took as Markdown."""
    seconds, ran = result["seconds"], result["environment"]
    caption = f"{sum(seconds.values()) / 60:.1f} minutes in all, {ran['cores']} cores ({ran['cpu']})."
    lines = [["minutes", *(f"{one / 60:.1f}" for one in seconds.values())]]
    return f"{caption}\n\n{markdown(['', *seconds], lines)}\n"


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
    job = Job(study, data, [*peer_options(peers, peer_models), *sasrec_options(sasrec, sasrec_model)], peers, quick)
    if not job.tiny.exists() or not job.static.exists():
        raise click.UsageError(
            f"{study} holds no tiny.edgerec and static.edgerec; make quality trains them, --study names them"
        )
    seconds, short = dict[str, float](), list[str]()
    for part in only or PARTS:
        if part == "referees" and (peers is None or quick):
            click.echo("referees: passed over; --peers names a Python that has mlcommons-loadgen, and --quick has none")
            continue
        began = time.monotonic()
        try:
            getattr(job, part)()
        except (click.ClickException, subprocess.CalledProcessError) as error:
            # the other parts are measured all the same
            short.append(f"{part}: {error}")
        seconds[part] = time.monotonic() - began
    result = {"schema": "edgerec-make-bench-1", "seconds": seconds, "environment": environment()}
    click.echo(report(result))
    if not only and not quick:
        write_result(RESULTS / "make-bench.json", result, report(result))
    if short:
        raise click.ClickException("; ".join(short))


if __name__ == "__main__":
    run(main)
