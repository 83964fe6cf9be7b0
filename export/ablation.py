"""Which part of the distillation brings what: students of a study's own teachers, each with one thing changed.

A variant is data: how its student's training differs from the default. It has a folder of models and cells of its own,
so that one that is added later makes none of the others again. An altered one is refused there: give it a new name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgerec.benchmarks.cells import Cell, Cells
from edgerec.benchmarks.quality import K, Values, fact, interval, markdown, paired, ratio
from edgerec.distill import checkpoint
from edgerec.distill.compress import distill_checkpoint
from edgerec.distill.distillation import RECIPE, Recipe
from edgerec.distill.ensemble import Ensemble, further_teacher
from edgerec.distill.evaluation import subjects
from edgerec.distill.options import TrainOptions
from edgerec.export.package import package
from edgerec.export.study import (
    PRECISION,
    Study,
    encoder_parameters,
    heading,
    of_teacher,
    once,
    seconds,
    setting,
    student,
    teacher,
    to_json,
)
from edgerec.metrics import ndcg, rank

WAYS = ("re-encoded", "text-only")
REFERENCES = ("teacher", "default")


@dataclass(frozen=True)
class Variant:
    """How a student's training differs from the default."""

    name: str
    weights: Mapping[str, float] = field(default_factory=dict)  # by the fields of LossWeights
    changes: Mapping[str, Any] = field(default_factory=dict)  # by the further fields of Recipe
    further: tuple[tuple[str, float], ...] = ()  # teachers beside the first, which weighs 1
    exported: bool = False  # its file is made too, for its bytes

    @property
    def recipe(self) -> Recipe:
        """What the student learns from."""
        return replace(RECIPE, weights=replace(RECIPE.weights, **self.weights), **self.changes)


# The weights of the further losses are not tuned: each is to count less than the default's vectors, which weigh 30.
VARIANTS = (
    Variant("default", exported=True),
    Variant("without-vectors", {"vectors": 0.0}),
    Variant("without-listwise", {"listwise": 0.0}),
    Variant("without-next-item", {"next_item": 0.0}),
    Variant("with-logits", {"logits": 0.1}),
    Variant("with-hidden", {"hidden": 1.0}),
    Variant("with-relation", {"relation": 1.0}),
    Variant("confidence-0.5", {"confidence": 0.5}),
    Variant("temperature-2", {"temperature": 2.0}),
    Variant("beside-itemknn", further=(("itemknn", 0.5),)),
    Variant("beside-ease", further=(("ease", 0.5),)),
    Variant("from-scratch", changes={"from_scratch": True}),
    Variant("full-vocabulary", changes={"words": None}, exported=True),
    Variant("undistilled", {"next_item": 1.0, "vectors": 0.0, "listwise": 0.0}, {"from_scratch": True}),
)
OWN = {"default": None, "undistilled": "undistilled"}  # variants that the study trains itself, by its own names


def run_ablation(study: Study, steps: int | None = None) -> dict[str, Any]:
    """Train, where they are not there, a study's teachers and every variant of its first preset's student.

    Args:
        study: An opened study; an ablation that was interrupted goes on in its folder.
        steps: Of the students' training; None for the plan's.

    Returns:
        A JSON value: a row for the teacher and for each variant.

    Raises:
        UsageError: This part's folder holds one of other settings.
        InterruptedTraining: Ctrl-C.
    """
    options = replace(study.plan.student, steps=steps or study.plan.student.steps)
    homes = {
        one.name: Cells(
            study.folder / "ablation" / f"{options.steps}-steps" / one.name, to_json({"variant": asdict(one)})
        )
        for one in VARIANTS
    }
    made: dict[str, list[Cell]] = {"teacher": [], **{one.name: [] for one in VARIANTS}}
    for seed in range(study.plan.seeds):  # all of one seed first: what was interrupted can be told with fewer seeds
        made["teacher"].append(teacher_cell(study, seed))
        for one in VARIANTS:
            cells, training = homes[one.name], replace(options, seed=seed)
            make = partial(variant_cell, study, one, training, cells.folder / f"seed-{seed}")
            made[one.name].append(cells.get(str(seed), make))
    differs = {one.name: to_json(asdict(one)) for one in VARIANTS}
    return {
        "schema": "edgerec-ablation-1",
        **setting(study),
        "preset": study.plan.presets[0],
        "steps": options.steps,
        "steps_of_default": study.plan.student.steps,
        "rows": rows(made, differs),
    }


