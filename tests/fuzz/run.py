"""Fuzzes the reader of bundles, deltas and overlays with atheris (coverage guided): ``make fuzz``.

Two phases, each in a process of its own, from the committed corpus: ``bytes`` leaves the mutations to libFuzzer, which
finds its way through headers and JSON; ``structure`` edits what is inside and makes the hashes anew (``mutate.py``). An
input is a finding where ``target.py`` raises, or the process dies, takes more than 2 GB, or more than 20 s. Findings
are kept in ``--findings``, and the log says how many there were; it is written whatever they are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
PHASES = {"bytes": 800_000, "structure": 250_000}  # inputs
LONGEST = 1 << 15  # bytes of an input; the seeds have half
LIMITS = ["-rss_limit_mb=2048", "-malloc_limit_mb=512", "-timeout=20", "-print_final_stats=0", "-verbosity=0"]
PACKAGES = ("atheris", "cryptography", "numpy", "onnxruntime", "tokenizers")


def work(phase: str, inputs: int, seed: int, findings: Path, log: Path) -> None:
    """Run one phase in this process; it ends the process."""
    import atheris

    with atheris.instrument_imports(include=["edgerec"]):
        from mutate import mutate
        from target import CORPUS, Target
    folder = TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    target, done, started = Target(Path(folder.name)), 0, time.time()

    def test(data: bytes) -> None:
        nonlocal done
        target.check(data)
        done += 1
        if done % 10_000 == 0 or done == inputs:
            report = {"inputs": done, "seconds": round(time.time() - started, 1), "cpu_seconds": time.process_time()}
            log.write_text(json.dumps({**report, "verdicts": dict(target.verdicts)}))

    seeds = [path.read_bytes() for path in sorted(CORPUS.glob("*.*")) if path.suffix != ".pem"]

    def structured(data: bytes, size: int, number: int) -> bytes:
        start = seeds[number // 2 % len(seeds)] if number % 2 else data  # else most would be edits of broken files
        return mutate(start, number)[:size]

    options = [f"-runs={inputs}", f"-seed={seed}", f"-max_len={LONGEST}", f"-artifact_prefix={findings}/", *LIMITS]
    mutator: dict[str, Any] = {"custom_mutator": structured} if phase == "structure" else {}
    corpus = Path(folder.name) / "corpus"
    corpus.mkdir()
    for path in CORPUS.glob("*"):
        (corpus / path.name).write_bytes(path.read_bytes())  # what is found to be new goes there too
    atheris.Setup([sys.argv[0], *options, str(corpus)], test, **mutator)
    atheris.Fuzz()


def run(phase: str, inputs: int, seed: int, findings: Path) -> dict[str, Any]:
    """Run one phase in a process of its own, and return its part of the log."""
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log.json"
        worker = ["--worker", phase, "--log", str(log), "--inputs", str(inputs), "--seed", str(seed)]
        command = [sys.executable, str(HERE / "run.py"), *worker, "--findings", str(findings)]
        status = subprocess.run(command, env={**os.environ, "PYTHONPATH": f"{HERE}:{Path.cwd()}"}).returncode
        report = json.loads(log.read_text()) if log.exists() else {"inputs": 0}
    found = sorted(path.name for path in set(findings.iterdir()) - before)
    return {**report, "exit": status, "findings": found}


def main() -> None:
    """Run both phases and write the log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("fuzz.json"))
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0, help="of the planned inputs")
    for name, kind in (("--worker", str), ("--inputs", int), ("--log", Path)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(asked.worker, asked.inputs, asked.seed, asked.findings, asked.log)
    phases = {name: run(name, int(count * asked.share), asked.seed, asked.findings) for name, count in PHASES.items()}
    report = {
        "schema": "edgerec-fuzz-1",
        "inputs": sum(phase["inputs"] for phase in phases.values()),
        "seconds": round(sum(phase.get("seconds", 0) for phase in phases.values()), 1),
        "crashes": sum(len(phase["findings"]) + (phase["exit"] != 0) for phase in phases.values()),
        "seed": asked.seed,
        "phases": phases,
        "versions": {name: metadata.version(name) for name in PACKAGES} | {"python": sys.version.split()[0]},
    }
    asked.out.write_text(json.dumps(report, indent=2) + "\n")
    sys.stdout.write(json.dumps(report) + "\n")
    sys.exit(bool(report["crashes"]))


if __name__ == "__main__":
    main()
