"""Candidates as real files: each is written, asked what fp32 is asked, and timed beside the others.

*Shipped* is a file scored through its own graph. *Re-encoded* is every item's text part as that very file encodes the
item's text, under the tables as trained, so that it shows the text encoder's error alone. Both are set against the file
whose encoder is fp32. Its item tables are INT8 as everywhere: what that costs against fp32 tables, which no file has,
is told apart (``table_report``). Search compares titles with the catalogue, as it does a query.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgerec.benchmarks.quality import K, paired
from edgerec.benchmarks.shipped import BundleScorer
from edgerec.benchmarks.timer import measure
from edgerec.distill.towers import ColdMap, TowerArrays
from edgerec.errors import DataError, ParityError, UsageError
from edgerec.export.package import Draft, spread, write
from edgerec.export.quantization import made
from edgerec.interactions import Dataset, FloatArray, IntArray, Requests
from edgerec.metrics import Scorer, ndcg, rank, top_k
from edgerec.runtime import Recommender
from edgerec.runtime.layout import Tower
from edgerec.runtime.reference import rounded
from edgerec.runtime.text import TextEncoder, Vectors

REFERENCE = "fp32"
WAYS = ("shipped", "re-encoded")
SEARCHED = 256  # titles that are searched for
BATCH = 32
ROUNDS = {"encode_one": 300, "recommend": 300, "encode_batch": 40}  # timed calls of each candidate
Say = Callable[[str], None]


class Answers(NamedTuple):
    """Lists of the K best: by way int32 [R, K], and what searches find, int32 [S, K]."""

    lists: Mapping[str, IntArray]
    found: IntArray


@dataclass(frozen=True)
class Trial:
    """A candidate that was made, of what; ``scorers`` has one per way."""

    name: str
    prepared: Draft
    path: Path
    graph: bytes
    bytes: int
    scorers: Mapping[str, Scorer]
    recommender: Recommender


@dataclass(frozen=True)
class Bench:
    """What all candidates of one model are compared on."""

    prepared: Draft
    data: Dataset
    requests: Requests
    mask_seen: bool

    @property
    def titles(self) -> list[str]:
        """The texts that are searched for, from shortest to longest."""
        return spread(self.prepared.checkpoint.texts, SEARCHED)


@dataclass
class Trials:
    """The candidates that were made, and why the others were not."""

    made: dict[str, Trial] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def make_trials(
    bench: Bench, names: Sequence[str], folder: Path, seed: int, say: Say, qat: Draft | None = None
) -> Trials:
    """Write a file of every candidate into a folder; fp32's always, first.

    Args:
        bench: What they are made of, and compared on.
        names: The candidates.
        folder: For the files.
        seed: Of the calibration's draw.
        say: Takes the name of each as it is made.
        qat: The same model after ``edgerec qat``: what the candidate of that name is made of.

    Raises:
        ParityError: Not even fp32's answers as torch does.
    """
    found, titles = Trials(), bench.prepared.calibration(seed)
    for name in dict.fromkeys([REFERENCE, *names]):
        path = folder / f"{name}.edgerec"
        say(name)
        try:
            prepared = qat if qat and name == "qat" else bench.prepared
            found.made[name] = tried(prepared, bench.data, name, made(name, prepared.graph, titles), path)
        except (UsageError, ParityError) as error:
            if name == REFERENCE:
                raise
            found.refused[name] = re.sub(rf"^{re.escape(str(folder))}\S*: ", "", str(error))  # a name that passes
    return found


def tried(prepared: Draft, data: Dataset, name: str, graph: bytes, path: Path) -> Trial:
    """Write the file of a candidate's graph, and open it.

    Raises:
        ParityError: It does not answer as torch does.
    """
    size = write(prepared, name, graph, path)["bytes"]
    shipped = BundleScorer(path, data)
    again = reencoded(prepared, shipped.recommender.encoder)
    return Trial(name, prepared, path, graph, size, {"shipped": shipped, "re-encoded": again}, shipped.recommender)


def reencoded(prepared: Draft, encoder: TextEncoder) -> TowerArrays:
    """Return the trained towers with the text parts that a file's encoder gives."""
    towers, texts = prepared.checkpoint.towers, prepared.checkpoint.texts
    return towers.arrays(text_parts(encoder.encode(texts), towers.cold_map()))


def text_parts(vectors: Vectors, cold: ColdMap) -> FloatArray:
    """Return the text parts behind an encoder's outputs, float32 [n, d].

    ``text`` has their directions; their lengths are found in ``item_in``, which is affine in the part itself.
    """
    mapped, given = vectors.text @ cold.item_in[:-1], vectors.item_in - cold.item_in[-1]
    lengths = (mapped * given).sum(axis=1) / np.maximum(np.square(mapped).sum(axis=1), 1e-12)
    return (vectors.text * lengths[:, None]).astype(np.float32)


def tables(prepared: Draft, tower: Tower) -> TowerArrays:
    """Return a tower's item tables as something that ranks."""
    item_in = tower.item_out if tower.item_in is None else tower.item_in
    arrays = prepared.checkpoint.towers.arrays()
    return replace(arrays, item_in=item_in, item_out=tower.item_out, bias=tower.bias)


