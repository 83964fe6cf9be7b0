"""The training loop of every stage: transformers' Trainer, judged by validation NDCG@10 over the full catalogue.

Trainer brings batches, checkpoints, resuming, early stopping, mixed precision, several processes (`accelerate launch`),
TensorBoard and W&B. Ours are the windows that are drawn from the log, the metric, a loss that is one mean over all that
a step asks for, a progress bar, and an end to Ctrl-C that loses nothing.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from edgerec.distill.histories import Augmentation
from edgerec.distill.options import TrainOptions
from edgerec.distill.processes import processes
from edgerec.distill.softmax import PADDING, asked
from edgerec.errors import InterruptedTraining, MissingExtraError, UsageError
from edgerec.interactions import IntArray, Ragged, Split
from edgerec.metrics import validation_ndcg

METRIC = "eval_ndcg10"
KEPT = "eval_kept"  # the step, where it may be kept: Trainer keeps the highest, the latest of the good ones
# Validation NDCG@10 moves by 1% from one evaluation to the next. The last steps, at a falling learning rate, are better
# than an early lucky one.
NOISE = 0.01
# Of a step. 16 users of onlineretail and 64 of amazon-industrial (five events each) were best on validation;
# 64 of the one overfitted within 200 steps, 16 of the other had not learned enough after 600.
EVENTS = 800
USERS = (16, 64)  # fewest and most
SCHEDULERS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}  # Trainer's names
NOTHING = Augmentation()


class Windows(TrainerCallback):
    """Random windows of histories: a collator from user rows to right-padded ``history``, ``targets``, ``sources``.

    What is drawn depends on the seed, the epoch and the user alone, so that neither the number of processes nor an
    interruption changes it. Trainer tells the epoch, as to any callback.

    Args:
        histories: One per user.
        steps: int32 [total], the step of each event; a step's events are asked for after the step before.
        window: Events of a window that have a successor in it.
        augment: What happens to a window.
        seed: Of the draws.
    """

    def __init__(
        self, histories: Ragged, steps: IntArray, window: int, augment: Augmentation = NOTHING, seed: int = 0
    ) -> None:
        self.histories, self.steps, self.window = histories, Ragged(steps, histories.offsets), window
        self.augment, self.seed, self.epoch = augment, seed, 0

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the number of the epoch."""
        self.epoch = int(state.epoch)

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
        rng = np.random.default_rng((self.seed, self.epoch, user))
        events, steps = self.histories[user], self.steps[user]
        last_start = max(len(events) - self.window - 1, 0)
        start = int(rng.integers(last_start + 1))
        return self.augment(events[start : start + self.window + 1], steps[start : start + self.window + 1], rng)


