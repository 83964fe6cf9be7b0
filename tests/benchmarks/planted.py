"""Subjects that misbehave, one way each; loaded by file name, as a peer would be."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any


class Honest:
    def __init__(self, kind: str, threads: int = 1) -> None:
        self.kind = kind

    def prepare(self) -> None:
        print("chatter on stdout, which must not matter")  # noqa: T201

    def run_one(self, request: Any) -> list[str]:
        return sorted(request)[:3]

    def close(self) -> None:
        pass


class Compiled(Honest):
    """Wants a process that keeps what it compiled of modules, as an app's does."""

    def prepare(self) -> None:
        if sys.dont_write_bytecode:
            raise RuntimeError("every start compiles anew")


class Fickle(Honest):
    """Answers otherwise when it is asked again; its golden requests cannot be asked."""

    def prepare(self) -> None:
        self.asked = set[str]()

    def run_one(self, request: Any) -> list[str]:
        again = str(request) in self.asked
        self.asked.add(str(request))
        return ["x"] if again else sorted(request)[:3]

    def goldens(self) -> dict[str, Any]:
        raise RuntimeError("the engine broke")


class Ragged(Honest):
    """Answers with vectors of two lengths."""

    def run_one(self, request: Any) -> Any:
        return [1.0] * (1 + int(request[0]) % 2)


class Serial(Honest):
    """Answers one at a time only."""

    def run_batch(self, requests: Any) -> Any:
        raise ValueError("one at a time")


class Knows(Honest):
    """Its file has golden requests, and it answers one of them wrongly."""

    def goldens(self) -> dict[str, Any]:
        return {"passes": False, "reason": "1 of 2"}


class Raises(Honest):
    def run_one(self, request: Any) -> list[str]:
        raise KeyError("no such thing")


class Hangs(Honest):
    def run_one(self, request: Any) -> list[str]:
        time.sleep(600)
        return []


class Leaks(Honest):
    def run_one(self, request: Any) -> list[str]:
        self.kept = [bytearray(os.urandom(1 << 20)) * 8 for _ in range(100)]
        time.sleep(600)
        return []


class Dies(Honest):
    def run_one(self, request: Any) -> list[str]:
        os._exit(7)


class Needs(Honest):
    def prepare(self) -> None:
        import click  # noqa: F401


class Drifts(Honest):
    """Answers otherwise once it was asked more often than the accuracy run asks."""

    asked = 0

    def run_one(self, request: Any) -> list[str]:
        self.asked += 1
        return sorted(request)[:3] if self.asked <= 40 else ["x"]


class Silent(Honest):
    """Closes its output, and hangs."""

    def run_one(self, request: Any) -> list[str]:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        time.sleep(600)
        return []


class Orphans(Honest):
    """Leaves a process behind that holds its output open."""

    def prepare(self) -> None:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(20)"], start_new_session=True)


class LeaksInAChild(Honest):
    def run_one(self, request: Any) -> list[str]:
        subprocess.run([sys.executable, "-c", "x = bytearray(b'1' * (300 << 20)); import time; time.sleep(600)"])
        return []


class Babbles(Honest):
    def run_one(self, request: Any) -> list[Any]:
        return [{"id": one} for one in request]


class Remembers(Honest):
    """Answers slowly, and what it was asked before at once."""

    def prepare(self) -> None:
        self.known: dict[str, list[str]] = {}

    def run_one(self, request: Any) -> list[str]:
        key = "/".join(request)
        if key not in self.known:
            end = time.perf_counter() + 0.002
            while time.perf_counter() < end:
                pass
            self.known[key] = super().run_one(request)
        return self.known[key]
