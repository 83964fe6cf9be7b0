"""The referee: one data set, every baseline, teacher and student over several seeds, and new items by text alone.

What is trained lies in model folders and what was ranked in cells (``benchmarks.cells``); whatever is there already is
not made again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgerec.benchmarks.cells import Cell, Cells
from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.evaluate import Rankings, answers
from edgerec.benchmarks.quality import Subject, rows, table
from edgerec.benchmarks.shipped import BundleScorer
from edgerec.distill import checkpoint
from edgerec.distill.baselines import baselines, described
from edgerec.distill.compress import distill_checkpoint
from edgerec.distill.distillation import OPTIONS, RECIPE, Recipe
from edgerec.distill.encoder import cached_text_vectors
from edgerec.distill.evaluation import subjects
from edgerec.distill.losses import LossWeights
from edgerec.distill.options import TrainOptions
from edgerec.distill.teacher import TeacherOptions, fine_tune
from edgerec.distill.text_encoder import text_encoder
from edgerec.export import PRECISIONS
from edgerec.export.cold_study import cold_results
from edgerec.export.cold_study import table as cold_table
from edgerec.export.package import package
from edgerec.files import write_json
from edgerec.interactions import Dataset, Split
from edgerec.metrics import Scorer

Say = Callable[[str], None]
Ranked = tuple[str, Rankings, dict[str, Any]]  # a subject's name, what it answered, and what it cost
UNDISTILLED = replace(
    RECIPE, weights=LossWeights(next_item=1.0, vectors=0.0, listwise=0.0), from_scratch=True
)  # the student's shape, without anything of the teacher's encoder
PRECISION = PRECISIONS[0]


@dataclass(frozen=True)
class Plan:
    """How much is trained, and how: by default what the commands do without options."""

    seeds: int = 3  # teachers and students are trained with seeds 0, 1, ...
    teacher: TeacherOptions = TeacherOptions()
    student: TrainOptions = OPTIONS
    presets: tuple[str, ...] = ("tiny", "static")  # the first one is trained undistilled too, and meets new items


@dataclass(frozen=True)
class Study:
    """What is studied, and where."""

    data: Dataset
    split: Split
    encoder: Path
    folder: Path
    say: Say
    plan: Plan
    cells: Cells

    def home(self, seed: int) -> Path:
        """Return the folder of a seed's models."""
        return self.folder / f"seed-{seed}"


def run_study(study: Study, peers: Sequence[Ranked] = ()) -> dict[str, Any]:
    """Train, compress, export and rank everything that a table of quality needs.

    Args:
        study: An opened study; what was interrupted goes on in its folder.
        peers: What was ranked elsewhere, with what is said of it.

    Returns:
        A JSON value: the rows, new items, and on what all this ran.

    Raises:
        InterruptedTraining: Ctrl-C.
    """
    vectors = cached_text_vectors(study.data.texts, study.encoder)
    made = known(study, vectors)
    made += [Subject(name, "peer", [one], [facts]) for name, one, facts in peers]
    made += trained(study)
    return {
        "schema": "edgerec-study-1",
        **setting(study),
        "rows": rows(made, study.split, vectors),
        "cold": cold_results(study),
    }


def open_study(data: Dataset, split: Split, encoder: Path, folder: Path, say: Say, plan: Plan = Plan()) -> Study:
    """Return a study in a folder, of which nothing has been made yet or something has.

    Args:
        data: Catalogue and log.
        split: Of it.
        encoder: Folder of the text encoder that teachers start from.
        folder: For models and cells; a study that was interrupted goes on in it.
        say: Prints a line.
        plan: How much is trained.

    Raises:
        UsageError: The folder holds another study.
    """
    identity = {"fingerprint": data.fingerprint, "split": split.name, "teacher": asdict(plan.teacher)}
    identity |= {"student": asdict(plan.student), "recipe": asdict(RECIPE), "encoder": encoder.name}
    return Study(data, split, encoder, folder, say, plan, Cells(folder, to_json(identity)))


