"""``edgerec bench``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from edgerec.benchmarks.adapters import KINDS, TORCH_MODES
from edgerec.benchmarks.scenarios import SCENARIOS
from edgerec.commands import json_option

FILE = click.Path(path_type=Path)


@click.group()
def bench() -> None:
    """Measure speed, memory, start and accuracy; compare, report and audit."""


def percent(ctx: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """Return ``5%`` as 0.05."""
    try:
        found = None if value is None else float(value.removesuffix("%")) / 100
        if found is None or 0 <= found < math.inf:
            return found
    except ValueError:
        pass
    raise click.BadParameter(f"got {value}; expected a percentage such as 5%")


@bench.command("run")
@click.argument("bundles", nargs=-1, type=FILE)
@click.option(
    "--device", "devices", multiple=True, default=("cpu-ort",), show_default=True, help="Where; see the docs."
)
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, default=KINDS, show_default=True)
@click.option("--scenario", "scenarios", type=click.Choice(SCENARIOS), multiple=True, default=SCENARIOS[:1])
@click.option("--model", "models", type=FILE, multiple=True, help="A model folder, for torch.")
@click.option(
    "--torch-mode",
    "torch_modes",
    type=click.Choice(TORCH_MODES),
    multiple=True,
    default=TORCH_MODES,
    show_default=True,
    help="Of torch's cells; every process of a compiled one compiles first.",
)
@click.option("--kit", "kits", type=FILE, multiple=True, help="A bundle's TensorRT kit, as run-kit opened it.")
@click.option("--peer", "peers", multiple=True, help="NAME=[PYTHON]:FILE.py:Class:kind[:option=value]...")
@click.option("--threads", type=click.IntRange(1), multiple=True, default=(1,), show_default=True)
@click.option("--data", "source", help="The data set that inputs and accuracy come from.  [default: golden requests]")
@click.option("--seconds", type=float, default=10.0, show_default=True, help="The least duration of a run.")
@click.option("--count", type=int, default=1024, show_default=True, help="The fewest queries of a run.")
@click.option("--bound-ms", type=float, default=10.0, show_default=True, help="What a server's p99 may be.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Processes per cell.")
@click.option("--cold", type=click.IntRange(0), default=5, show_default=True, help="Cold starts at least.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of samples, schedule and order.")
@click.option("--timeout", type=float, default=300.0, show_default=True, help="Seconds a process may take.")
@click.option("--rss-limit-mb", type=float, default=4096.0, show_default=True, help="Memory a process may hold.")
@click.option("--host", help="Measure over ssh on this machine, where edgerec and the files are.")
@click.option("--remote-command", default="edgerec", show_default=True, help="What starts edgerec over there.")
@click.option("--power-mode", type=int, help="Set nvpmodel's mode meanwhile (Jetson, root).  [default: left as it is]")
@click.option("--jetson-clocks", is_flag=True, help="Fix a Jetson's clocks meanwhile (root).")
@click.option("--out", type=FILE, help="File for the result as JSON; its tables go beside it as Markdown.")
@json_option
def run(
    host: str | None,
    remote_command: str,
    power_mode: int | None,
    jetson_clocks: bool,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure bundles, model folders and peers: every cell in new processes, interleaved."""
    from edgerec.benchmarks.bench import measured
    from edgerec.benchmarks.jetson import pinned, remote
    from edgerec.benchmarks.tables import markdown
    from edgerec.files import cache_dir, write_result

    if host:
        result = remote(host, remote_command, passed_on(click.get_current_context()))
    else:
        with pinned(power_mode, jetson_clocks, cache_dir() / "jetson_clocks"):
            result = measured(say=lambda line: click.echo(line, err=True), **options)
    if out:
        write_result(out, result, markdown(result))
        click.echo(f"wrote {out} and {out.with_suffix('.md')}", err=True)
    click.echo(markdown(result))
    if as_json:
        click.echo(json.dumps(result))
    if any(cell["status"] == "failed" for cell in result["cells"]):
        raise click.exceptions.Exit(1)


