"""The main job on real data, start to finish: what ``make demo`` runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.evaluate import evaluate, table
from edgerec.benchmarks.shipped import BundleScorer, latency
from edgerec.distill import checkpoint
from edgerec.distill.baselines import baselines
from edgerec.distill.compress import distill_checkpoint
from edgerec.distill.distillation import OPTIONS
from edgerec.distill.encoder import cached_text_vectors
from edgerec.distill.evaluation import subjects
from edgerec.distill.teacher import TeacherOptions, fine_tune
from edgerec.errors import UsageError
from edgerec.export import PRECISIONS
from edgerec.export.package import package
from edgerec.files import write_json
from edgerec.interactions import Dataset, Split
from edgerec.metrics import Scorer
from edgerec.runtime import Recommender
from edgerec.runtime.verify import verify

Result = TypeVar("Result")
Say = Callable[[str], None]


def demo(data: Dataset, split: Split, encoder: Path, out: Path, say: Say, seed: int = 0) -> dict[str, Any]:
    """Fine-tune, distil, export, verify, recommend and evaluate; steps whose output is in ``out`` are not repeated.

    Args:
        data: Catalogue and log.
        split: Of it.
        encoder: Folder of the text encoder to start from.
        out: Folder for the models, the bundle and ``demo.json``.
        say: Prints a line.
        seed: Of both trainings.

    Returns:
        The report that ``demo.json`` holds.

    Raises:
        UsageError: ``out`` holds a model of other data.
    """
    seconds: dict[str, float] = {}

    def step(name: str, work: Callable[[], Result]) -> Result:
        say(f"\n== {name}")
        start = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - start
        return result

    teacher_folder, student_folder, bundle = out / "teacher", out / "student", out / f"{data.name}.edgerec"
    options = TeacherOptions()
    options = replace(options, stage_1=replace(options.stage_1, seed=seed), stage_2=replace(options.stage_2, seed=seed))
    if not (teacher_folder / checkpoint.MODEL).exists():
        step("fine-tune", lambda: fine_tune(data, split, encoder, options, teacher_folder, resume=True))
    teacher = checkpoint.load(teacher_folder)
    teacher.require_data(data)
    if not (student_folder / checkpoint.MODEL).exists():
        distilled = replace(OPTIONS, seed=seed)
        step(
            "distill",
            lambda: distill_checkpoint(teacher, data, split, "tiny", distilled, student_folder, resume=True),
        )
    student = checkpoint.load(student_folder)
    student.require_data(data)
    exported = step("export", lambda: package(student, PRECISIONS[0], bundle))
    replayed = step("verify", lambda: verify(bundle))
    say(f"{replayed['requests']} golden requests and {replayed['texts']} texts as expected")
    step("recommend", lambda: show_user(data, split, bundle, say))
    vectors = cached_text_vectors(data.texts, encoder)

    def score() -> list[dict[str, Any]]:
        scorers: dict[str, Scorer] = {**baselines(split, data.texts, vectors), **subjects(teacher)}
        scorers |= {"shipped file": BundleScorer(bundle, data), **subjects(student, seed)}
        return evaluate(scorers, split)[0]

    rows = step("evaluate", score)
    masked = "seen items masked" if split.mask_seen else "repeats unmasked"
    say(f"{data.name}, {split.name}, {len(split.test)} users, all {split.n_items} items ranked, {masked}\n")
    say(table(rows))
    histories = [[data.item_ids[row] for row in split.test.histories[user]] for user in range(min(64, len(split.test)))]
    timed = step("measure", lambda: latency(bundle, histories, data.titles[:64]))
    say(latency_table(timed))
    say(f"\n{bundle}: {exported['bytes'] / 1e6:.2f} MB")
    report = {
        "schema": "edgerec-demo-1",
        "data": {"name": data.name, "fingerprint": data.fingerprint},
        "split": {"kind": split.name, "test_users": len(split.test), "seen_masked": split.mask_seen},
        "seed": seed,
        "rows": rows,
        "bundle": exported,
        "latency": timed,
        "seconds": seconds,
        "environment": environment(),
    }
    write_json(out / "demo.json", report)
    say(f"{out / 'demo.json'}: this report; in all {sum(seconds.values()):.0f} s")
    return report


def show_user(data: Dataset, split: Split, bundle: Path, say: Say) -> None:
    """Print ten recommended titles for the user in the middle of the log, beside what followed.

    Raises:
        UsageError: The split has no test user.
    """
    if not len(split.test):
        raise UsageError("no user has a test event; expected at least three events of one user")
    row = len(split.test) // 2
    history = [data.item_ids[item] for item in split.test.histories[row]]
    next_items = {data.item_ids[item] for item in split.test.targets[row]}
    say(f"user {data.user_ids[split.test.users[row]]}, {len(history)} events, the last five:")
    for item in split.test.histories[row][-5:]:
        say(f"    {data.titles[item]}")
    say("ten recommendations (* is what the user took next):")
    found = Recommender.load(bundle).recommend(history, 10)
    for number, entry in enumerate(found, 1):
        say(f"{number:>3} {'*' if entry.item in next_items else ' '} {entry.title}")
    followed = ", ".join(data.titles[item] for item in split.test.targets[row])
    say(f"what the user took next: {followed}")


def latency_table(timed: dict[str, Any]) -> str:
    """Return percentiles as a Markdown table."""
    lines = [f"| {timed['threads']} thread | n | p50 ms | p90 ms | p99 ms |", "|---|---|---|---|---|"]
    for name, row in timed.items():
        if name != "threads":
            cells = [f"{row[key]:.2f}" for key in ("p50_ms", "p90_ms", "p99_ms")]
            lines.append("| " + " | ".join([name, str(row["n"]), *cells]) + " |")
    return "\n".join(lines)