def ask(bench: Bench, trial: Trial) -> Answers:
    """Return what a candidate's file answers."""
    lists = {way: rank(one, bench.requests, K, bench.mask_seen) for way, one in trial.scorers.items()}
    found = queries(trial.recommender.encoder, bench.titles) @ search_table(trial).T
    return Answers(lists, top_k(found, K))


def search_table(trial: Trial) -> FloatArray:
    """Return the text vectors that a file's searches compare with, float32 [N, d]."""
    contents = trial.recommender.contents
    return contents.text_codes[1:].astype(np.float32) * contents.text_scale[1:, None]


def queries(encoder: TextEncoder, titles: Sequence[str]) -> FloatArray:
    """Return the vectors of titles that are encoded one by one, float32 [S, d]: a batch would change INT8's ranges."""
    return np.concatenate([encoder.encode([title]).text for title in titles])


def overlaps(a: IntArray, b: IntArray) -> NDArray[np.float64]:
    """Return the share of each list of ``b`` that the list of ``a`` holds too, float64 [R]; 1 for an empty list."""
    return np.array(
        [
            len(np.intersect1d(one[one >= 0], two[two >= 0])) / max(int((two >= 0).sum()), 1)
            if (two >= 0).any()
            else 1.0
            for one, two in zip(a, b, strict=True)
        ]
    )


def agreement(bench: Bench, got: Answers, wanted: Answers) -> dict[str, Any]:
    """Return the top-10 overlap with fp32's of each way and of search, and the request that keeps least of it."""
    shares = overlaps(got.found, wanted.found)
    worst = {"overlap": float(shares.min()), "title": bench.titles[int(shares.argmin())]}
    lists = {way: list_agreement(bench, got.lists[way], wanted.lists[way]) for way in WAYS}
    return {**lists, "search": {"mean": float(shares.mean()), "worst": worst}}


def list_agreement(bench: Bench, got: IntArray, wanted: IntArray) -> dict[str, Any]:
    """Return the mean overlap of lists, and the user whose list keeps least, with the end of the history."""
    shares = overlaps(got, wanted)
    row = int(shares.argmin())
    history = [bench.data.item_ids[int(item)] for item in bench.requests.histories[row]]
    who = {"user": bench.data.user_ids[int(bench.requests.users[row])], "history": history[-K:]}
    return {"mean": float(shares.mean()), "worst": {"overlap": float(shares[row]), **who}}


def against(got: NDArray[np.float64], wanted: NDArray[np.float64]) -> dict[str, float]:
    """Return a mean, and its ratio to another's of the same users with the paired 95% interval.

    The interval is that of the difference, over the other's mean: bootstrap draws in which nobody is answered right,
    as few users have them, would divide by 0.

    Raises:
        DataError: The other mean is 0.
    """
    whole = float(wanted.mean())
    if not whole > 0:
        raise DataError("fp32 answers no request right, so that no ratio says anything; train longer, or on more data")
    found = paired(got, wanted)
    shares = {
        name: 1 + found[f"difference{end}"] / whole for name, end in (("ratio", ""), ("low", "_low"), ("high", "_high"))
    }
    return {"mean": float(got.mean()), **shares}


def quality(bench: Bench, got: Answers, wanted: Answers) -> dict[str, dict[str, float]]:
    """Return NDCG@10 against fp32's, by way."""
    return {way: against(*(ndcg(one.lists[way], bench.requests, K) for one in (got, wanted))) for way in WAYS}


def table_report(bench: Bench) -> dict[str, Any]:
    """Return what rounding the item tables costs, row by row and compensated: NDCG@10 and overlap against fp32's."""
    prepared = bench.prepared
    item_in = prepared.tower.item_in
    plain = replace(
        prepared.tower,
        item_out=rounded(prepared.tower.item_out),
        item_in=None if item_in is None else rounded(item_in),
    )
    ranked = {
        name: rank(tables(prepared, tower), bench.requests, K, bench.mask_seen)
        for name, tower in (("fp32", prepared.tower), ("plain", plain), ("compensated", prepared.rounded))
    }
    values = {name: ndcg(one, bench.requests, K) for name, one in ranked.items()}
    return {
        name: {"top10_overlap": list_agreement(bench, one, ranked["fp32"]), **against(values[name], values["fp32"])}
        for name, one in ranked.items()
    }


def times(bench: Bench, trials: Trials, rounds: Mapping[str, int] = ROUNDS) -> dict[str, dict[str, Any]]:
    """Time every candidate on this machine, interleaved, on one thread: by name, percentiles in ms of each work."""
    titles, batch = bench.titles, spread(bench.prepared.checkpoint.texts, BATCH)
    ids, sample = bench.data.item_ids, bench.requests.sample(SEARCHED)
    histories = [[ids[int(item)] for item in sample.histories[row]] for row in range(len(sample))]

    def work(kind: str, recommender: Recommender) -> Callable[[int], object]:
        if kind == "recommend":
            return lambda number: recommender.recommend(histories[number % len(histories)], K)
        if kind == "encode_batch":
            return lambda number: recommender.encoder.encode(batch)
        return lambda number: recommender.encoder.encode([titles[number % len(titles)]])

    found: dict[str, dict[str, Any]] = {name: {} for name in trials.made}
    for kind, count in rounds.items():
        subjects = {name: work(kind, trial.recommender) for name, trial in trials.made.items()}
        for name, latency in measure(subjects, count, warmup=3).items():
            found[name][kind] = latency.summary()
    return found
