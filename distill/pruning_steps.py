"""The steps of pruning: each takes something out by its importance, recovers by distillation, and is kept on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch

from edgerec.distill import student
from edgerec.distill.distillation import RECIPE, learning, teach
from edgerec.distill.importance import Importance, importance
from edgerec.distill.lessons import CachedTokens, Lesson, Pupil
from edgerec.distill.options import TrainOptions
from edgerec.distill.processes import processes
from edgerec.distill.projection import fit_head, sampled
from edgerec.distill.pruning import keep_channels, keep_heads_and_units, keep_layers, keep_tokens
from edgerec.distill.safety import chosen
from edgerec.distill.shapes import Shape
from edgerec.distill.sizing import Plan, best, best_over_layers, best_within
from edgerec.distill.student import StudentEncoder, student_vectors, tokenise
from edgerec.distill.text_student import TextStudent
from edgerec.distill.towers import Towers
from edgerec.distill.vocabulary import open_tokenizer
from edgerec.files import write_json
from edgerec.interactions import Split
from edgerec.metrics import validation_ndcg

NOTE = "step.json"  # of a finished step


class Cut(NamedTuple):
    """A student with something taken out, and what there is to say of it, a JSON value."""

    encoder: TextStudent
    tokenizer_json: str
    said: dict[str, Any]


Make: TypeAlias = Callable[[TextStudent, str], Cut]


@dataclass(frozen=True)
class Course:
    """What stays as it is from step to step."""

    towers: Towers
    lesson: Lesson
    split: Split
    options: TrainOptions
    folder: Path  # of the steps, one in each
    resume: bool

    @property
    def items(self) -> list[str]:
        """The catalogue's texts."""
        return self.lesson.texts[: len(self.lesson.held)]

    def pupil(self, encoder: TextStudent, tokenizer_json: str) -> Pupil:
        """Return a student as the loop takes it."""
        tokens = tokenise(tokenizer_json, self.lesson.texts, encoder.max_tokens)
        size = open_tokenizer(tokenizer_json).get_vocab_size()
        return Pupil(encoder, student.control(encoder, size, self.options.seed), tokens, f"{size} tokens")

    def importance(self, encoder: TextStudent, tokenizer_json: str) -> Importance:
        """Return what the parts of a student are worth."""
        pupil = self.pupil(encoder, tokenizer_json)
        training = learning(pupil, CachedTokens(encoder, pupil.tokens), self.towers, self.lesson, RECIPE)
        return importance(training, encoder, self.split, self.options)

    def ndcg(self, encoder: TextStudent, tokenizer_json: str) -> float:
        """Return validation NDCG@10, the catalogue re-encoded."""
        text = student_vectors(encoder, tokenizer_json, self.items)
        return validation_ndcg(self.towers.arrays(text), self.split, 10)

    def step(self, name: str, make: Make, before: Cut, late: float | None) -> Cut:
        """Take something out of a student and recover, or read what an interrupted run has finished.

        Args:
            name: Of the step, and of its folder.
            make: Takes it out.
            before: The student.
            late: Share of the recovery that takes held-out titles in; None leaves recovery out.

        Returns:
            The student; ``said`` has ``ndcg10_pruned``, ``ndcg10`` and, after a recovery, its report ``learned``.

        Raises:
            InterruptedTraining: Ctrl-C.
        """
        home = self.folder / name
        if self.resume and (home / NOTE).exists():
            return Cut(*student.load(home / "student"), json.loads((home / NOTE).read_text("utf-8")))
        encoder, tokenizer_json, said = make(before.encoder, before.tokenizer_json)
        said = {"name": name, **said, "ndcg10_pruned": self.ndcg(encoder, tokenizer_json)}
        if late is not None:
            said["learned"] = self.recover(encoder, tokenizer_json, home / "checkpoints", name, late)
        said["ndcg10"] = self.ndcg(encoder, tokenizer_json)
        if processes().is_main_process:
            student.save(home / "student", encoder, tokenizer_json)
            write_json(home / NOTE, said)
        return Cut(encoder, tokenizer_json, said)

    def recover(
        self, encoder: TextStudent, tokenizer_json: str, folder: Path, name: str, late: float
    ) -> dict[str, Any]:
        """Train a student in place on what the unpruned one gives; return how near it comes."""
        pupil, recipe, label = self.pupil(encoder, tokenizer_json), replace(RECIPE, late=late), f"recovery, {name}"
        said = teach(
            pupil, self.towers, self.lesson, self.split, self.options, folder, self.resume, recipe, label=label
        )
        encoder.cpu().eval()
        return said


