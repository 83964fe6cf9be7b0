"""How a run of training goes, and the closed choices of its options; no torch, so that the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass

from edgerec.distill.histories import Augmentation
from edgerec.errors import UsageError

SCHEDULES = ("linear", "cosine", "constant")
PRECISIONS = ("no", "bf16", "fp16")
REPORTERS = ("tensorboard", "wandb")


@dataclass(frozen=True)
class TrainOptions:
    """How one run of training goes. A step takes ``batch_size * accumulate`` users of every process."""

    steps: int = 800
    batch_size: int | None = None  # users, a window of each; None for as many as the log asks for
    accumulate: int = 1  # batches per step
    window: int = 100  # events; a longer history gives a random window each time
    learning_rate: float = 2e-3
    schedule: str = SCHEDULES[0]  # of the learning rate, after the warm-up
    warmup: int | None = None  # steps of a rising learning rate; None for a tenth of all, at most 50
    weight_decay: float = 0.01
    evaluate_every: int = 100  # steps
    patience: int = 4  # evaluations in a row that may be worse than the best, but for noise
    keep_best: bool = True  # of all evaluations; False keeps the last step, and does not stop early
    mixed_precision: str = PRECISIONS[0]
    augment: Augmentation = Augmentation()
    report_to: tuple[str, ...] = REPORTERS[:1]
    seed: int = 0

    def __post_init__(self) -> None:
        counts = {
            "steps": self.steps,
            "batch size": 1 if self.batch_size is None else self.batch_size,
            "accumulate": self.accumulate,
            "window": self.window,
            "evaluation every": self.evaluate_every,
            "patience": self.patience,
        }
        low = [f"{name} {count}" for name, count in counts.items() if count < 1]
        if low:
            raise UsageError(f"got {', '.join(low)}; expected at least 1")
        if min(self.learning_rate, self.weight_decay, self.warmup or 0) < 0:
            raise UsageError(
                f"got learning rate {self.learning_rate}, weight decay {self.weight_decay}, warm-up {self.warmup}; "
                "expected no negative number"
            )
        for name, value, known in (
            ("schedule", {self.schedule}, SCHEDULES),
            ("mixed precision", {self.mixed_precision}, PRECISIONS),
            ("place to report to", set(self.report_to), REPORTERS),
        ):
            if unknown := value - set(known):
                raise UsageError(f"unknown {name} {', '.join(sorted(unknown))}; expected one of {', '.join(known)}")