def teacher_cell(study: Study, seed: int) -> Cell:
    """Return the study's own answers of a teacher as NDCG@10 per user and way."""
    found = {name: (one.test, facts) for name, one, facts in of_teacher(study, seed)}
    names = zip(WAYS, ("teacher", "teacher, text-only"), strict=True)
    return Cell({way: ndcg(found[name][0], study.split.test, K) for way, name in names}, found["teacher"][1])


def variant_cell(study: Study, variant: Variant, options: TrainOptions, folder: Path) -> Cell:
    """Return NDCG@10 per user and way of a variant's student, what it costs, and how it does on unseen titles."""
    model, split = variant_student(study, variant, options, folder), study.split
    facts: dict[str, Any] = {"parameters": encoder_parameters(model), "seconds": seconds(model.folder)}
    facts["unseen"] = model.info["validation_ndcg10"]["student"]["centred"]["unseen"]
    if variant.exported:
        facts["bytes"] = package(model, PRECISION, folder.with_suffix(".edgerec"))["bytes"]
    scorers = subjects(model, options.seed)
    ranked = {way: rank(scorers[f"student, {way}"], split.test, K, split.mask_seen) for way in WAYS}
    return Cell({way: ndcg(one, split.test, K) for way, one in ranked.items()}, facts)


def variant_student(study: Study, variant: Variant, options: TrainOptions, folder: Path) -> checkpoint.Checkpoint:
    """Return a variant's student, trained where neither this folder nor the study has it."""
    if variant.name in OWN and options.steps == study.plan.student.steps:
        return student(study, options.seed, study.plan.presets[0], OWN[variant.name])
    of, data, split = teacher(study, options.seed), study.data, study.split

    def work() -> None:
        further = [further_teacher(name, weight, data, split) for name, weight in variant.further]
        ensemble, preset = Ensemble(1.0, further) if further else None, study.plan.presets[0]
        distill_checkpoint(
            of, data, split, preset, options, folder, resume=True, recipe=variant.recipe, ensemble=ensemble
        )

    return once(study, folder, work)


def rows(made: Mapping[str, Sequence[Cell]], differs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row per subject: each way's NDCG@10 over users averaged over seeds, and against both references."""
    values: dict[str, dict[str, Values]] = {
        name: {way: np.mean([cell.arrays[way] for cell in cells], axis=0) for way in WAYS}
        for name, cells in made.items()
    }
    return [
        {
            "name": name,
            "differs": differs.get(name),
            "seeds": len(cells),
            **{
                way: {
                    "ndcg10": interval(values[name][way]),
                    "by_seed": [float(cell.arrays[way].mean()) for cell in cells],
                    **{f"against_{one}": paired(values[name][way], values[one][way]) for one in REFERENCES},
                }
                for way in WAYS
            },
            "facts": [cell.facts for cell in cells],
        }
        for name, cells in made.items()
    ]


def report(result: Mapping[str, Any]) -> str:
    """Return an ablation as Markdown."""
    steps, default = result["steps"], result["steps_of_default"]
    shorter = "" if steps == default else f" in place of {default}"
    caption = (
        f"{heading(result)} Variants of the {result['preset']} student, {steps} steps{shorter}; NDCG@10, paired over "
        "users. Text-only is set against the teacher's text-only. Cosine: to the teacher's text parts of titles that "
        "training never saw, their mean taken off."
    )
    return f"{caption}\n\n{table(result['rows'])}\n"


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    head = [""]
    for way in WAYS:
        head += [f"{way} (95%)", "of teacher", "of default"]
    head += ["cosine, unseen", "parameters", "bytes", "seconds"]
    lines = []
    for row in found:
        cells = [row["name"]]
        for way in WAYS:
            cells.append("{mean:.4f} ({low:.4f}, {high:.4f})".format(**row[way]["ndcg10"]))
            cells += [one if row["name"] == one else ratio(row[way][f"against_{one}"]) for one in REFERENCES]
        unseen = [one["unseen"] for one in row["facts"] if one.get("unseen") is not None]
        cells.append(f"{np.mean(unseen):.3f}" if unseen else "")
        cells += [fact(row["facts"], name) for name in ("parameters", "bytes", "seconds")]
        lines.append(cells)
    return markdown(head, lines)
