"""What diversity costs: NDCG@10 against diversity for each weight, by the shipped file.

``python -m edgerec.benchmarks.diversity_curve BUNDLE --out FILE.json`` reranks the best 50 of every test request by MMR
and by calibration. Diversity is told by three numbers: the mean distance (1 - cosine of the candidates' vectors) of two
items of a list, the number of different values in it, and the KL divergence of its mixture from the user's. All 95%
intervals are over users, differences are paired against weight 0.
"""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.quality import markdown
from edgerec.cli import main as run
from edgerec.interactions import Requests
from edgerec.metrics import bootstrap, paired_bootstrap, per_user
from edgerec.runtime import MMR, Calibrated, Recommender
from edgerec.runtime.diversity import divergence, unit
from edgerec.runtime.many import pools_of
from edgerec.runtime.ranking import Pool, Reranker, Scene

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
K, POOL = 10, 50
MEASURES = ("ndcg10", "distance", "values", "divergence")


def curve(recommender: Recommender, requests: Requests, column: str) -> list[dict[str, Any]]:
    """Return a row per reranker and weight, over requests of the data that the bundle was made from."""
    histories = [(requests.histories[number] + 1).tolist() for number in range(len(requests))]
    pools = pools_of(recommender, histories, POOL, exclude_seen=recommender.contents.model["mask_seen"])
    rows, plain = [], None
    for name in ("MMR", "calibrated"):
        for weight in WEIGHTS:
            reranker = MMR(weight, POOL) if name == "MMR" else Calibrated(column, weight, POOL)
            values = measures(recommender, requests, histories, pools, reranker, column)
            plain = plain or values
            row: dict[str, Any] = {"reranker": name, "weight": weight}
            for measure in MEASURES:
                row[measure] = {
                    "mean": float(values[measure].mean()),
                    "interval": bootstrap(values[measure]),
                    "against_0": paired_bootstrap(values[measure], plain[measure]),
                }
            rows.append(row)
    return rows


def measures(
    recommender: Recommender,
    requests: Requests,
    histories: list[list[int]],
    pools: list[Pool],
    reranker: Reranker,
    column: str,
) -> dict[str, NDArray[np.float64]]:
    """Return each measure of the reranked lists, float64 [R]."""
    mixer = Calibrated(column)
    ranked = np.full((len(pools), K), -1, np.int32)
    found = {name: np.zeros(len(pools)) for name in MEASURES}
    for line, (history, pool) in enumerate(zip(histories, pools, strict=True)):
        scene = Scene(recommender, recommender.overlay, set(history))
        rows = reranker.rerank(scene, pool, K).rows.tolist()
        ranked[line, : len(rows)] = np.array(rows) - 1
        vectors = unit(recommender.vectors(rows, False))
        found["distance"][line] = np.mean([1 - a @ b for a, b in combinations(vectors, 2)]) if len(rows) > 1 else 0
        own, lists = mixer.mixtures(scene, sorted(scene.taken)).sum(axis=0), mixer.mixtures(scene, rows).sum(axis=0)
        found["values"][line] = (lists > 0).sum()
        if own.any() and lists.any():
            found["divergence"][line] = divergence(own / own.sum(), (lists / lists.sum())[None])[0]
    return found | {"ndcg10": per_user(ranked, requests.targets, K)["ndcg"]}


def table(result: dict[str, Any]) -> str:
    """Return a result as a Markdown table."""
    head = ["", "weight", "NDCG@10 (95%)", "- weight 0 (95%)", "distance", f"different {result['column']}", "KL"]
    lines = []
    for row in result["rows"]:
        mean, (low, high) = row["ndcg10"]["mean"], row["ndcg10"]["interval"]
        difference = "{difference:+.4f} ({low:+.4f}, {high:+.4f})".format(**row["ndcg10"]["against_0"])
        others = [f"{row[name]['mean']:.3f}" for name in MEASURES[1:]]
        ndcg = f"{mean:.4f} ({low:.4f}, {high:.4f})"
        lines.append([row["reranker"], str(row["weight"]), ndcg, difference, *others])
    return markdown(head, lines)


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--data", "source", default="ml-100k", show_default=True)
@click.option("--column", default="class", show_default=True, help="The bundle's column to calibrate.")
@click.option("--out", type=click.Path(path_type=Path), help="A .json file; its table goes beside it as .md.")
def main(bundle: Path, source: str, column: str, out: Path | None) -> None:
    """Measure NDCG@10 against diversity on the test requests of a bundle's data."""
    from edgerec.data import load
    from edgerec.files import write_result
    from edgerec.splits import split

    data = load(source, offline=True)
    requests = split(data).test
    rows = curve(Recommender.load(bundle), requests, column)
    about = {"bundle": bundle.name, "data": data.name, "users": len(requests), "column": column, "pool": POOL}
    result = {**about, "rows": rows, "environment": environment()}
    if out:
        write_result(out, result, table(result) + "\n")
    click.echo(json.dumps(result))


if __name__ == "__main__":
    run(main)