def vocabulary_step(course: Course, tokens: int | None) -> Make:
    """Return the step that leaves tokens out, all but so many or those that measurement asks for."""

    def make(encoder: TextStudent, tokenizer_json: str) -> Cut:
        seed = course.options.seed
        trimmed, found = chosen(encoder, tokenizer_json, course.items, course.lesson.texts, tokens, seed)
        smaller = keep_tokens(encoder, torch.from_numpy(trimmed.kept))
        said = {"vocabulary": trimmed.reason, "safety": found.tried if found else None}
        return Cut(smaller, trimmed.tokenizer_json, said)

    return make


def steps_to(course: Course, have: Plan, plan: Plan, measure: str | None, length: float) -> list[tuple[str, Make]]:
    """Return the steps that lead to planned sizes, in order; what is not smaller has none.

    Args:
        course: What stays as it is.
        have: The student's sizes.
        plan: Those to come.
        measure: What heads and units compete by; None where their numbers were asked for.
        length: Mean tokens of a text.
    """
    steps: list[tuple[str, Make]] = []
    if isinstance(have, Shape) and isinstance(plan, Shape):
        if plan.layers < have.layers:
            steps.append(("layers", layers_step(course, plan)))
        if any(sum(b) * have.layers < sum(a) * plan.layers for a, b in zip(sizes(have), sizes(plan), strict=True)):
            steps.append(("heads-and-units", heads_step(course, plan, measure, length)))
    if plan.hidden < have.hidden:
        steps.append(("hidden", hidden_step(course, plan)))
    return steps


def sizes(shape: Shape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the heads and the units of each layer."""
    return shape.heads, shape.intermediate


def layers_step(course: Course, plan: Shape) -> Make:
    """Return the step that leaves layers out."""

    def make(encoder: TextStudent, tokenizer_json: str) -> Cut:
        assert isinstance(encoder, StudentEncoder)
        scores = course.importance(encoder, tokenizer_json).layers
        kept = best(scores, plan.layers)
        return Cut(keep_layers(encoder, kept), tokenizer_json, {"kept": kept, "importance": scores.tolist()})

    return make


def heads_step(course: Course, plan: Shape, measure: str | None, length: float) -> Make:
    """Return the step that leaves heads and units out, ranked over all layers."""

    def make(encoder: TextStudent, tokenizer_json: str) -> Cut:
        assert isinstance(encoder, StudentEncoder)
        found, heads, units = course.importance(encoder, tokenizer_json), sum(plan.heads), sum(plan.intermediate)
        if measure is None:
            kept = best_over_layers(found.heads, heads) + best_over_layers(found.units, units)
        else:
            a_head, a_unit = plan.costs(measure, length)
            costs = [a_head] * plan.layers + [a_unit] * plan.layers
            kept = best_within([*found.heads, *found.units], costs, heads * a_head + units * a_unit)
        smaller = keep_heads_and_units(encoder, kept[: plan.layers], kept[plan.layers :])
        said = {"heads": [len(one) for one in kept[: plan.layers]], "units": [len(one) for one in kept[plan.layers :]]}
        return Cut(smaller, tokenizer_json, said)

    return make


def hidden_step(course: Course, plan: Plan) -> Make:
    """Return the step that leaves channels out everywhere, and fits the head to those that stay."""

    def make(encoder: TextStudent, tokenizer_json: str) -> Cut:
        kept = torch.tensor(best(course.importance(encoder, tokenizer_json).channels, plan.hidden))
        tokens, seen = course.pupil(encoder, tokenizer_json).tokens, ~course.lesson.unseen
        taught = {name: value[seen] for name, value in tokens.items()}
        smaller = keep_channels(encoder, kept, sampled(taught, course.options.seed))
        with torch.no_grad():
            fit_head(smaller, taught, course.lesson.goal[seen])
        return Cut(smaller, tokenizer_json, {"kept": len(kept)})

    return make