class RankingTrainer(Trainer):
    """A Trainer whose evaluation ranks the full catalogue for the validation users.

    A model scores requests (``edgerec.metrics.Scorer``), and may have ``refresh()`` to recompute what it caches. Its
    loss is a mean over the sources of a batch. Batches and processes ask at different numbers of them: each counts by
    its share of the step's, so that the step's loss is the mean over all, however it was parted.
    """

    def __init__(self, *args: Any, split: Split, noise: float = NOISE, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.split, self.noise = split, noise

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[dict[str, Tensor]], Tensor]:
        """Return the batches of one step, and the number of sources in them, those of all processes together."""
        batches, _ = super().get_batch_samples(*args, **kwargs)
        count = torch.tensor(sum(map(count_sources, batches)), device=self.args.device)
        return batches, self.accelerator.gather(count).sum()

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Any:
        """Return the batch's loss times its share, times what Trainer and the processes' average divide by."""
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        if num_items_in_batch:
            parts = self.current_gradient_accumulation_steps * self.accelerator.num_processes
            loss = loss * (parts * count_sources(inputs) / num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return validation NDCG@10, and whether the step may be kept: it is, but for noise, as good as any before."""
        model: Any = self.model
        found = judge(model, self.split)
        good = found >= (1 - self.noise) * max(self.judged().values(), default=0.0)
        metrics = {METRIC: found, KEPT: self.state.global_step if good else -1}
        model.train()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def judged(self) -> dict[int, float]:
        """Return validation NDCG@10 by step, those before an interruption too."""
        return {int(entry["step"]): entry[METRIC] for entry in self.state.log_history if METRIC in entry}


def count_sources(batch: dict[str, Tensor]) -> int:
    """Return at how many places a batch asks for something."""
    return len(asked(batch["targets"], batch["sources"]).windows)


def judge(model: Any, split: Split) -> float:
    """Return validation NDCG@10 as the main process computes it: all processes then decide alike."""
    model.eval()
    found = [0.0]
    if processes().is_main_process:
        if hasattr(model, "refresh"):
            model.refresh()
        found = [validation_ndcg(model, split, 10)]
    return float(broadcast_object_list(found)[0])


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
        """Take SIGINT while training runs (in the main thread, where Python delivers it).

        Of several processes none does: they would stop at different steps, and wait for each other.
        """
        if threading.current_thread() is not threading.main_thread() or processes().num_processes > 1:
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


def require_support(options: TrainOptions) -> None:
    """Refuse what this machine cannot do.

    Raises:
        UsageError: The precision needs another device.
        MissingExtraError: What is to be reported to is not installed.
    """
    wanted, gpu = options.mixed_precision, torch.cuda.is_available()
    if wanted == "fp16" and not gpu:
        raise UsageError("fp16 needs a CUDA device, found none; expected --mixed-precision bf16 or no")
    if wanted == "bf16" and gpu and not torch.cuda.is_bf16_supported():
        raise UsageError("this CUDA device has no bf16; expected --mixed-precision fp16 or no")
    for name in options.report_to:
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(f"{name} is not installed; pip install {name}, or choose another --report-to")


def users_per_batch(split: Split, window: int) -> int:
    """Return how many users' windows make about ``EVENTS`` events, within ``USERS``."""
    lengths = split.train.lengths[split.train.lengths > 1]
    wanted = round(EVENTS / float(np.minimum(lengths, window).mean())) if len(lengths) else 0
    return min(max(wanted, USERS[0]), USERS[1])


def arguments(folder: Path, options: TrainOptions, users: int) -> TrainingArguments:
    """Return Trainer's arguments, with so many users per batch; a short run is judged at its end."""
    require_support(options)
    every = min(options.evaluate_every, options.steps)
    os.environ["ACCELERATE_MIXED_PRECISION"] = options.mixed_precision  # Trainer sets it, but never back to "no"
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=options.steps,
        per_device_train_batch_size=users,
        gradient_accumulation_steps=options.accumulate,
        learning_rate=options.learning_rate,
        lr_scheduler_type=SCHEDULERS[options.schedule],
        warmup_steps=min(50, options.steps // 10) if options.warmup is None else options.warmup,
        fp16=options.mixed_precision == "fp16",
        bf16=options.mixed_precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        seed=options.seed,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=options.keep_best,
        metric_for_best_model=KEPT,
        greater_is_better=True,
        logging_steps=20,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        report_to=list(options.report_to),
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
    callbacks: Sequence[TrainerCallback] = (),
) -> float:
    """Train a model on random windows of the log and leave it at its latest good step (or its last: ``keep_best``).

    Args:
        model: Returns ``{"loss": ...}`` from ``history`` and ``targets``, and scores requests.
        groups: AdamW's parameter groups.
        split: Where windows and validation come from.
        options: How the run goes.
        folder: For checkpoints and TensorBoard's scalars.
        label: What the progress bar says.
        resume: Go on from the last checkpoint in ``folder``, if there is one.
        strict: Keep the best step, and the model as given unless training made it better; without, an equal one is
            replaced, and the latest of the steps that are as good as the best but for ``NOISE`` is kept.
        callbacks: Further ones.

    Returns:
        The validation NDCG@10 of what is kept.

    Raises:
        InterruptedTraining: Ctrl-C; a checkpoint was saved.
    """
    floor = judge(model, split)  # of what the model computes, not of what its tables were filled with
    start = {name: value.clone() for name, value in model.state_dict().items()}
    windows = Windows(split.train, split.train_steps, options.window, options.augment, options.seed)
    early = [EarlyStoppingCallback(options.patience)] if options.keep_best else []
    bar = [Bar(label)] if processes().is_main_process else []
    interrupt = Interrupt()
    trainer: Any = RankingTrainer(
        split=split,
        noise=0.0 if strict else NOISE,
        model=model,
        args=arguments(folder, options, options.batch_size or users_per_batch(split, options.window)),
        train_dataset=windows.users(),
        eval_dataset=split.validation.users.tolist(),  # Trainer wants one; `evaluate` takes the split
        data_collator=windows,
        optimizers=(torch.optim.AdamW(groups, lr=options.learning_rate), None),
        callbacks=[windows, *early, interrupt, *bar, *callbacks],
    )
    trainer.remove_callback(PrinterCallback)  # ours is the bar
    checkpoint = last_checkpoint(folder) if resume else None
    with interrupt.listening():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if interrupt.asked:
        raise InterruptedTraining(f"stopped at step {trainer.state.global_step}; go on with --resume ({folder})")
    judged, last = trainer.judged(), trainer.state.global_step
    if not options.keep_best:
        return judged[last] if last in judged else trainer.evaluate()[METRIC]
    kept = judged[int(trainer.state.best_metric)]
    if floor > kept or (strict and floor == kept):
        model.load_state_dict(start)
    model.eval()
    return max(kept, floor)
