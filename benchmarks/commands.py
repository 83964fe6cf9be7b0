"""``edgerec evaluate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgerec.commands import data_options, encoding_progress, json_option, load_data, split_option

KS = (10, 5, 20)
PARTS = ("main", "ablation", "sparsity", "pruning", "compression")  # of a study
# what one part alone takes
OWN_OPTIONS = {"main": "--run", "ablation": "--steps", "sparsity": "--init-from", "pruning": "--steps"}


@click.command()
@data_options
@split_option
@click.option("--encoder", type=click.Path(path_type=Path), help="Folder of a text encoder.  [default: minilm-l6]")
@click.option("--no-text", is_flag=True, help="Leave out the baselines that need a text encoder (and torch).")
@click.option(
    "--baselines/--no-baselines", "with_baselines", default=True, show_default=True, help="Fit and tune them."
)
@click.option("--model", "models", type=click.Path(path_type=Path), multiple=True, help="A model folder.")
@click.option(
    "--rerank", type=click.Path(path_type=Path), help="The folder of two towers that a cross-encoder reranks."
)
@click.option("--bundle", "bundles", type=click.Path(path_type=Path), multiple=True, help="An .edgerec file.")
@click.option("--users", type=click.IntRange(1), help="Score so many users only, and say so.")
@click.option("--run", "runs", metavar="NAME=DIR", multiple=True, help="TREC runs that a peer made of --requests.")
@click.option(
    "--study",
    type=click.Path(path_type=Path),
    help="Folder to train baselines, teachers and students in.",
)
@click.option("--part", type=click.Choice(PARTS), default=PARTS[0], show_default=True, help="Of a study.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Of a study's trainings.")
@click.option(
    "--steps", type=click.IntRange(1), help="Of the students of an ablation or of pruning.  [default: distill's]"
)
@click.option("--init-from", type=click.Path(path_type=Path), help="A sparsity study's teacher of another catalogue.")
@click.option("--requests", type=click.Path(path_type=Path), help="Folder for what a peer learns from and is asked.")
@click.option("--trec", type=click.Path(path_type=Path), help="Folder for TREC runs and qrels.")
@click.option("--out", type=click.Path(path_type=Path), help="File for the result as JSON.")
@json_option
def evaluate(
    kind: str,
    encoder: Path | None,
    no_text: bool,
    with_baselines: bool,
    models: tuple[Path, ...],
    rerank: Path | None,
    bundles: tuple[Path, ...],
    users: int | None,
    runs: tuple[str, ...],
    study: Path | None,
    part: str,
    seeds: int,
    steps: int | None,
    init_from: Path | None,
    requests: Path | None,
    trec: Path | None,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Score baselines, models, bundles and peers on one data set; with --study, train what is scored."""
    from edgerec.benchmarks.environment import environment
    from edgerec.benchmarks.evaluate import evaluate as score
    from edgerec.benchmarks.evaluate import report, sample
    from edgerec.benchmarks.runs import write_requests
    from edgerec.benchmarks.shipped import BundleScorer
    from edgerec.errors import UsageError
    from edgerec.files import write_result
    from edgerec.splits import split

    dataset = load_data(**options)
    divided = split(dataset, kind)
    if requests:
        write_requests(requests, dataset, divided)
        click.echo(f"wrote requests to {requests}", err=True)
    peers = read_peers(runs, dataset, divided)
    if study or part != PARTS[0]:
        known = [(name, peer.rankings, peer.report) for name, peer in peers.items()]
        own = {"main": known, "ablation": steps, "sparsity": init_from, "pruning": steps}
        conduct(dataset, divided, encoder, study, part, seeds, own, out, as_json, options["offline"])
        return
    scorers: dict[str, Any] = {}
    if with_baselines:
        scorers |= fitted_baselines(dataset, divided, encoder, no_text, options["offline"])
    for folder in models:
        scorers |= model_subjects(folder, dataset, divided.mask_seen, rerank)
    scorers |= {f"shipped file {path.name}": BundleScorer(path, dataset) for path in bundles}
    if peers and users:
        raise UsageError("a --run answers every user; leave --users out")
    if not scorers and not peers:
        if requests:
            return
        raise UsageError("nothing to score; expected --baselines, a --model, a --bundle or a --run")
    everybody, divided = len(divided.test), sample(divided, users)
    rows, rankings = score(scorers, divided, KS, {name: peer.rankings for name, peer in peers.items()})
    result = {
        "schema": "edgerec-quality-1",
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint, "events": len(dataset.users)},
        "split": {
            "kind": kind,
            "test_users": len(divided.test),
            "of_users": everybody,
            "items": divided.n_items,
            "seen_masked": divided.mask_seen,
        },
        "rows": rows,
        "peers": {name: peer.report for name, peer in peers.items()},
        "environment": environment(),
    }
    if out:
        write_result(out, result, report(result))
        click.echo(f"wrote {out} and {out.with_suffix('.md')}", err=True)
    if trec:
        write_trec(trec, rankings, divided.test, dataset)
        click.echo(f"wrote {len(rankings)} runs and qrels.txt to {trec}", err=True)
    click.echo(json.dumps(result) if as_json else report(result))


