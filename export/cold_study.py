"""New items by text alone: a tenth of the catalogue is hidden, a file is made without it, and the device adds it.

Teacher and student are trained on data that do not hold the hidden items in any form. What is judged is the student's
file after ``add_items``, beside content baselines, which need no training. The hidden items are ranked among themselves
(does the text tell them apart?) and among all (do they get a place?).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgerec.benchmarks.cells import Arrays, Cell
from edgerec.benchmarks.quality import interval, markdown, paired, ratio
from edgerec.benchmarks.shipped import BundleScorer
from edgerec.cold import ColdSplit, hide_items
from edgerec.distill.baselines import DECAYS, Profile, tfidf, tuned, variants
from edgerec.distill.encoder import cached_text_vectors
from edgerec.export.package import package
from edgerec.interactions import FloatArray, Requests, Split
from edgerec.metrics import Scorer, per_user, rank
from edgerec.splits import split as divide

if TYPE_CHECKING:
    from edgerec.export.study import Study

SHARE = 0.1  # of the items
K = 10
REFERENCE = "zero-shot profile"
WAYS = ("hidden", "all")  # what a hidden item is ranked among


class HiddenOnly:
    """A scorer whose known items, the first ``n_known``, are never returned."""

    def __init__(self, scorer: Scorer, n_known: int) -> None:
        self.scorer, self.n_known = scorer, n_known

    def score(self, requests: Requests) -> FloatArray:
        """Return scores, float32 [R, known + hidden]."""
        scores = self.scorer.score(requests)
        scores[:, : self.n_known] = -np.inf
        return scores


def cold_results(study: Study) -> list[dict[str, Any]]:
    """Return a row per subject: NDCG@10 each way, with its interval and against the zero-shot profile.

    Every seed hides other items; a user's values are averaged over the seeds in which the user counts.
    """
    cells = [study.cells.get(f"cold-{seed}", partial(cold_cell, study, seed)) for seed in range(study.plan.seeds)]
    values = {
        (way, name): per_person([(cell.arrays["users"], cell.arrays[f"{way}/{name}"]) for cell in cells])
        for way in WAYS
        for name in cells[0].facts["names"]
    }
    return [
        {
            "name": name,
            "seeds": study.plan.seeds,
            "users": len(values["all", name]),
            **{way: interval(values[way, name]) for way in WAYS},
            **{f"{way}_against_zero_shot": paired(values[way, name], values[way, REFERENCE]) for way in WAYS},
        }
        for name in cells[0].facts["names"]
    ]


def per_person(seeds: Sequence[tuple[NDArray[np.int32], NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Return each user's mean over the seeds that have a value of theirs, users ascending."""
    users, rows = np.unique(np.concatenate([one for one, _ in seeds]), return_inverse=True)
    total = np.bincount(rows, np.concatenate([values for _, values in seeds]), minlength=len(users))
    mean: NDArray[np.float64] = total / np.bincount(rows, minlength=len(users))
    return mean


def cold_cell(study: Study, seed: int) -> Cell:
    """Hide items, train without them, and rank them: NDCG@10 per user and subject, either way."""
    from edgerec.export.study import PRECISION, train_student, train_teacher

    study.say(f"new items, seed {seed}")
    cold = hide_items(study.data, SHARE, seed)
    split, home = divide(cold.data, study.split.name), study.home(seed) / "cold"
    requests = cold.requests(split)
    scorers = content_baselines(study, cold, split)
    teacher = train_teacher(study, cold.data, split, seed, home / "teacher")
    preset = study.plan.presets[0]
    student = train_student(study, teacher, cold.data, split, preset, seed, home / preset)
    package(student, PRECISION, home / f"{preset}.edgerec")
    shipped = BundleScorer(home / f"{preset}.edgerec", cold.data)
    shipped.recommender.add_items(dict(zip(cold.ids, cold.texts, strict=True)))
    scorers[f"{preset}, shipped, items added on the device"] = shipped
    arrays: Arrays = {"users": requests.users}
    n_known = len(cold.data.item_ids)
    for name, scorer in scorers.items():
        for way, asked in (("hidden", HiddenOnly(scorer, n_known)), ("all", scorer)):
            ranked = rank(asked, requests, K, split.mask_seen)
            arrays[f"{way}/{name}"] = per_user(ranked, requests.targets, K)["ndcg"]
    return Cell(arrays, {"names": list(scorers), "calibrated": teacher.info["validation_ndcg10"]["calibrated"]})


def content_baselines(study: Study, cold: ColdSplit, split: Split) -> dict[str, Scorer]:
    """Return profiles over known and hidden items, their recency tuned on validation with the known ones."""
    known = {
        REFERENCE: cached_text_vectors(cold.data.texts, study.encoder),
        "TF-IDF profile": tfidf(cold.data.texts),
    }
    texts = [*cold.data.texts, *cold.texts]
    everything = {REFERENCE: cached_text_vectors(texts, study.encoder), "TF-IDF profile": tfidf(texts)}
    found: dict[str, Scorer] = {}
    for name, vectors in everything.items():
        best: Any = tuned(variants(Profile(known[name]), "decay", DECAYS), split)
        found[name] = Profile(vectors, best.decay)
    return found


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    head = ["", "seeds", "users", "NDCG among hidden (95%)", "of zero-shot", "NDCG among all (95%)", "of zero-shot"]
    lines = []
    for row in found:
        cells = [row["name"], str(row["seeds"]), str(row["users"])]
        for way in WAYS:
            cells.append("{mean:.4f} ({low:.4f}, {high:.4f})".format(**row[way]))
            cells.append("zero-shot" if row["name"] == REFERENCE else ratio(row[f"{way}_against_zero_shot"]))
        lines.append(cells)
    return markdown(head, lines)