def setting(study: Study) -> dict[str, Any]:
    """Return what every part of a study says first: of what data, who was asked, how often, and on what machine."""
    data, split = study.data, study.split
    return {
        "data": {"name": data.name, "fingerprint": data.fingerprint, "events": len(data.users)},
        "split": {
            "kind": split.name,
            "test_users": len(split.test),
            "items": split.n_items,
            "cold_items": int((~split.warm).sum()),
            "seen_masked": split.mask_seen,
        },
        "seeds": study.plan.seeds,
        "environment": environment(),
    }


def heading(result: Mapping[str, Any]) -> str:
    """Return the setting as the first sentence of a report."""
    split, seeds = result["split"], result["seeds"]
    masked = "seen items masked" if split["seen_masked"] else "repeats unmasked"
    return (
        f"{result['data']['name']}, {split['kind']}, {split['test_users']} users, all {split['items']} items ranked, "
        f"{masked}; {seeds} seed{'s' * (seeds > 1)}."
    )


def report(result: Mapping[str, Any]) -> str:
    """Return a study as Markdown: what was asked of whom, the table, and the one of new items."""
    best = next(row for row in result["rows"] if row["best_baseline"])
    teacher = next(row for row in result["rows"] if row["name"] == "teacher")
    shown = teacher["against_best_baseline"]["detectable"] / best["test"]["10"]["ndcg"]["mean"]
    caption = (
        f"{heading(result)} At 10 places; best baseline chosen on validation. So many users can show a difference of "
        f"{shown:.1%} between teacher and best baseline."
    )
    new = "New items: a tenth of the catalogue hidden from training, added to the file by text. NDCG@10."
    return f"{caption}\n\n{table(result['rows'])}\n\n{new}\n\n{cold_table(result['cold'])}\n"


def to_json(value: Any) -> Any:
    """Return a value as JSON would give it back: tuples become lists."""
    if isinstance(value, dict):
        return {name: to_json(one) for name, one in value.items()}
    return [to_json(one) for one in value] if isinstance(value, list | tuple) else value


def known(study: Study, vectors: Any) -> list[Subject]:
    """Return the tuned baselines."""

    def make() -> Cell:
        study.say("baselines")
        fitted = baselines(study.split, study.data.texts, vectors)
        return ranked(fitted, study.split, {name: described(scorer) for name, scorer in fitted.items()})

    return [
        Subject(name, "baseline", [one], [facts]) for name, one, facts in unpack(study.cells.get("baselines", make))
    ]


def trained(study: Study) -> list[Subject]:
    """Return the teacher, and each preset as shipped, re-encoded, by text alone, undistilled, and beside a control."""
    found: dict[str, Subject] = {}
    for seed in range(study.plan.seeds):
        for name, one, facts in [*of_teacher(study, seed), *of_students(study, seed)]:
            kind = "control" if "random" in name else "teacher" if name.startswith("teacher") else "student"
            subject = found.setdefault(name, Subject(name, kind))
            subject.rankings.append(one)
            subject.facts.append(facts)
    return list(found.values())


def of_teacher(study: Study, seed: int) -> list[Ranked]:
    """Return what the teacher of a seed is scored as."""

    def make() -> Cell:
        model = teacher(study, seed)
        facts = {"parameters": encoder_parameters(model), "seconds": seconds(model.folder)}
        return ranked(subjects(model), study.split, {"teacher": facts})

    return unpack(study.cells.get(f"teacher-{seed}", make))


def of_students(study: Study, seed: int) -> list[Ranked]:
    """Return what the students of a seed are scored as."""

    def make(preset: str) -> Cell:
        model = student(study, seed, preset)
        bundle = study.home(seed) / f"{preset}.edgerec"
        size = package(model, PRECISION, bundle)["bytes"]
        facts = {**student_facts(model), "bytes": size}
        scorers: dict[str, Scorer] = {f"{preset}, shipped": BundleScorer(bundle, study.data)}
        scorers |= {name.replace("student", preset): one for name, one in subjects(model, seed).items()}
        renamed = {name.replace("random encoder", f"random {preset}"): one for name, one in scorers.items()}
        return ranked(renamed, study.split, {f"{preset}, shipped": facts, f"{preset}, re-encoded": facts})

    def make_undistilled() -> Cell:
        name, model = f"{first}, undistilled", student(study, seed, first, "undistilled")
        facts = student_facts(model)
        return ranked({name: subjects(model, seed)["student, re-encoded"]}, study.split, {name: facts})

    first, found = study.plan.presets[0], []
    for preset in study.plan.presets:
        found += unpack(study.cells.get(f"{preset}-{seed}", partial(make, preset)))
    return found + unpack(study.cells.get(f"undistilled-{seed}", make_undistilled))


