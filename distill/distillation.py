"""Distillation: a small text encoder learns to give what the teacher's gives, judged by what the towers rank.

The towers stay as the teacher's training left them. The student is made from the teacher's layers or vectors, and
learns several things at once (``losses``): by default the teacher's text parts, the teacher's distribution over the
whole catalogue, and the true next item.
A catalogue is a small corpus, so views of its texts join, whose text parts the teacher computes. Some catalogue texts,
and every view of them, are left out: titles that come later must fare well too, and the report says how they do. When
that has been seen, the last part of the training takes them in: they are items like others, and the file knows them.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import TrainerCallback

from edgerec.distill.augment import views
from edgerec.distill.encoder import Progress, cached_text_vectors, no_progress
from edgerec.distill.ensemble import Ensemble
from edgerec.distill.lessons import CachedTokens, Lesson, Pupil
from edgerec.distill.losses import LossWeights
from edgerec.distill.options import TrainOptions
from edgerec.distill.projection import require_layers, student_from
from edgerec.distill.states import StateGuide
from edgerec.distill.static import StaticConfig, static_from, token_parts
from edgerec.distill.student import Config, random_student, tokenise
from edgerec.distill.text_student import TextStudent
from edgerec.distill.text_training import TextTraining
from edgerec.distill.towers import Towers
from edgerec.distill.training import fit
from edgerec.distill.vocabulary import WORDS, Trimmed, read_tokenizer, taken, trim, whole
from edgerec.errors import DataError, UsageError
from edgerec.interactions import Split

AGREEMENT = 0.02  # relative distance up to which the towers' text part is the teacher's: another machine's rounding

# The last step is kept: validation NDCG@10 moves by 0.005 between evaluations, and the best of ten was an early
# student, 5 times further from the teacher's vectors, that kept 1 to 2% less of the teacher's test NDCG@10.
OPTIONS = TrainOptions(steps=1500, batch_size=16, window=50, learning_rate=3e-3, evaluate_every=500, keep_best=False)


@dataclass(frozen=True)
class Recipe:
    """What a student learns from."""

    weights: LossWeights = LossWeights(next_item=0.05, vectors=30.0, listwise=1.0)
    sample: int | None = None  # texts re-encoded per step; None takes what the student can afford
    views: int = 2  # further texts per catalogue text
    most_views: int = 4000  # in all: the teacher encodes 200 a second on one core
    held_out: float = 0.02  # share of distinct catalogue texts kept away until they have been judged
    late: float = 0.2  # share of the steps that come after, and take them in
    words: int | None = WORDS  # common words kept in the vocabulary; None keeps all of it
    from_scratch: bool = False  # start from random weights, not from the teacher's

    def __post_init__(self) -> None:
        counts = (self.views, self.most_views, self.words or 0, (1 if self.sample is None else self.sample) - 1)
        if not (0 <= self.held_out < 1 and 0 <= self.late < 1) or min(counts) < 0:
            raise UsageError(
                f"got held_out {self.held_out}, late {self.late}, sample {self.sample}, views {self.views} up to "
                f"{self.most_views}, words {self.words}; expected shares below 1, a sample of at least 1, no negative "
                "number"
            )


RECIPE = Recipe()


@dataclass(frozen=True)
class Start:
    """A student to train on, in place of one that is made of the teacher."""

    encoder: TextStudent
    tokenizer_json: str
    callbacks: Sequence[TrainerCallback] = ()


@dataclass(frozen=True)
class Distilled:
    """A trained student."""

    encoder: TextStudent
    tokenizer_json: str
    report: dict[str, Any]


def distill(
    towers: Towers,
    teacher: Path,
    texts: list[str],
    split: Split,
    config: Config,
    options: TrainOptions = OPTIONS,
    folder: Path = Path("student"),
    resume: bool = False,
    recipe: Recipe = RECIPE,
    extra: Sequence[str] = (),
    progress: Progress = no_progress,
    ensemble: Ensemble | None = None,
    start: Start | None = None,
) -> Distilled:
    """Distil a teacher's text encoder into a student.

    Args:
        towers: The teacher's, trained; they are not changed.
        teacher: Hugging Face folder of the text encoder that the towers were trained on.
        texts: The catalogue's, one per row of the towers.
        split: The log, for the next items and for validation.
        config: The student's sizes.
        options: How the training goes.
        folder: For checkpoints.
        resume: Go on from the last checkpoint in ``folder``.
        recipe: What the student learns from.
        extra: Further unlabelled texts; they join the training and the vocabulary.
        progress: Called with the number of texts that the teacher has encoded.
        ensemble: Further teachers of the listwise loss.
        start: A student to train on; ``config`` is then its own, and ``recipe`` has no say in its vocabulary.

    Returns:
        The student at its best step, its tokenizer, and a report (see ``report``).

    Raises:
        UsageError: The teacher is not BERT-like, or smaller than the student, or the towers belong to other texts.
        DataError: The teacher's folder holds no encoder.
        InterruptedTraining: Ctrl-C; a checkpoint was saved.
    """
    held = held_out(texts, recipe.held_out, options.seed)
    further = [*extra, *further_texts(texts, held, recipe, options.seed)]
    lesson = Lesson([*texts, *further], goals(towers, teacher, texts, further, progress), held)
    if start:
        trimmed = taken(start.tokenizer_json, read_tokenizer(teacher))
    else:
        trimmed = vocabulary(teacher, lesson.texts, recipe.words)
    tokens = tokenise(trimmed.tokenizer_json, lesson.texts)
    model = open_teacher(teacher)
    taught, goal = {name: value[~lesson.unseen] for name, value in tokens.items()}, lesson.goal[~lesson.unseen]
    projection = towers.projection.detach().cpu()
    if start:
        student = start.encoder
    else:
        student = first_student(model, config, trimmed, taught, goal, projection, recipe, options.seed)
    guide = None
    if recipe.weights.hidden or recipe.weights.relation:
        guide = StateGuide(student, model, trimmed.kept, tokens, taught, recipe.weights, options.seed)
    control = random_student(model, config, trimmed.kept, goal.shape[1], options.seed)
    pupil = Pupil(student, control, tokens, trimmed.reason)
    callbacks = start.callbacks if start else ()
    said = teach(pupil, towers, lesson, split, options, folder, resume, recipe, guide, ensemble, callbacks=callbacks)
    return Distilled(student, trimmed.tokenizer_json, said)


def teach(
    pupil: Pupil,
    towers: Towers,
    lesson: Lesson,
    split: Split,
    options: TrainOptions,
    folder: Path,
    resume: bool = False,
    recipe: Recipe = RECIPE,
    guide: StateGuide | None = None,
    ensemble: Ensemble | None = None,
    label: str = "distillation",
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, Any]:
    """Train a student, new or given, in place; return how near it comes (see ``report``).

    Args:
        pupil: The student, and what it reads.
        towers: The teacher's; they are not changed.
        lesson: What is taught.
        split: The log.
        options: How the training goes.
        folder: For checkpoints.
        resume: Go on from the last checkpoint in ``folder``.
        recipe: Weights of the losses, and when the texts that were held out join.
        guide: Losses of states.
        ensemble: Further teachers of the listwise loss.
        label: What the progress bar says.
        callbacks: Called at every step.

    Raises:
        InterruptedTraining: Ctrl-C; a checkpoint was saved.
    """
    encoder = CachedTokens(pupil.student, pupil.tokens)
    judged = {"start": encoder.all(), "random": CachedTokens(pupil.control, pupil.tokens).all()}
    training = learning(pupil, encoder, towers, lesson, recipe, guide, ensemble)
    trained = [*pupil.student.parameters(), *(guide.parameters() if guide else ())]
    groups = [{"params": trained, "weight_decay": options.weight_decay}]
    admission = Admission(training, round((1 - recipe.late) * options.steps))
    best = fit(training, groups, split, options, folder, label, resume, callbacks=[admission, *callbacks])
    training.admit()  # where no step came after
    items, vectors = len(lesson.held), encoder.all()
    ratio = lengthen(pupil.student, vectors[:items], lesson.goal[:items])
    vectors[lesson.unseen] = training.unseen
    judged["student"] = vectors * ratio
    groups_of = {"seen": ~lesson.held, "unseen": lesson.held}
    return report(judged, lesson.goal, groups_of, pupil.vocabulary, best)


def learning(
    pupil: Pupil,
    encoder: CachedTokens,
    towers: Towers,
    lesson: Lesson,
    recipe: Recipe,
    guide: StateGuide | None = None,
    ensemble: Ensemble | None = None,
) -> TextTraining:
    """Return the module whose loss a student learns from, through ``encoder``."""
    sample = recipe.sample or pupil.student.affordable(pupil.tokens["attention_mask"])
    return TextTraining(frozen(towers), encoder, lesson.goal, recipe.weights, sample, lesson.unseen, guide, ensemble)


@torch.no_grad()
def lengthen(student: TextStudent, vectors: Tensor, goal: Tensor) -> float:
    """Bring a student's vectors to the mean length of the goal's, and return by what they grew.

    A squared distance is least where the student, unsure, stays near the mean: its vectors come out 1 to 3% short.
    """
    ratio = float(goal.norm(dim=1).mean() / vectors.norm(dim=1).mean().clamp(min=1e-12))
    for parameter in student.head.parameters():
        parameter.mul_(ratio)
    return ratio


class Admission(TrainerCallback):
    """Lets the texts that were held out join after so many steps."""

    def __init__(self, training: TextTraining, after: int) -> None:
        self.training, self.after = training, after

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the number of the step."""
        if state.global_step >= self.after:
            self.training.admit()


