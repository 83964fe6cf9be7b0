"""``edgerec recommend``, ``search``, ``similar``, ``explain``, ``delta`` and ``verify``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgerec.commands import json_option

if TYPE_CHECKING:
    from edgerec.runtime.naming import Recommendation

bundle_argument = click.argument("bundle", type=click.Path(path_type=Path))

k_option = click.option("--k", type=int, default=10, show_default=True, help="How many items.")


def deltas_option(name: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return an option that names deltas, again for several."""
    return click.option(
        name, "deltas", type=click.Path(path_type=Path), multiple=True, help=f"{text}  Again for several."
    )


def lines(path: Path) -> list[str]:
    """Return a file's lines that are not empty."""
    return [line for line in path.read_text("utf-8").splitlines() if line]


@click.command()
@bundle_argument
@click.argument("items", nargs=-1, metavar="[ITEM_ID]...")
@k_option
@click.option(
    "--candidates-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Item ids, one a line."
)
@click.option(
    "--exclude-seen/--include-seen", default=None, help="Leave out the history's items.  [default: the bundle's]"
)
@click.option("--skip-unknown", is_flag=True, help="Leave out unknown ids instead of failing.")
@click.option("--index", type=click.Choice(("exact", "usearch")), default="exact", show_default=True)
@json_option
def recommend(
    bundle: Path,
    items: tuple[str, ...],
    k: int,
    candidates_file: Path | None,
    exclude_seen: bool | None,
    skip_unknown: bool,
    index: str,
    as_json: bool,
) -> None:
    """Recommend items after a history, oldest first."""
    from edgerec.runtime.recommender import Recommender

    candidates = None
    if candidates_file:
        candidates = lines(candidates_file)
    recommender = Recommender.load(bundle, index=index)
    show(recommender.recommend(items, k, exclude_seen, candidates, skip_unknown), as_json)


@click.command()
@bundle_argument
@click.argument("query")
@k_option
@json_option
def search(bundle: Path, query: str, k: int, as_json: bool) -> None:
    """Search the catalogue by text."""
    from edgerec.runtime.recommender import Recommender

    show(Recommender.load(bundle).search(query, k), as_json)


@click.command()
@bundle_argument
@click.argument("item", metavar="ITEM_ID")
@k_option
@json_option
def similar(bundle: Path, item: str, k: int, as_json: bool) -> None:
    """Find the items nearest to one."""
    from edgerec.runtime.recommender import Recommender

    show(Recommender.load(bundle).similar(item, k), as_json)


@click.command()
@bundle_argument
@click.argument("items", nargs=-1, metavar="[ITEM_ID]...")
@click.option("--item", required=True, metavar="ITEM_ID", help="The item to explain.")
@click.option("--k", type=int, default=10, show_default=True, help="The list that the item may leave.")
@click.option("--words/--no-words", default=True, show_default=True, help="Explain the item's text too.")
@click.option("--figure", type=click.Path(dir_okay=False, path_type=Path), help="An .svg file to draw.")
@json_option
def explain(
    bundle: Path, items: tuple[str, ...], item: str, k: int, words: bool, figure: Path | None, as_json: bool
) -> None:
    """Explain an item's place after a history, oldest first."""
    from edgerec.files import write_bytes
    from edgerec.runtime.explain import explain as run
    from edgerec.runtime.explain_figure import svg
    from edgerec.runtime.recommender import Recommender

    found = run(Recommender.load(bundle), item, items, k, words)
    if figure:
        write_bytes(figure, svg(found).encode())
    if as_json:
        click.echo(json.dumps(found.to_json(), ensure_ascii=False))
        return
    click.echo(f"{found.item}\t{found.title}\trank {found.rank}\tscore {found.score:.4f}")
    click.echo(f"bias\t{found.bias:+.4f}\nrepeats\t{found.repeats:+.4f}")
    rank_without = {one.item: one for one in found.without}
    for event in sorted(found.events, key=lambda one: -abs(one.contribution)):
        other = rank_without[event.item]
        leaves = f", leaves the top {found.k}" if other.leaves else ""
        line = f"{event.contribution:+.4f}\t{event.item}\t{event.title}\t{event.age} events ago"
        click.echo(f"{line}\twithout it: rank {other.rank}{leaves}")
    for word in found.words:
        click.echo(f"word\t{word.word}\tocclusion {word.occlusion:+.4f}\tLIME {word.lime:+.4f}")


@click.command()
@bundle_argument
@click.option("--add", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A table of items.")
@click.option("--template", help="How the text of --add is made, where it was given for training.")
@click.option(
    "--remove", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Item ids to take out, one a line."
)
@deltas_option("--after", "The bundle's earlier deltas, in order.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .edgerec-delta file to write.")
def delta(
    bundle: Path, add: Path | None, template: str | None, remove: Path | None, deltas: tuple[Path, ...], out: Path
) -> None:
    """Write what is added to a bundle's catalogue, or removed, as a small file."""
    from edgerec.runtime.delta import write_delta
    from edgerec.runtime.later import read_later
    from edgerec.runtime.recommender import Recommender

    recommender = Recommender.load(bundle, deltas=deltas)
    items, columns = read_later(add, recommender.catalogue, template) if add else ({}, {})
    version = write_delta(recommender, items, lines(remove) if remove else [], out, columns)
    click.echo(
        f"{out}: version {version}, {out.stat().st_size} bytes; not signed: edgerec sign {out} --key PRIVATE.pem"
    )


@click.command()
@bundle_argument
@click.option(
    "--key", type=click.Path(path_type=Path), help="A public key, PEM: what is not signed with it is refused."
)
@deltas_option("--delta", "Its deltas, in order: they must apply.")
@json_option
def verify(bundle: Path, key: Path | None, deltas: tuple[Path, ...], as_json: bool) -> None:
    """Replay a bundle's golden requests on this device."""
    from edgerec.runtime.verify import verify as replay

    report = replay(bundle, key=key, deltas=deltas)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
        return
    click.echo(
        f"{bundle}: {report['requests']} requests and {report['texts']} texts as expected "
        f"(scores within {report['largest_score_difference']:.2g}); signature {report['signature']}"
    )
    if report["skipped"]:
        click.echo(f"texts not replayed: {report['skipped']}")


def show(found: list[Recommendation], as_json: bool) -> None:
    """Print an answer as lines of rank, id, title and score, parted by tabs, or as one JSON list."""
    if as_json:
        click.echo(json.dumps([entry._asdict() for entry in found], ensure_ascii=False))
        return
    for rank, entry in enumerate(found, 1):
        click.echo(f"{rank}\t{entry.item}\t{entry.title}\t{entry.score:.4f}")