def passed_on(ctx: click.Context) -> list[str]:
    """Return the arguments of ``bench run`` for another machine: those given here, less where to measure and write."""
    kept: list[str] = [str(path) for path in ctx.params["bundles"]]
    for option in ctx.command.params:
        name, value = option.name or "", ctx.params.get(option.name or "")
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not given or name in ("bundles", "host", "remote_command", "out", "as_json"):
            continue
        values = value if isinstance(value, tuple) else (value,)
        kept += [word for one in values for word in ([option.opts[0]] if one is True else [option.opts[0], str(one)])]
    return kept


@bench.command("compare")
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--fail-if-slower", "limit", callback=percent, metavar="5%", help="Exit with 1 where B is shown to be.")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, default=KINDS, help="Of two bundles.")
@click.option("--seconds", type=float, default=3.0, show_default=True, help="Of each run of two bundles.")
@click.option("--rounds", type=click.IntRange(3), default=7, show_default=True, help="Of two bundles.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of two bundles.")
@click.option("--out", type=FILE, help="File for the comparison as JSON; its table goes beside it as Markdown.")
@json_option
def compare(
    a: Path,
    b: Path,
    limit: float | None,
    kinds: tuple[str, ...],
    seconds: float,
    rounds: int,
    threads: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare two results, or measure two bundles in interleaved pairs; B over A."""
    from edgerec.benchmarks import compare as comparing
    from edgerec.benchmarks.bench import side_by_side
    from edgerec.benchmarks.schema import read
    from edgerec.errors import UsageError
    from edgerec.files import write_result

    if (a.suffix == ".json") != (b.suffix == ".json"):
        raise UsageError(f"got {a} and {b}; expected two results or two bundles")
    if a.suffix == ".json":
        rows = comparing.pairs(read(a), read(b))
    else:
        rows = side_by_side(a, b, kinds, seconds, rounds, threads, lambda line: click.echo(line, err=True))
    found = comparing.record(a, b, rows, limit)
    click.echo(comparing.markdown(rows))
    if out:
        write_result(out, found, comparing.report(found))
        click.echo(f"wrote {out} and {out.with_suffix('.md')}", err=True)
    if as_json:
        click.echo(json.dumps(found))
    if not found["passes"]:
        click.echo(f"{found['stopped']} of {len(rows)} cells are lost, or slower by more than {limit:.0%}", err=True)
        raise click.exceptions.Exit(1)


@bench.command("report")
@click.argument("results", nargs=-1, type=FILE, required=True)
@click.option("--out", type=FILE, required=True, help="An .html, .md or .csv file.")
def report(results: tuple[Path, ...], out: Path) -> None:
    """Write results as one page that works offline, as Markdown or as CSV."""
    from edgerec.benchmarks.report import FORMATS
    from edgerec.benchmarks.schema import read
    from edgerec.errors import UsageError
    from edgerec.files import write_bytes

    if out.suffix not in FORMATS:
        raise UsageError(f"got --out {out}; expected a file that ends in {', '.join(FORMATS)}")
    stems = [path.stem for path in results]
    found = {path.stem if stems.count(path.stem) == 1 else str(path): read(path) for path in results}
    write_bytes(out, FORMATS[out.suffix](found).encode())
    click.echo(f"wrote {out}")


@bench.command("audit")
@click.argument("results", nargs=-1, type=FILE, required=True)
@json_option
def audit(results: tuple[Path, ...], as_json: bool) -> None:
    """Say whether results can be believed: answers while timed, repeated inputs, goldens, the harness's own cost."""
    from edgerec.benchmarks.audit import checks
    from edgerec.benchmarks.schema import read

    found = {str(path): checks(read(path)) for path in results}
    for path, rows in found.items():
        for row in rows:
            click.echo(f"{'pass' if row['passes'] else 'FAIL'}  {path}: {row['what']}")
    if as_json:
        click.echo(json.dumps(found))
    if not all(row["passes"] for rows in found.values() for row in rows):
        raise click.exceptions.Exit(1)
