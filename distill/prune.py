"""From a model folder to a smaller student's: vocabulary, layers, heads and units, width, each followed by recovery.

A teacher's encoder becomes a student whose head does what pooling and projection did, exactly; a student is taken as it
is. It learns from the towers' text parts of the catalogue, and from what it made itself of further texts before it was
pruned, in the loop of ``distillation``. The vocabulary needs no recovery: all texts of the training read as before.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgerec.distill import checkpoint, student
from edgerec.distill.distillation import OPTIONS, RECIPE, further_texts, held_out, open_teacher, report
from edgerec.distill.encoder import Progress, no_progress, pooling_of
from edgerec.distill.lessons import CachedTokens, Lesson
from edgerec.distill.options import TrainOptions
from edgerec.distill.processes import processes
from edgerec.distill.projection import require_layers
from edgerec.distill.pruning_steps import Course, Cut, steps_to, vocabulary_step
from edgerec.distill.shapes import Shape
from edgerec.distill.sizing import Plan, Sizes, Target, planned, require_smaller, within
from edgerec.distill.static import StaticConfig, StaticEncoder
from edgerec.distill.student import StudentEncoder, random_student, student_vectors, tokenise
from edgerec.distill.text_student import TextStudent
from edgerec.distill.towers import Towers
from edgerec.distill.training import require_support
from edgerec.distill.vocabulary import read_tokenizer
from edgerec.errors import UsageError
from edgerec.files import write_json
from edgerec.interactions import Dataset, Split

AS_IT_IS = Sizes()
RECOVERY = replace(OPTIONS, steps=500, learning_rate=1e-3)  # of each step
STEPS, PLAN = "steps", "plan.json"
CHUNK = 256  # texts between two calls of a progress bar
Timer = Callable[[TextStudent, str], float]  # from a student and its tokenizer to ms per title


def prune_checkpoint(
    model: checkpoint.Checkpoint,
    data: Dataset,
    split: Split,
    out: Path,
    sizes: Sizes = AS_IT_IS,
    target: Target | None = None,
    options: TrainOptions = RECOVERY,
    resume: bool = False,
    progress: Progress = no_progress,
    timer: Timer | None = None,
) -> dict[str, Any]:
    """Prune a teacher's or a student's folder into a student's.

    Args:
        model: What ``fine_tune``, ``distill_checkpoint`` or this function wrote.
        data: The data that it was trained on.
        split: Its split.
        out: A new folder, or with ``resume`` an unfinished one.
        sizes: What is asked for.
        target: What the student may cost; sizes that are not given are scaled alike until it is met.
        options: Of every recovery.
        resume: Go on; steps that were finished are not made again.
        progress: Called with the number of further texts encoded.
        timer: Measures a student, where the target is a latency.

    Returns:
        A JSON value: ``before``, ``steps`` and ``after``, with sizes, parameters, FLOPs per token and NDCG@10.

    Raises:
        UsageError: Other data, an encoder that is not BERT-like, sizes that cannot be, or ``out`` holds something.
        InterruptedTraining: Ctrl-C.
    """
    model.require_data(data)
    require_support(options)
    start = Cut(*opened(model), {})
    require_smaller(plan_of(start.encoder), sizes)
    checkpoint.new_folder(out, resume)
    processes().wait_for_everyone()
    lesson = lesson_of(model.towers, start, data.texts, options.seed, progress)
    course = Course(model.towers, lesson, split, options, out / STEPS, resume)
    before = described(start, data.texts) | {"ndcg10": course.ndcg(start.encoder, start.tokenizer_json)}
    trim, planning = vocabulary_step(course, sizes.vocabulary), partial(plan_for, start)

    def first(encoder: TextStudent, tokenizer_json: str) -> Cut:
        """Trim, and plan before anything is written: a target out of reach leaves nothing behind."""
        cut = trim(encoder, tokenizer_json)
        kept_plan(out / STEPS / PLAN, resume, partial(planning, cut, data.texts, sizes, target, timer))
        return cut

    cut = course.step("vocabulary", first, start, None)
    plan = kept_plan(out / STEPS / PLAN, True, partial(planning, cut, data.texts, sizes, target, timer))
    joint = target.measure if target and sizes.heads is None and sizes.intermediate is None else None
    left = steps_to(course, plan_of(cut.encoder), plan, joint, mean_length(cut, data.texts))
    said = [cut.said]
    for place, (name, make) in enumerate(left):
        late = RECIPE.late if place == len(left) - 1 else 0.0  # held-out titles join when all else is done
        cut = course.step(name, make, cut, late)
        said.append(cut.said)
    learned = said[-1]["learned"] if left else as_it_is(course, cut)
    after = described(cut, data.texts) | {"ndcg10": said[-1]["ndcg10"]}
    steps = [{name: value for name, value in one.items() if name != "learned"} for one in said]
    found = {"before": before, "steps": steps, "after": after, "target": asdict(target) if target else None}
    if processes().is_main_process:
        student.save(out / checkpoint.ENCODER, cut.encoder, cut.tokenizer_json)
        info = {"kind": "student", "validation_ndcg10": learned, "sizes": after["sizes"], "pruning": found}
        made_with = {"options": asdict(options), "recipe": asdict(RECIPE), "further_teachers": []}
        checkpoint.save(out, model.towers, data, split, info | made_with)
    return found


def opened(model: checkpoint.Checkpoint) -> tuple[TextStudent, str]:
    """Return a model folder's encoder as a student, and its tokenizer.

    Raises:
        UsageError: The encoder is not BERT-like, or a text is not the mean of its tokens.
    """
    if model.info["kind"] == "student":
        return student.load(model.encoder)
    bert = open_teacher(model.encoder)
    require_layers(bert)
    if pooling_of(bert.config) != "mean":
        raise UsageError(f"{model.folder} takes a text's last token; expected an encoder with --pooling mean")
    if bert.embeddings.word_embeddings.embedding_dim != bert.config.hidden_size:
        raise UsageError(f"{type(bert).__name__} has embeddings of another width; expected those of BERT or RoBERTa")
    bert.pooler = None
    for module in bert.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # it only adds noise to the copying of a teacher
    bert.config.update({"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    projection = model.towers.projection.detach()
    encoder = StudentEncoder(bert, projection.shape[1], normalised=True)
    with torch.no_grad():
        encoder.head.weight.copy_(projection.T)
        encoder.head.bias.zero_()
    return encoder.eval(), read_tokenizer(model.encoder)


def lesson_of(towers: Towers, start: Cut, texts: list[str], seed: int, progress: Progress) -> Lesson:
    """Return what the pruned student learns from: the towers' text parts, and those of the unpruned one."""
    held = held_out(texts, RECIPE.held_out, seed)
    further = further_texts(texts, held, RECIPE, seed)
    parts = [towers.text.detach().cpu()]
    for place in range(0, len(further), CHUNK):
        chunk = further[place : place + CHUNK]
        parts.append(torch.from_numpy(student_vectors(start.encoder, start.tokenizer_json, chunk)))
        progress(place + len(chunk))
    return Lesson([*texts, *further], torch.cat(parts), held)


