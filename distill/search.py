"""Hyper-parameter search: stage 1 is trained again and again, and judged by validation NDCG@10.

optuna's tree-structured Parzen estimator proposes (Bergstra et al. 2011); a trial that stands below the median of the
earlier ones at the same step is pruned (Golovin et al. 2017). Each proposal has its own seed, and the journal in the
folder holds all trials: an interrupted search goes on as if nothing had happened, its last trial from the start.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from transformers import TrainerCallback

from edgerec.distill.options import TrainOptions
from edgerec.distill.processes import processes
from edgerec.distill.towers import TowerConfig, Towers
from edgerec.distill.training import METRIC, fit
from edgerec.errors import UsageError, require
from edgerec.interactions import FloatArray, Split

UNPRUNED = 4  # trials before the first that may be pruned


class Interval(NamedTuple):
    """A range that a number is drawn from."""

    low: float
    high: float
    log: bool = False


SPACE: dict[str, Interval | tuple[Any, ...]] = {
    "learning_rate": Interval(3e-4, 3e-2, log=True),
    "weight_decay": Interval(1e-3, 1.0, log=True),
    "history_dropout": Interval(0.0, 0.6),
    "residual_dropout": Interval(0.0, 0.6),
    "window": (20, 50, 100, 200),
    "batch_size": (16, 32, 64, 128),
    "embedding_size": (32, 64, 128),
    "shared": (True, False),
}


@dataclass(frozen=True)
class SearchPlan:
    """How much is searched, and what."""

    trials: int
    free: tuple[str, ...] = tuple(SPACE)  # the rest stays as given

    def __post_init__(self) -> None:
        if self.trials < 1 or not self.free:
            raise UsageError(f"got {self.trials} trials over {len(self.free)} options; expected at least 1 of each")
        if unknown := set(self.free) - set(SPACE):
            raise UsageError(f"no search over {', '.join(sorted(unknown))}; expected some of {', '.join(SPACE)}")


class Pruning(TrainerCallback):
    """Reports every evaluation to a trial, and stops the training of a hopeless one."""

    def __init__(self, trial: Any) -> None:
        self.trial, self.pruned = trial, False

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the metric."""
        self.trial.report(kwargs["metrics"][METRIC], state.global_step)
        unfinished = state.global_step < state.max_steps
        self.pruned = unfinished and bool(self.trial.should_prune())  # numpy's bool is no JSON
        control.should_training_stop |= self.pruned


def search(
    vectors: FloatArray, split: Split, towers: TowerConfig, training: TrainOptions, plan: SearchPlan, folder: Path
) -> tuple[TowerConfig, TrainOptions, list[dict[str, Any]]]:
    """Look for good options of stage 1.

    Args:
        vectors: float32 [n_items, T], text vectors.
        split: Training happens on its ``train``, the choice on its ``validation``.
        towers: What is searched from.
        training: Likewise; ``training.seed`` is the search's too.
        plan: How many trials, those of an interrupted search in ``folder`` counted, and what they vary.
        folder: For the journal.

    Returns:
        The best configuration and options, and all trials: ``ndcg10``, ``state``, ``step`` and what was tried.

    Raises:
        MissingExtraError: optuna is not installed.
        UsageError: Several processes: each would search on its own.
        InterruptedTraining: Ctrl-C.
    """
    if processes().num_processes > 1:
        raise UsageError("a search runs in one process; expected no `accelerate launch`: search first, then train")
    optuna, console = require("optuna", "search"), Console(stderr=True)
    study = open_study(optuna, folder)
    while (number := len(rows := finished(study))) < plan.trials:
        study.sampler = optuna.samplers.TPESampler(seed=1000 * training.seed + number)
        trial = study.ask()
        found = {name: suggest(trial, name) for name in plan.free}
        label = f"trial {number + 1}/{plan.trials}"
        run_trial(vectors, split, applied(towers, found), applied(training, found), study, trial, folder, label)
        console.print(f"{label}: {describe(finished(study)[-1])}; best {study.best_value:.4f}", soft_wrap=True)
    best_found = study.best_params
    return applied(towers, best_found), applied(training, best_found), rows


def open_study(optuna: Any, folder: Path) -> Any:
    """Open the journal in a folder, or begin one; a trial that was interrupted counts as failed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "journal.jsonl")))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED)
    study = optuna.create_study(
        storage=storage, study_name="stage-1", direction="maximize", pruner=pruner, load_if_exists=True
    )
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def finished(study: Any) -> list[dict[str, Any]]:
    """Return the trials that ran to their end or were pruned, in order."""
    trials = [trial for trial in study.trials if trial.state.name in {"COMPLETE", "PRUNED"}]
    return [
        {"ndcg10": trial.value, "state": trial.state.name.lower(), "step": trial.last_step, **trial.params}
        for trial in trials
    ]


def describe(row: dict[str, Any]) -> str:
    """Return a trial as one line."""
    values = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()}
    return ", ".join(f"{name} {value}" for name, value in values.items())


def suggest(trial: Any, name: str) -> Any:
    """Ask for one value."""
    space = SPACE[name]
    if isinstance(space, Interval):
        return trial.suggest_float(name, space.low, space.high, log=space.log)
    return trial.suggest_categorical(name, space)


def applied(options: Any, found: dict[str, Any]) -> Any:
    """Return options with those of the found values that are theirs."""
    return replace(options, **{field.name: found[field.name] for field in fields(options) if field.name in found})


def run_trial(
    vectors: FloatArray,
    split: Split,
    towers: TowerConfig,
    training: TrainOptions,
    study: Any,
    trial: Any,
    folder: Path,
    label: str,
) -> None:
    """Train towers and tell the study how well they did; what is left of it is the journal."""
    shutil.rmtree(folder / "trial", ignore_errors=True)
    torch.manual_seed(training.seed)
    model, pruning = Towers(vectors, split.warm, towers), Pruning(trial)
    groups = model.parameter_groups(training.learning_rate, training.weight_decay)
    once = replace(training, report_to=())
    ndcg = fit(model, groups, split, once, folder / "trial", label, callbacks=[pruning])
    shutil.rmtree(folder / "trial")
    if pruning.pruned:
        import optuna

        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    else:
        study.tell(trial, ndcg)
