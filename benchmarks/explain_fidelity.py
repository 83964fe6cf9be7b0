"""Do explanations name what matters? Deletion curves: ``python -m edgerec.benchmarks.explain_fidelity BUNDLE``.

The item that comes first for a user is explained. What the explanation says adds most is deleted first, one part after
the other, and the score is computed anew each time (deletion metric; Petsiuk et al. 2018). The area under the curve of
what is left of the score (1 at the start, 0 where all is deleted) is small where the order is right; a random order of
the same parts is the control, paired over users.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.quality import markdown
from edgerec.cli import main as run
from edgerec.interactions import Requests
from edgerec.metrics import bootstrap, paired_bootstrap
from edgerec.runtime import Recommender
from edgerec.runtime.explain import explain, masked_scores, user_parts

PARTS = 20  # of a history, the latest: longer ones cost more than they tell
RANDOM_ORDERS = 5
ORDERS = ("events", "events random", "words occlusion", "words lime", "words random")
Values = NDArray[np.float64]
Scorer = Callable[[Sequence[list[int]]], Values]  # scores of the item with only the parts of each list


def area(score: Scorer, order: Sequence[int]) -> float:
    """Return the area under the deletion curve of an order, in 0 .. 1 where deletion only takes away."""
    left = [sorted(order[count:]) for count in range(len(order) + 1)]
    curve = score(left)
    span = curve[0] - curve[-1]
    return float(((curve - curve[-1]) / span).mean()) if abs(span) > 1e-6 else 1.0


def events_score(recommender: Recommender, rows: list[int], row: int) -> Scorer:
    """Return what scores an item with parts of a history, bias and repeats aside; none of it is 0."""
    target = recommender.vector(row, as_history=False)

    def score(kept: Sequence[list[int]]) -> Values:
        users = [user_parts(recommender, [rows[place] for place in places])[0] for places in kept]
        return np.array([float(user @ target) for user in users])

    return score


def words_score(recommender: Recommender, words: list[str], user: Any) -> Scorer:
    """Return what scores an item with some words of its text."""

    def score(kept: Sequence[list[int]]) -> Values:
        masks = np.zeros((len(kept), len(words)), np.bool_)
        for line, places in enumerate(kept):
            masks[line, places] = True
        return masked_scores(recommender, words, masks, user)[1]

    return score


def descending(values: Sequence[float]) -> list[int]:
    """Return the places from the largest value down."""
    return [int(place) for place in np.argsort(-np.array(values), kind="stable")]


def curves(recommender: Recommender, requests: Requests, item_ids: Sequence[str], seed: int) -> dict[str, list[float]]:
    """Return the area of each kind of order for each request's first item."""
    rng, names = (
        np.random.default_rng(seed),
        ("events", "events random", "words occlusion", "words lime", "words random"),
    )
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(len(requests)):
        history = [item_ids[row] for row in requests.histories[number][-PARTS:]]
        item = recommender.recommend(history, 1)[0].item
        why, rows = explain(recommender, item, history), recommender.rows(history)
        row = recommender.rows([item])[0]
        words = [one.word for one in why.words]
        by_events, by_words = (
            events_score(recommender, rows, row),
            words_score(recommender, words, user_parts(recommender, rows)[0]),
        )
        found["events"].append(area(by_events, descending([one.contribution for one in why.events])))
        found["words occlusion"].append(area(by_words, descending([one.occlusion for one in why.words])))
        found["words lime"].append(area(by_words, descending([one.lime for one in why.words])))
        for name, score, count in (("events random", by_events, len(rows)), ("words random", by_words, len(words))):
            areas = [area(score, rng.permutation(count).tolist()) for _ in range(RANDOM_ORDERS)]
            found[name].append(float(np.mean(areas)))
    return found


def summary(found: dict[str, list[float]]) -> dict[str, Any]:
    """Return means with intervals, and each kind of order against the random one of its parts."""
    values = {name: np.array(areas) for name, areas in found.items()}
    return {
        name: {
            "area": float(areas.mean()),
            "interval": bootstrap(areas),
            "against_random": paired_bootstrap(areas, values[f"{name.split()[0]} random"]),
        }
        for name, areas in values.items()
    }


def table(rows: dict[str, Any]) -> str:
    """Return a summary as a Markdown table."""
    lines = []
    for name, row in rows.items():
        low, high = row["interval"]
        against = "{difference:+.3f} ({low:+.3f}, {high:+.3f})".format(**row["against_random"])
        lines.append([name, f"{row['area']:.3f} ({low:.3f}, {high:.3f})", "" if name.endswith("random") else against])
    return markdown(["order", "area (95%)", "- random (95%)"], lines)


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--data", "source", default="ml-100k", show_default=True)
@click.option("--users", type=int, default=200, show_default=True, help="Of the test requests, drawn at random.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="A .json file; its table goes beside it as .md.")
def main(bundle: Path, source: str, users: int, seed: int, out: Path | None) -> None:
    """Measure the fidelity of explanations by deletion."""
    from edgerec.data import load
    from edgerec.files import write_result
    from edgerec.splits import split

    data = load(source, offline=True)
    requests = split(data).test.sample(users, seed)
    rows = summary(curves(Recommender.load(bundle), requests, data.item_ids, seed))
    result = {
        "bundle": bundle.name,
        "data": data.name,
        "users": len(requests),
        "rows": rows,
        "environment": environment(),
    }
    if out:
        write_result(out, result, table(rows) + "\n")
    click.echo(json.dumps(result))


if __name__ == "__main__":
    run(main)
