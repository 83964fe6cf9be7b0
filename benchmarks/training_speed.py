"""How long training takes, how much memory it holds, and where the time goes: a teacher and its tiny student.

    python -m edgerec.benchmarks.training_speed ml-100k --out benchmarks/results/training-ml-100k.json

Both commands run with their defaults in new processes, under cProfile, which costs little where tensors do the work.
No text vector is taken from the cache. Models go to a temporary folder.
"""

from __future__ import annotations

import os
import pstats
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.machine import Meter
from edgerec.benchmarks.quality import markdown
from edgerec.cli import main as run
from edgerec.errors import EdgerecError
from edgerec.files import cache_dir, write_result

VECTORS = "text-vectors"  # of the cache
# phase -> functions whose time it is, and those inside them whose it is not; by the end of the file's name
TRAINER, TRAINING = "transformers/trainer.py", "distill/training.py"
PHASES: dict[str, tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]] = {
    "encoding texts, frozen": ((("distill/encoder.py", "encode"),), ()),
    "first student": ((("distill/distillation.py", "first_student"),), ()),
    "forward": (((TRAINING, "compute_loss"),), ()),
    "backward": (((TRAINER, "training_step"),), ((TRAINING, "compute_loss"),)),
    "validation, checkpoints": (((TRAINER, "_maybe_log_save_evaluate"),), ()),
    "batches, optimizer": (
        ((TRAINER, "train"),),
        ((TRAINER, "training_step"), (TRAINER, "_maybe_log_save_evaluate")),
    ),
    "new items' calibration": ((("distill/calibration.py", "calibrate_cold"),), ()),
}
REST = "imports, data, rest"


def phases(profile: Any) -> dict[str, float]:
    """Return the seconds of each phase of a profile; together they are all of its time.

    Args:
        profile: ``pstats.Stats`` of one of the training commands.
    """

    def taken(functions: Sequence[tuple[str, str]]) -> float:
        return sum(
            entry[3]
            for (file, _, function), entry in profile.stats.items()
            if any(file.endswith(end) and function == name for end, name in functions)
        )

    found = {phase: taken(whole) - taken(inside) for phase, (whole, inside) in PHASES.items()}
    return {**found, REST: profile.total_tt - sum(found.values())}


def measured(arguments: Sequence[str], folder: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Run a command of edgerec; return wall and processor seconds, the largest resident set, and phases.

    Raises:
        EdgerecError: It failed.
    """
    import resource

    profile = folder / "profile"
    command = [sys.executable, "-m", "cProfile", "-o", str(profile), "-m", "edgerec", *arguments]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environ)
    try:
        _, status, used = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)  # or Popen would wait for it once more
    if process.returncode or not profile.exists():
        raise EdgerecError(f"edgerec {arguments[0]} ended with code {process.returncode}; see above")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    assert isinstance(used, resource.struct_rusage)
    return {
        "command": arguments[0],
        "seconds": time.monotonic() - began,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss * unit / 1e6,
        "phases": phases(pstats.Stats(str(profile))),
    }


def report(result: Mapping[str, Any]) -> str:
    """Return a result as Markdown."""
    steps, ran = result["steps"], result["environment"]
    total = sum(one["seconds"] for one in steps)
    head = ["", "seconds", "processor seconds", "peak MB", *steps[0]["phases"]]
    lines = [
        [
            one["command"],
            *(f"{one[name]:.0f}" for name in ("seconds", "processor_seconds", "peak_mb")),
            *(f"{seconds / sum(one['phases'].values()):.0%}" for seconds in one["phases"].values()),
        ]
        for one in steps
    ]
    caption = (
        f"{result['data']}: {total / 60:.1f} minutes in all, {ran['cores']} cores, {result['threads']} threads; other "
        f"processes took {result['load']['foreign_cores']:.2f} cores meanwhile ({ran['cpu']}). Shares of each "
        "process's time."
    )
    return f"{caption}\n\n{markdown(head, lines)}\n"


@click.command()
@click.argument("data")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File for the result as JSON.")
def main(data: str, out: Path) -> None:
    """Train a teacher of DATA and its tiny student, and say what it took."""
    meter = Meter()
    with TemporaryDirectory(prefix="edgerec-training-") as home:
        folder = Path(home)
        (folder / "cache").mkdir()
        for known in cache_dir().iterdir() if cache_dir().exists() else ():
            if known.name != VECTORS:
                (folder / "cache" / known.name).symlink_to(known)
        environ = {**os.environ, "EDGEREC_CACHE": str(folder / "cache")}
        teacher, student = str(folder / "teacher"), str(folder / "student")
        commands = [
            ["fine-tune", data, "--out", teacher],
            ["distill", data, "--teacher", teacher, "--preset", "tiny", "--out", student],
        ]
        steps = [measured(arguments, folder, environ) for arguments in commands]
        if not (Path(student) / "model.json").exists():
            raise EdgerecError("distill finished no student; see above")
    result = {
        "schema": "edgerec-training-1",
        "data": Path(data).name,
        "threads": int(os.environ.get("OMP_NUM_THREADS") or environment()["cores"]),
        "environment": environment(),
        "load": meter.read(),
        "steps": steps,
    }
    write_result(out, result, report(result))
    click.echo(report(result))


if __name__ == "__main__":
    run(main)
