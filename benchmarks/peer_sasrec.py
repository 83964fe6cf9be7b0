"""SASRec of RecTools, an outside peer: reads a requests folder, writes TREC runs, and imports nothing of edgerec.

    make peers
    edgerec evaluate DATA --no-baselines --requests requests
    .venv-peers/bin/python benchmarks/peer_sasrec.py requests runs/sasrec
    edgerec evaluate DATA --run SASRec=runs/sasrec

Model, loss and training are RecTools' own: two blocks, four heads, Adam at 1e-3, full softmax where it fits. CANDIDATES
come in the order of what they cost, and the last is RecTools' default. Each is trained until its NDCG@10 on the
validation requests has not risen for PATIENCE rounds, and keeps its best round; the candidate that is best there writes
the runs and is kept in model.pkl, as RecTools saves it. The test qrels are never read. All files are whole after every
candidate, and peer.json says how many of how many were tried: start again to go on with the rest.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import time
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

Histories = dict[str, list[str]]  # item ids by user id, oldest first

CANDIDATES: tuple[dict[str, Any], ...] = (
    {"n_factors": 64, "session_max_len": 50, "dropout_rate": 0.2},
    {"n_factors": 64, "session_max_len": 100, "dropout_rate": 0.5},
    {"n_factors": 128, "session_max_len": 50, "dropout_rate": 0.5},
    {"n_factors": 128, "session_max_len": 100, "dropout_rate": 0.2},
    {"n_factors": 128, "session_max_len": 200, "dropout_rate": 0.5},
    {"n_factors": 256, "session_max_len": 100, "dropout_rate": 0.2},
)
# RecTools' default of 128 is 8 steps an epoch on ml-100k, and was far behind on validation after as many epochs
BATCH = 32
FULL_SOFTMAX = {"loss": "softmax", "batch_size": BATCH}
FULL_SOFTMAX_ITEMS = 20_000
# above: gSASRec (Petrov & Macdonald 2023), with as many negatives as keep a batch's vectors near 1 GB
SAMPLED = {"loss": "gBCE", "n_negatives": 128, "gbce_t": 0.75, "batch_size": BATCH}

ROUND = 50  # steps between two looks at validation, rounded to whole epochs
PATIENCE = 6  # rounds
ROUNDS = 100

log = logging.getLogger("peer_sasrec")


class Task(NamedTuple):
    """What the requests folder holds; ``relevant`` is the targets of validation alone."""

    meta: dict[str, Any]
    train: Histories
    validation: Histories
    relevant: dict[str, set[str]]
    test: Histories


def read_task(folder: Path) -> Task:
    """Read what edgerec wrote."""
    relevant: dict[str, set[str]] = {}
    for user, _, item, _ in read_rows(folder / "validation.qrels"):
        relevant.setdefault(user, set()).add(item)
    train, validation, test = (read_histories(folder / f"{name}.tsv") for name in ("train", "validation", "test"))
    return Task(json.loads((folder / "meta.json").read_text("utf-8")), train, validation, relevant, test)


def read_rows(path: Path) -> list[list[str]]:
    """Return the tab-separated cells of each line."""
    return [line.split("\t") for line in path.read_bytes().decode("utf-8").split("\n") if line]


def read_histories(path: Path) -> Histories:
    """Return the items of each user, in the order of the file."""
    histories: Histories = {}
    for user, item, *_ in read_rows(path)[1:]:
        histories.setdefault(user, []).append(item)
    return histories


def ndcg(ranked: Histories, relevant: dict[str, set[str]], k: int = 10) -> float:
    """Return the mean NDCG@k over users, binary relevance."""
    total = 0.0
    for user, targets in relevant.items():
        gain = sum(1 / math.log2(place + 2) for place, item in enumerate(ranked[user][:k]) if item in targets)
        total += gain / sum(1 / math.log2(place + 2) for place in range(min(len(targets), k)))
    return total / len(relevant)


def dataset(histories: Histories) -> Any:
    """Return a RecTools data set in which an event's time is its position."""
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset

    events = [(user, item, place) for user, items in histories.items() for place, item in enumerate(items)]
    frame = pd.DataFrame(events, columns=[Columns.User, Columns.Item, Columns.Datetime])
    frame[Columns.Datetime] = pd.to_datetime(frame[Columns.Datetime], unit="s")
    frame[Columns.Weight] = 1
    return Dataset.construct(frame)


def recommend(model: Any, histories: Histories, task: Task) -> Histories:
    """Return the places of every request; what RecTools leaves open (no known item in a history) goes to popularity."""
    places, masked = task.meta["places"], task.meta["requests"]["seen_masked"]
    found = model.recommend(
        users=list(histories),
        dataset=dataset(histories),
        k=places,
        filter_viewed=masked,
        on_unsupported_targets="ignore",
    )
    ranked: Histories = {user: [] for user in histories}
    for user, item in zip(found["user_id"], found["item_id"], strict=True):
        ranked[user].append(item)
    return {user: fill(items, histories[user] if masked else [], task) for user, items in ranked.items()}