def vocabulary(teacher: Path, texts: Sequence[str], words: int | None) -> Trimmed:
    """Return the student's tokenizer: the teacher's, trimmed to texts and common words, or whole."""
    tokenizer_json = read_tokenizer(teacher)
    return whole(tokenizer_json) if words is None else trim(tokenizer_json, texts, words)


def first_student(
    teacher: Any,
    config: Config,
    trimmed: Trimmed,
    tokens: dict[str, Tensor],
    goal: Tensor,
    projection: Tensor,
    recipe: Recipe,
    seed: int,
) -> TextStudent:
    """Return the student that training starts from: made of the teacher, or random where that is asked for.

    Args:
        teacher: A Hugging Face BERT-like model.
        config: Sizes.
        trimmed: Its vocabulary.
        tokens: ``input_ids`` (the student's ids) and ``attention_mask``, int64 [M, L], that it is fitted to.
        goal: [M, d], the text parts to give for them.
        projection: [T, d], the towers'.
        recipe: Says whether to start from scratch.
        seed: Of random weights and of the sample that a projection is fitted to.
    """
    if recipe.from_scratch:
        return random_student(teacher, config, trimmed.kept, goal.shape[1], seed)
    if isinstance(config, StaticConfig):
        require_layers(teacher)
        kept = torch.from_numpy(trimmed.kept)
        around = kept[tokenise(trimmed.tokenizer_json, [""])["input_ids"][0]].tolist()
        return static_from(config, token_parts(teacher, kept, around, projection), tokens, goal)
    return student_from(teacher, config, trimmed.kept, tokens, goal, seed)