def teacher(study: Study, seed: int) -> checkpoint.Checkpoint:
    """Return the trained teacher of a seed."""
    return train_teacher(study, study.data, study.split, seed, study.home(seed) / "teacher")


def student(study: Study, seed: int, preset: str, name: str | None = None) -> checkpoint.Checkpoint:
    """Return the trained student of a seed; with the name ``undistilled``, one that learned from the log alone."""
    folder, recipe = study.home(seed) / (name or preset), UNDISTILLED if name == "undistilled" else RECIPE
    return train_student(study, teacher(study, seed), study.data, study.split, preset, seed, folder, recipe)


def train_teacher(
    study: Study,
    data: Dataset,
    split: Split,
    seed: int,
    folder: Path,
    options: TeacherOptions | None = None,
    init: checkpoint.Checkpoint | None = None,
) -> checkpoint.Checkpoint:
    """Return a teacher, by default with the plan's options, trained where it is not there."""
    options, encoder = options or study.plan.teacher, init.encoder if init else study.encoder
    options = replace(options, stage_1=replace(options.stage_1, seed=seed), stage_2=replace(options.stage_2, seed=seed))
    return once(study, folder, lambda: fine_tune(data, split, encoder, options, folder, resume=True, init=init))


def train_student(
    study: Study,
    of: checkpoint.Checkpoint,
    data: Dataset,
    split: Split,
    preset: str,
    seed: int,
    folder: Path,
    recipe: Recipe = RECIPE,
) -> checkpoint.Checkpoint:
    """Return a student with the defaults, distilled where it is not there."""
    options = replace(study.plan.student, seed=seed)
    return once(
        study, folder, lambda: distill_checkpoint(of, data, split, preset, options, folder, True, recipe=recipe)
    )


def once(study: Study, folder: Path, work: Callable[[], Any]) -> checkpoint.Checkpoint:
    """Return the model in a folder, made first where it is not there; how long that took is kept beside it."""
    if not (folder / checkpoint.MODEL).exists():
        study.say(f"{folder}")
        start, resumed = time.perf_counter(), folder.exists()
        work()
        took = None if resumed else time.perf_counter() - start  # of an interrupted run, nobody knows
        write_json(folder / "seconds.json", {"seconds": took})
    return checkpoint.load(folder)


def seconds(folder: Path) -> float | None:
    """Return how long a model took to train, None where that was not measured in one go."""
    took: float | None = json.loads((folder / "seconds.json").read_text("utf-8"))["seconds"]
    return took


def student_facts(model: checkpoint.Checkpoint) -> dict[str, Any]:
    """Return a student's size, training time, and mean cosine to the teacher's text parts of titles it never saw."""
    near = model.info["validation_ndcg10"]["student"]
    found = {"parameters": encoder_parameters(model), "seconds": seconds(model.folder)}
    return {**found, "cosine_unseen": near["cosine"]["unseen"], "centred_unseen": near["centred"]["unseen"]}


def encoder_parameters(model: checkpoint.Checkpoint) -> int:
    """Return the number of weights of a model's text encoder."""
    return sum(parameter.numel() for parameter in text_encoder(model).parameters())


def ranked(scorers: Mapping[str, Scorer], split: Split, facts: Mapping[str, Any]) -> Cell:
    """Return what scorers rank, as a cell."""
    arrays = {}
    for name, scorer in scorers.items():
        arrays[f"validation/{name}"], arrays[f"test/{name}"] = answers(scorer, split)
    return Cell(arrays, {name: facts.get(name, {}) for name in scorers})


def unpack(cell: Cell) -> list[Ranked]:
    """Return what ``ranked`` put into a cell."""
    arrays = cell.arrays
    return [
        (name, Rankings(arrays[f"validation/{name}"], arrays[f"test/{name}"]), facts)
        for name, facts in cell.facts.items()
    ]