def fill(items: list[str], seen: list[str], task: Task) -> list[str]:
    """Return a list with its open places filled by the most popular items, then by the rest of the catalogue."""
    places = task.meta["places"]
    if len(items) < places:
        popular = [item for item, _ in Counter(item for one in task.train.values() for item in one).most_common()]
        taken = {*items, *seen}
        items = items + [item for item in dict.fromkeys(popular + task.meta["item_ids"]) if item not in taken]
    return items[:places]


def fit(settings: dict[str, Any], task: Task, seed: int, rounds: int) -> tuple[Any, dict[str, Any]]:
    """Train one candidate and return it at its best round on validation, with what was measured."""
    from lightning_fabric import seed_everything
    from rectools.models import SASRecModel

    seed_everything(seed, verbose=False)
    start, training = time.process_time(), dataset(task.train)
    epochs = max(1, round(ROUND / math.ceil(len(task.train) / settings["batch_size"])))
    model = SASRecModel(**settings, epochs=epochs * rounds)  # a model that had more than these cannot be loaded
    best, best_round, state = -1.0, 0, {}
    for number in range(1, rounds + 1):
        model.fit_partial(training, min_epochs=epochs, max_epochs=epochs)
        reached = ndcg(recommend(model, task.validation, task), task.relevant)
        spent = time.process_time() - start
        log.info("  epoch %d: validation NDCG@10 %.4f, %.0f CPU s", number * epochs, reached, spent)
        if reached > best:
            best, best_round, state = reached, number, copy.deepcopy(model.torch_model.state_dict())
        elif number - best_round >= PATIENCE:
            break
    model.torch_model.load_state_dict(state)
    return model, {
        **settings,
        "validation_ndcg": best,
        "epochs": best_round * epochs,
        "epochs_tried": number * epochs,
        "parameters": sum(one.numel() for one in model.torch_model.parameters()),
        "cpu_seconds": round(spent, 1),
    }


def grid(task: Task) -> list[dict[str, Any]]:
    """Return the candidates for a task: windows no longer than its longest history, and a loss that fits in memory."""
    longest = max(map(len, task.train.values()))
    loss = FULL_SOFTMAX if task.meta["n_items"] <= FULL_SOFTMAX_ITEMS else SAMPLED
    settings = [{**one, **loss, "session_max_len": min(one["session_max_len"], longest)} for one in CANDIDATES]
    return [one for number, one in enumerate(settings) if one not in settings[:number]]


def write_run(path: Path, ranked: Histories) -> None:
    """Write a TREC run, parted by tabs, scores falling with rank."""
    lines = [
        f"{user}\tQ0\t{item}\t{place}\t{len(items) - place + 1}\tsasrec\n"
        for user, items in ranked.items()
        for place, item in enumerate(items, start=1)
    ]
    write(path, "".join(lines).encode())


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def earlier(path: Path, same: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the candidates that an interrupted call tried, if it was about the same thing."""
    report = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return report["tried"] if same.items() <= report.items() else []


def run(requests: Path, out: Path, seed: int, candidates: int, rounds: int) -> dict[str, Any]:
    """Try the first candidates and leave the best one's runs, model and peer.json in ``out``; return the best."""
    task = read_task(requests)
    out.mkdir(parents=True, exist_ok=True)
    versions = {name: version(name) for name in ("rectools", "torch", "pytorch-lightning")}
    about = {"peer": "SASRec (RecTools)", "requests": task.meta["requests"], "seed": seed, "versions": versions}
    about["rounds"] = rounds
    chosen_from, tried = grid(task)[:candidates], earlier(out / "peer.json", about)
    for number, settings in enumerate(chosen_from, start=1):
        if any(settings.items() <= one.items() for one in tried):
            continue
        log.info("candidate %d of %d: %s", number, len(chosen_from), settings)
        model, measured = fit(settings, task, seed, rounds)
        tried.append(measured)
        chosen = max(tried, key=score)
        if chosen is measured:
            for name in ("validation", "test"):
                write_run(out / f"{name}.run", recommend(model, getattr(task, name), task))
            write(out / "model.pkl", model.dumps())
        report = {**about, "candidates": len(chosen_from), "chosen": chosen, "tried": tried}
        write(out / "peer.json", (json.dumps(report, indent=2) + "\n").encode())
    return max(tried, key=score)


def score(measured: dict[str, Any]) -> float:
    """Return what candidates are chosen by."""
    return measured["validation_ndcg"]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requests", type=Path, help="folder that `edgerec evaluate --requests` wrote")
    parser.add_argument("out", type=Path, help="folder for validation.run, test.run, model.pkl and peer.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--candidates", type=int, default=len(CANDIDATES), help="how many are tried, the cheapest first"
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="the most rounds of one; few are enough for a latency"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(f"{name}.utilities.rank_zero").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|rectools|pydantic")
    log.info("%s", json.dumps(run(**vars(arguments))))


if __name__ == "__main__":
    main()