def conduct(
    dataset: Any,
    divided: Any,
    encoder: Path | None,
    folder: Path | None,
    part: str,
    seeds: int,
    own: dict[str, Any],
    out: Path | None,
    as_json: bool,
    offline: bool,
) -> None:
    """Run a part of a study; write it as JSON to ``out``, and its tables as Markdown beside it.

    Raises:
        UsageError: There is no folder, or of ``own``, what one part alone takes, another part's was given.
    """
    from edgerec.errors import UsageError
    from edgerec.export import ablation, compression_study, pruning_study, sparsity, study
    from edgerec.files import write_result
    from edgerec.sources import fetch

    def say(line: str) -> None:
        click.echo(line, err=True)

    if folder is None:
        raise UsageError(f"--part {part} belongs to a study; expected --study FOLDER")
    if misplaced := {OWN_OPTIONS[name] for name, value in own.items() if value} - {OWN_OPTIONS.get(part)}:
        raise UsageError(f"--part {part} takes no {min(misplaced)}; leave it out, or name another part")
    parts: dict[str, tuple[Callable[..., dict[str, Any]], Callable[[dict[str, Any]], str]]] = {
        "main": (study.run_study, study.report),
        "ablation": (ablation.run_ablation, ablation.report),
        "sparsity": (sparsity.run_sparsity, sparsity.report),
        "pruning": (pruning_study.run_pruning, pruning_study.report),
        "compression": (compression_study.run_compression, compression_study.report),
    }
    run, report = parts[part]
    opened = study.open_study(dataset, divided, encoder or fetch("minilm-l6", offline), folder, say, study.Plan(seeds))
    result = run(opened, *([own[part]] if part in own else []))
    if out:
        write_result(out, result, report(result))
        say(f"wrote {out} and {out.with_suffix('.md')}")
    click.echo(json.dumps(result) if as_json else report(result))


def fitted_baselines(dataset: Any, divided: Any, encoder: Path | None, no_text: bool, offline: bool) -> dict[str, Any]:
    """Return the tuned baselines, those of the text encoder included unless they are not wanted."""
    from edgerec.errors import require

    for module in ("scipy", "sklearn"):
        require(module, "distill")
    from edgerec.distill.baselines import baselines
    from edgerec.distill.encoder import cached_text_vectors
    from edgerec.sources import fetch

    vectors = None
    if not no_text:
        folder = encoder or fetch("minilm-l6", offline)
        vectors = cached_text_vectors(dataset.texts, folder, encoding_progress(len(dataset.texts)))
    return baselines(divided, dataset.texts, vectors)


def model_subjects(folder: Path, dataset: Any, mask_seen: bool, rerank: Path | None) -> dict[str, Any]:
    """Return what a model folder is scored as, under its name; a cross-encoder as what it makes of ``rerank``."""
    from edgerec.distill.checkpoint import load
    from edgerec.distill.cross_encoder import is_cross_encoder
    from edgerec.distill.evaluation import reranked, subjects
    from edgerec.errors import UsageError

    if not is_cross_encoder(folder):
        model = load(folder)
        model.require_data(dataset)
        found = subjects(model)
    elif rerank is None:
        raise UsageError(f"{folder} is a cross-encoder, which ranks no catalogue; name two towers with --rerank")
    else:
        found = reranked(folder, load(rerank), dataset, mask_seen, count("pairs read"))
    return {f"{folder.name}: {name}": scorer for name, scorer in found.items()}


def count(what: str) -> Callable[[int], None]:
    """Return a function of a number done that draws one line on a terminal's stderr."""
    return lambda done: click.echo(f"\r{what}: {done}", nl=False, err=True) if sys.stderr.isatty() else None


def read_peers(runs: tuple[str, ...], dataset: Any, divided: Any) -> dict[str, Any]:
    """Return the peers that ``NAME=DIR`` options give, by name."""
    from edgerec.benchmarks.runs import read_peer
    from edgerec.errors import UsageError

    peers: dict[str, Any] = {}
    for given in runs:
        name, _, folder = given.partition("=")
        if not name or not folder or name in peers:
            raise UsageError(f"got --run {given}; expected NAME=DIR, each name once")
        peers[name] = read_peer(Path(folder), dataset, divided)
    return peers


def write_trec(folder: Path, rankings: Any, requests: Any, dataset: Any) -> None:
    """Write a run per subject and the qrels, for ranx, pytrec_eval or trec_eval to read."""
    from edgerec.files import write_bytes
    from edgerec.metrics import to_qrels, to_trec

    user_id, item_id = dataset.user_ids.__getitem__, dataset.item_ids.__getitem__
    write_bytes(folder / "qrels.txt", to_qrels(requests, user_id, item_id).encode())
    for name, ranked in rankings.items():
        tag = "".join(char if char.isalnum() else "-" for char in name)
        run = to_trec(ranked, requests.users, user_id, item_id, tag)
        write_bytes(folder / f"{tag}.run", run.encode())
