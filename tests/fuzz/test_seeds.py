"""The seed corpus opens with today's code, and a handful of edits of it do no harm; ``make fuzz`` does the rest."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography")
HERE = Path(__file__).parent
SEEDS = sorted(path for path in (HERE / "corpus").iterdir() if path.suffix != ".pem")


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("target").Target(tmp_path)


def test_every_seed_is_used_and_the_signed_ones_are_accepted(target: Any) -> None:
    verdicts = {path.name: target.check(path.read_bytes()) for path in SEEDS}
    used = {name: verdict for name, verdict in verdicts.items() if not name.startswith("signed-")}
    assert used == {
        "first.edgerec-delta": "delta used",
        "full.edgerec": "bundle used",
        "items.overlay": "overlay used",
        "separate.edgerec": "bundle used",
    }
    assert target.verdicts["accepted by signature"] == 2


def test_edits_are_refused_or_used(target: Any) -> None:
    mutate = importlib.import_module("mutate").mutate
    for number in range(150):
        target.check(mutate(SEEDS[number % len(SEEDS)].read_bytes(), number))
    assert target.verdicts["refused as a file"] and target.verdicts["refused for its content"]
    assert sum(target.verdicts[verdict] for verdict in ("bundle used", "delta used", "overlay used")) > 5
