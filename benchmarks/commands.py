"""``edgerec evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgerec.commands import data_options, encoding_progress, json_option, load_data, split_option

KS = (10, 5, 20)


@click.command()
@data_options
@split_option
@click.option("--encoder", type=click.Path(path_type=Path), help="Folder of a text encoder.  [default: minilm-l6]")
@click.option("--no-text", is_flag=True, help="Leave out the baselines that need a text encoder (and torch).")
@click.option("--trec", type=click.Path(path_type=Path), help="Folder for TREC runs and qrels.")
@click.option("--out", type=click.Path(path_type=Path), help="File for the result as JSON.")
@json_option
def evaluate(
    kind: str, encoder: Path | None, no_text: bool, trec: Path | None, out: Path | None, as_json: bool, **options: Any
) -> None:
    """Score baselines on one data set."""
    from edgerec.errors import require

    for module in ("scipy", "sklearn"):  # what the baselines import
        require(module, "distill")
    from edgerec.benchmarks.environment import environment
    from edgerec.benchmarks.evaluate import evaluate as score
    from edgerec.benchmarks.evaluate import table
    from edgerec.distill.baselines import baselines
    from edgerec.distill.encoder import cached_text_vectors
    from edgerec.files import write_json
    from edgerec.sources import fetch
    from edgerec.splits import split

    dataset = load_data(**options)
    divided = split(dataset, kind)
    vectors = None
    if not no_text:
        folder = encoder or fetch("minilm-l6", options["offline"])
        vectors = cached_text_vectors(dataset.texts, folder, encoding_progress(len(dataset.texts)))
    rows, rankings = score(baselines(divided, dataset.texts, vectors), divided, KS)
    result = {
        "schema": "edgerec-quality-1",
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint, "events": len(dataset.users)},
        "split": {"kind": kind, "test_users": len(divided.test), "seen_masked": divided.mask_seen},
        "rows": rows,
        "environment": environment(),
    }
    if out:
        write_json(out, result)
        click.echo(f"wrote {out}", err=True)
    if trec:
        write_trec(trec, rankings, divided.test, dataset)
        click.echo(f"wrote {len(rankings)} runs and qrels.txt to {trec}", err=True)
    masked = "seen items masked" if divided.mask_seen else "repeats unmasked"
    caption = f"{dataset.name}, {kind}, {len(divided.test)} users, full catalogue of {divided.n_items}, {masked}"
    click.echo(json.dumps(result) if as_json else f"{caption}\n\n{table(rows)}")


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
