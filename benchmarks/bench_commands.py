"""``edgerec bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgerec.benchmarks.adapters import KINDS
from edgerec.benchmarks.scenarios import SCENARIOS
from edgerec.commands import json_option

FILE = click.Path(path_type=Path)


@click.group()
def bench() -> None:
    """Measure speed, memory, start and accuracy; compare, report and audit."""


@bench.command("run")
@click.argument("bundles", nargs=-1, type=FILE)
@click.option(
    "--device", "devices", multiple=True, default=("cpu-ort",), show_default=True, help="Where; see the docs."
)
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, default=KINDS, show_default=True)
@click.option("--scenario", "scenarios", type=click.Choice(SCENARIOS), multiple=True, default=SCENARIOS[:1])
@click.option("--model", "models", type=FILE, multiple=True, help="A model folder, for torch.")
@click.option("--peer", "peers", multiple=True, help="NAME=[PYTHON]:FILE.py:Class:kind[:option=value]...")
@click.option("--threads", type=click.IntRange(1), multiple=True, default=(1,), show_default=True)
@click.option("--data", "source", help="The data set that inputs and accuracy come from.  [default: golden requests]")
@click.option("--seconds", type=float, default=10.0, show_default=True, help="The least duration of a run.")
@click.option("--count", type=int, default=1024, show_default=True, help="The fewest queries of a run.")
@click.option("--bound-ms", type=float, default=10.0, show_default=True, help="What a server's p99 may be.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Processes per cell.")
@click.option("--cold", type=click.IntRange(0), default=5, show_default=True, help="Cold starts per subject.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of samples, schedule and order.")
@click.option("--timeout", type=float, default=300.0, show_default=True, help="Seconds a process may take.")
@click.option("--rss-limit-mb", type=float, default=4096.0, show_default=True, help="Memory a process may hold.")
@click.option("--out", type=FILE, help="File for the result as JSON; its tables go beside it as Markdown.")
@json_option
def run(out: Path | None, as_json: bool, **options: Any) -> None:
    """Measure bundles, model folders and peers: every cell in new processes, interleaved."""
    from edgerec.benchmarks.bench import measured
    from edgerec.benchmarks.tables import markdown
    from edgerec.files import write_bytes, write_json

    result = measured(say=lambda line: click.echo(line, err=True), **options)
    if out:
        write_json(out, result)
        write_bytes(out.with_suffix(".md"), markdown(result).encode())
        click.echo(f"wrote {out} and {out.with_suffix('.md')}", err=True)
    click.echo(markdown(result))
    if as_json:
        click.echo(json.dumps(result))
    if any(cell["status"] == "failed" for cell in result["cells"]):
        raise click.exceptions.Exit(1)
