"""The training loop of every stage: transformers' Trainer, judged by validation NDCG@10 over the full catalogue.

Trainer brings batches, checkpoints, resuming, early stopping and TensorBoard. Ours are the windows that are drawn from
the log, the metric, a progress bar, and an end to Ctrl-C that loses nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from edgerec.distill.softmax import PADDING
from edgerec.errors import InterruptedTraining, UsageError
from edgerec.interactions import IntArray, Ragged, Split
from edgerec.metrics import validation_ndcg

METRIC = "eval_ndcg10"


@dataclass(frozen=True)
class TrainOptions:
    """How one run of training goes."""

    steps: int = 800
    batch_size: int = 64  # users, a window of each
    window: int = 100  # events; a longer history gives a random window each time
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    evaluate_every: int = 100  # steps
    patience: int = 4  # evaluations without a better one
    keep_best: bool = True  # of all evaluations; False keeps the last step, and does not stop early
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.window < 1 or self.evaluate_every < 1:
            raise UsageError(
                f"got steps {self.steps}, batch {self.batch_size}, window {self.window}, evaluation every "
                f"{self.evaluate_every}; expected at least 1 of each"
            )


class Windows:
    """Random windows of histories: a collator from user rows to right-padded ``history``, ``targets``, ``sources``.

    Args:
        histories: One per user.
        steps: int32 [total], the step of each event; a step's events are asked for after the step before.
        window: Events of a window that have a successor in it.
    """

    def __init__(self, histories: Ragged, steps: IntArray, window: int) -> None:
        self.histories, self.steps, self.window = histories, Ragged(steps, histories.offsets), window

    def users(self) -> list[int]:
        """Return the users with something to predict: more than one step."""
        starts, ends = self.histories.offsets[:-1], self.histories.offsets[1:]
        some = np.flatnonzero(ends > starts)
        return some[self.steps.values[starts[some]] != self.steps.values[ends[some] - 1]].tolist()

    def __call__(self, users: list[int]) -> dict[str, Tensor]:
        """Draw a window of at most ``window + 1`` events per user, int64 [B, L] each.

        ``targets[b, t]`` is the event after ``history[b, t]``, and is asked for at ``sources[b, t]``, the last event of
        an earlier step. Events of a window's first step are no targets.
        """
        drawn = [self.draw(user) for user in users]
        length = max(len(events) for events, _ in drawn) - 1
        batch = np.full((3, len(users), length), PADDING, dtype=np.int64)
        for row, (events, steps) in enumerate(drawn):
            sources = np.searchsorted(steps, steps[1:]) - 1
            batch[0, row, : len(events) - 1] = events[:-1]
            batch[1, row, : len(events) - 1] = np.where(sources >= 0, events[1:], PADDING)
            batch[2, row, : len(events) - 1] = sources
        return dict(zip(("history", "targets", "sources"), map(torch.from_numpy, batch), strict=True))

    def draw(self, user: int) -> tuple[IntArray, IntArray]:
        """Return the events and steps of one random window; one inside a single long basket asks for nothing."""
        events, steps = self.histories[user], self.steps[user]
        last_start = max(len(events) - self.window - 1, 0)
        start = int(torch.randint(last_start + 1, ()))  # torch's generator: Trainer saves and resumes its state
        return events[start : start + self.window + 1], steps[start : start + self.window + 1]


class RankingTrainer(Trainer):
    """A Trainer whose evaluation ranks the full catalogue for the validation users.

    A model scores requests (``edgerec.metrics.Scorer``), and may have ``refresh()`` to recompute what it caches.
    """

    def __init__(self, *args: Any, split: Split, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.split = split

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return validation NDCG@10."""
        model: Any = self.model
        model.eval()
        if hasattr(model, "refresh"):
            model.refresh()
        metrics = {METRIC: validation_ndcg(model, self.split, 10)}
        model.train()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class Interrupt(TrainerCallback):
    """On Ctrl-C, ends the step in hand, saves a checkpoint and stops; a second Ctrl-C kills as usual."""

    def __init__(self) -> None:
        self.asked = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint and the end."""
        if self.asked:
            control.should_save = control.should_training_stop = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT while training runs (in the main thread, where Python delivers it)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            self.asked = True
            signal.signal(signal.SIGINT, previous)

        previous = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)


class Bar(TrainerCallback):
    """A rich progress bar on stderr (plain lines where that is no terminal) with the loss and the last NDCG@10."""

    def __init__(self, label: str) -> None:
        self.label, self.loss, self.ndcg, self.best = label, float("nan"), float("nan"), float("nan")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.console = Console(stderr=True)
        self.progress = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True)

    def text(self) -> str:
        """Return what stands left of the bar."""
        return f"{self.label}: loss {self.loss:.3f}, validation NDCG@10 {self.ndcg:.4f} (best {self.best:.4f})"

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw the bar."""
        self.task = self.progress.add_task(self.text(), total=state.max_steps)
        if self.console.is_terminal:
            self.progress.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move on."""
        self.progress.update(self.task, completed=state.global_step, description=self.text())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Take the loss."""
        self.loss = (logs or {}).get("loss", self.loss)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        """Take the metric; without a terminal, print a line."""
        self.ndcg = (metrics or {})[METRIC]
        self.best = float(np.fmax(self.best, self.ndcg))
        if not self.console.is_terminal:
            self.console.print(f"step {state.global_step}/{state.max_steps}, {self.text()}", soft_wrap=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the bar away."""
        self.progress.stop()


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint: one whose ``trainer_state.json``, written last, is there."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return max(whole, key=lambda path: int(path.name.split("-")[-1]), default=None)


def arguments(folder: Path, options: TrainOptions) -> TrainingArguments:
    """Return Trainer's arguments; a short run is judged at its end."""
    every = min(options.evaluate_every, options.steps)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=min(50, options.steps // 10),
        seed=options.seed,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=options.keep_best,
        metric_for_best_model=METRIC,
        greater_is_better=True,
        logging_steps=20,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        report_to=["tensorboard"],
    )


def fit(
    model: nn.Module,
    groups: list[dict[str, Any]],
    split: Split,
    options: TrainOptions,
    folder: Path,
    label: str,
    resume: bool = False,
    strict: bool = False,
) -> float:
    """Train a model on random windows of the log and leave it at its best step (or its last: ``keep_best``).

    Args:
        model: Returns ``{"loss": ...}`` from ``history`` and ``targets``, and scores requests.
        groups: AdamW's parameter groups.
        split: Where windows and validation come from.
        options: How the run goes.
        folder: For checkpoints and TensorBoard's scalars.
        label: What the progress bar says.
        resume: Go on from the last checkpoint in ``folder``, if there is one.
        strict: Keep the model as given unless training made it better; without, an equal one is replaced.

    Returns:
        The validation NDCG@10 of what is kept: the best, that of the model as given counted too, or the last.

    Raises:
        InterruptedTraining: Ctrl-C; a checkpoint was saved.
    """
    scorer: Any = model.eval()
    if hasattr(scorer, "refresh"):
        scorer.refresh()  # the floor is what the model computes, not what its tables were filled with
    start = {name: value.clone() for name, value in model.state_dict().items()}
    floor = validation_ndcg(scorer, split, 10)
    windows, interrupt = Windows(split.train, split.train_steps, options.window), Interrupt()
    trainer: Any = RankingTrainer(
        split=split,
        model=model,
        args=arguments(folder, options),
        train_dataset=windows.users(),
        eval_dataset=split.validation.users.tolist(),  # Trainer wants one; `evaluate` takes the split
        data_collator=windows,
        optimizers=(torch.optim.AdamW(groups, lr=options.learning_rate), None),
        callbacks=[*([EarlyStoppingCallback(options.patience)] if options.keep_best else []), interrupt, Bar(label)],
    )
    trainer.remove_callback(PrinterCallback)  # ours is the bar
    checkpoint = last_checkpoint(folder) if resume else None
    with interrupt.listening():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if interrupt.asked:
        raise InterruptedTraining(f"stopped at step {trainer.state.global_step}; go on with --resume ({folder})")
    if not options.keep_best:
        return trainer.evaluate()[METRIC]
    best = float(trainer.state.best_metric or 0.0)
    if floor > best or (strict and floor == best):
        model.load_state_dict(start)
    model.eval()
    return max(best, floor)