def held_out(texts: list[str], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose distinct texts to keep away from training, with all the items that bear them, bool [n_items]."""
    distinct = sorted(set(texts))
    count = min(round(share * len(distinct)), len(distinct) - 1)
    chosen = {distinct[row] for row in np.random.default_rng(seed).permutation(len(distinct))[:count]}
    return np.array([text in chosen for text in texts], dtype=np.bool_)


def further_texts(texts: list[str], held: NDArray[np.bool_], recipe: Recipe, seed: int) -> list[str]:
    """Return views of the texts that training may see."""
    sources = [text for text, out in zip(texts, held, strict=True) if not out]
    made = views(sources, min(recipe.views * len(sources), recipe.most_views), seed)
    kept_away = {text for text, out in zip(texts, held, strict=True) if out}
    return [view for view in made if view not in kept_away]


def goals(towers: Towers, teacher: Path, texts: list[str], further: list[str], progress: Progress) -> Tensor:
    """Return the teacher's text parts, [M, d]: the catalogue's, then those of further texts.

    Raises:
        UsageError: The towers' own text part is not what this teacher gives for these texts.
    """
    if len(texts) != len(towers.text):
        raise UsageError(f"got {len(texts)} texts for towers of {len(towers.text)} items; expected one per item")
    projection = towers.projection.detach().cpu()
    vectors = [cached_text_vectors(texts, teacher, progress)]
    if further:
        vectors.append(cached_text_vectors(further, teacher, progress))
    if vectors[0].shape[1] != len(projection):
        raise UsageError(
            f"got a teacher of width {vectors[0].shape[1]}; expected {len(projection)}, as the towers were trained on"
        )
    goal = torch.from_numpy(np.concatenate(vectors)) @ projection
    own = towers.text.detach().cpu()
    away = float((goal[: len(own)] - own).norm() / own.norm().clamp(min=1e-12))
    if away > AGREEMENT:
        raise UsageError(
            f"the text part of the towers is {away:.0%} away from what {teacher} gives for the catalogue; expected the "
            "texts and the encoder that they were trained with"
        )
    return goal


def open_teacher(folder: Path) -> Any:
    """Return the encoder of a Hugging Face folder, in float32.

    Raises:
        DataError: There is none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = transformers.AutoModel.from_pretrained(
                folder, local_files_only=True, attn_implementation="eager"
            ).float()
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{folder} holds no text encoder ({first}); expected a model folder") from error
    return model.eval()


def frozen(towers: Towers) -> Towers:
    """Return a copy of towers that no optimiser moves."""
    copied = copy.deepcopy(towers)
    return copied.requires_grad_(False)


def cosine(vectors: Tensor, goal: Tensor) -> float | None:
    """Return the mean cosine of rows, None where there are none."""
    return float(nn.functional.cosine_similarity(vectors, goal).mean()) if len(goal) else None


def report(
    judged: dict[str, Tensor], goal: Tensor, groups: dict[str, NDArray[np.bool_]], vocabulary: str, best: float
) -> dict[str, Any]:
    """Say how near encoders come to the teacher's text parts.

    Each of ``student``, ``start`` (before training) and ``random`` (the control) has, for ``seen`` and ``unseen``
    catalogue texts (these as they were before they were taken in) and for ``further`` ones, the mean ``cosine``, and
    the mean ``centred`` cosine: with the mean of the catalogue's goal taken off both sides. Much of every text part is
    that mean, so that a plain cosine flatters.
    """
    items = len(next(iter(groups.values())))
    rows = {name: torch.from_numpy(np.flatnonzero(chosen)) for name, chosen in groups.items()}
    rows["further"] = torch.arange(items, len(goal))
    mean = goal[:items].mean(0)
    said: dict[str, Any] = {"validation_ndcg10": best, "vocabulary": vocabulary}
    said["texts"] = {name: len(one) for name, one in rows.items()}
    for name, vectors in judged.items():
        said[name] = {
            "cosine": {group: cosine(vectors[one], goal[one]) for group, one in rows.items()},
            "centred": {group: cosine(vectors[one] - mean, goal[one] - mean) for group, one in rows.items()},
        }
    return said
