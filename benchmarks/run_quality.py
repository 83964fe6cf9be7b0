"""``make quality``: the studies behind docs/quality.md and docs/compression.md, hours in all; none is made twice.

    python -m edgerec.benchmarks.run_quality --data DIR     folders onlineretail and amazon-industrial in DIR
    python -m edgerec.benchmarks.run_quality --only ml-100k

Models and cells go to ``build/quality``; runs of peers are taken from ``build/peers/SET`` (``make peers``); results to
``benchmarks/results``. A set that is not there is passed over, and the summary says so.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import click

from edgerec.cli import main as run
from edgerec.files import write_bytes
from edgerec.sources import SOURCES

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


class Planned(NamedTuple):
    """One part of a study; the parts of a study share its teachers."""

    data: str
    split: str = "leave-one-out"
    seeds: int = 3
    part: str = "main"
    steps: int | None = None  # of a student's training

    @property
    def study(self) -> str:
        """The name of its study."""
        return f"quality-{self.data}" + ("" if self.split == "leave-one-out" else f"-{self.split}")

    @property
    def name(self) -> str:
        """The name of its result."""
        return self.study if self.part == "main" else f"{self.part}-{self.data}"


PLANNED = (
    Planned("ml-100k"),
    Planned("amazon-industrial"),
    Planned("onlineretail"),
    Planned("onlineretail", "temporal"),
    Planned("completejourney", seeds=1),
    Planned("completejourney", "temporal", seeds=1),
    Planned("ml-100k", part="ablation", steps=500),
    Planned("amazon-industrial", part="ablation", steps=300),
    Planned("ml-100k", part="sparsity"),
    Planned("ml-100k", part="compression"),
    Planned("onlineretail", part="compression", seeds=1),
    Planned("amazon-industrial", part="compression", seeds=1),
    Planned("ml-100k", part="pruning", seeds=1),
)


class Further(NamedTuple):
    """A result beside the studies: commands after ``python -m``, formatted with where things are."""

    name: str
    data: str
    commands: tuple[tuple[str, ...], ...]
    peer: str | None = None  # whose runs it is about


EVALUATE = ("edgerec", "evaluate", "{source}", "--out", "{out}")
CROSS = ("edgerec", "fine-tune-cross", "{source}", "--teacher", "{study}/seed-0/teacher", "--out", "{study}/cross")
RERANK = ("--model", "{study}/cross", "--rerank", "{study}/seed-0/teacher", "--model", "{study}/seed-0/teacher")
SPEED = ("edgerec.benchmarks.training_speed", "{source}", "--out", "{out}")
FURTHER = (
    Further("training-ml-100k", "ml-100k", (SPEED,)),
    Further("training-amazon-industrial", "amazon-industrial", (SPEED,)),
    Further("training-completejourney", "completejourney", (SPEED,)),
    Further("cross-ml-100k", "ml-100k", ((*CROSS, "--pairs", "10000"), (*EVALUATE, *RERANK, "--users", "400"))),
    *(
        Further(f"peers-{data}", data, ((*EVALUATE, "--run", "SASRec={peers}"),), f"quality-{data}")
        for data in ("onlineretail", "completejourney")
    ),
)


def source(name: str, folder: Path | None) -> str | None:
    """Return where a data set is: its own name if it can be fetched, its folder if that is there, else None."""
    if name in SOURCES:
        return name
    return str(folder / name) if folder and (folder / name).is_dir() else None


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the data sets that cannot be fetched.")
@click.option("--work", type=click.Path(path_type=Path), default=ROOT / "build", help="For models, cells and peers.")
@click.option("--only", multiple=True, help="Names of data sets.")
@click.option("--seeds", type=click.IntRange(1), help="For every study.  [default: the plan's]")
def main(data: Path | None, work: Path, only: tuple[str, ...], seeds: int | None) -> None:
    """Run the studies that are planned."""
    for one in PLANNED:
        if only and one.data not in only:
            continue
        if (found := source(one.data, data)) is None:
            click.echo(f"{one.name}: data not at hand; expected a folder {one.data} in --data")
            continue
        command = [sys.executable, "-m", "edgerec", "evaluate", found, "--split", one.split, "--part", one.part]
        command += ["--study", str(work / "quality" / one.study), "--seeds", str(seeds or one.seeds)]
        command += ["--steps", str(one.steps)] if one.steps else []
        peers = work / "peers" / one.name
        command += ["--run", f"SASRec={peers}"] if (peers / "peer.json").exists() else []
        click.echo(f"== {one.name}")
        subprocess.run([*command, "--out", str(RESULTS / f"{one.name}.json")], check=True)
    for more in FURTHER:
        found = source(more.data, data)
        peers = work / "peers" / (more.peer or more.name)
        if (not only or more.data in only) and found and (not more.peer or (peers / "peer.json").exists()):
            click.echo(f"== {more.name}")
            make(more, found, work / "quality" / f"quality-{more.data}", peers, work / "quality" / f"{more.name}.json")


def make(more: Further, found: str, study: Path, peers: Path, out: Path) -> None:
    """Run what of a further result's commands has left no file yet, and take the result among the others."""
    places = {"source": found, "study": study, "peers": peers, "out": out}
    for template in more.commands:
        words = [word.format(**places) for word in template]
        if not Path(words[words.index("--out") + 1]).exists():
            subprocess.run([sys.executable, "-m", *words], check=True)
    for suffix in (".json", ".md"):
        write_bytes(RESULTS / f"{more.name}{suffix}", out.with_suffix(suffix).read_bytes())


if __name__ == "__main__":
    run(main)
