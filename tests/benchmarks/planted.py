"""Subjects that misbehave, one way each; loaded by file name, as a peer would be."""

from __future__ import annotations

import os
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
        return sorted(request)[:3] if self.asked <= 20 else ["x"]