def plan_of(encoder: TextStudent) -> Plan:
    """Return the sizes that a student has."""
    if isinstance(encoder, StaticEncoder):
        return encoder.student_config
    assert isinstance(encoder, StudentEncoder)
    return Shape.of(encoder.bert)


def plan_for(start: Cut, cut: Cut, texts: list[str], sizes: Sizes, target: Target | None, timer: Timer | None) -> Plan:
    """Return the sizes to prune to.

    Args:
        start: The student as it was: a share of FLOPs is of its own.
        cut: The student with its last vocabulary: parameters and latency are counted with that one.
        texts: The catalogue's.
        sizes: What is asked for.
        target: What the student may cost.
        timer: Measures latency.
    """
    have, length = plan_of(cut.encoder), mean_length(cut, texts)
    if target is None:
        return planned(have, sizes)

    def measure(plan: Plan) -> float:
        if target.measure == "params":
            return parameters(cut.encoder, plan)
        if target.measure == "flops":
            return flops(plan, length) / max(flops(plan_of(start.encoder), length), 1)
        assert timer is not None
        return timer(of_size(cut.encoder, plan), cut.tokenizer_json)

    if target.measure == "flops" and isinstance(have, StaticConfig):
        raise UsageError("a static student has no layers, so no FLOPs to share; expected --target-params, or --hidden")
    return within(have, sizes, target, measure)


def kept_plan(path: Path, resume: bool, make: Callable[[], Plan]) -> Plan:
    """Return a plan: made and written, or read where a run goes on, since a latency is never measured twice alike."""
    if resume and path.exists():
        saved = json.loads(path.read_text("utf-8"))
        return Shape.read(saved) if "heads" in saved else StaticConfig(**saved)
    plan = make()
    if processes().is_main_process:
        write_json(path, asdict(plan))
    return plan


def of_size(encoder: TextStudent, plan: Plan) -> TextStudent:
    """Return a random student of planned sizes, with as many tokens as another."""
    bert: Any = getattr(encoder, "bert", None)
    table: Any = bert.embeddings.word_embeddings if bert else encoder.table
    return random_student(bert, plan, np.arange(table.num_embeddings), encoder.head.out_features)


def parameters(encoder: TextStudent, plan: Plan) -> int:
    """Return how many weights a student would have in planned sizes, its tables as long as they are."""
    size = encoder.head.out_features
    if isinstance(encoder, StaticEncoder):
        return encoder.table.num_embeddings * (plan.hidden + 1) + (plan.hidden + 1) * size
    assert isinstance(encoder, StudentEncoder) and isinstance(plan, Shape)
    tables = [one for one in encoder.bert.embeddings.children() if isinstance(one, nn.Embedding)]
    rows = sum(one.num_embeddings for one in tables) + 2  # and a norm
    return rows * plan.hidden + plan.layer_parameters() + (plan.hidden + 1) * size


def flops(plan: Plan, length: float) -> float:
    """Return the floating-point operations of the encoder's matrix products per token; a table has none."""
    return plan.flops(length) if isinstance(plan, Shape) else 0.0


def mean_length(cut: Cut, texts: list[str]) -> float:
    """Return the mean number of tokens of texts."""
    mask: Tensor = tokenise(cut.tokenizer_json, texts, cut.encoder.max_tokens)["attention_mask"]
    return float(mask.sum(1).float().mean())


def described(cut: Cut, texts: list[str]) -> dict[str, Any]:
    """Return a student's sizes, parameters and FLOPs per token."""
    plan = plan_of(cut.encoder)
    count = sum(one.numel() for one in cut.encoder.parameters())
    found = {"sizes": asdict(plan), "parameters": count, "flops_per_token": flops(plan, mean_length(cut, texts))}
    return found


def as_it_is(course: Course, cut: Cut) -> dict[str, Any]:
    """Return the report of a student that needed no recovery."""
    pupil, lesson = course.pupil(cut.encoder, cut.tokenizer_json), course.lesson
    judged = {"student": CachedTokens(pupil.student, pupil.tokens), "random": CachedTokens(pupil.control, pupil.tokens)}
    parts = {name: one.all() for name, one in judged.items()}
    groups = {"seen": ~lesson.held, "unseen": lesson.held}
    return report(parts, lesson.goal, groups, pupil.vocabulary, cut.said["ndcg10"])
