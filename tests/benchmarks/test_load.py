"""Small bundles under a second's load: nothing is dropped, and a wrong answer or a dead server would be seen."""

# ruff: noqa: E402  what an extra brings is asked for first

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

for module in ("httpx2", "msgspec", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(module)

from edgerec.benchmarks.load import OUT, hand_over, load, measure, oracle, report, requests_of, server
from edgerec.export.synthetic import random_tower, write_random
from edgerec.files import sha256

ITEMS = [f"item-{row}" for row in range(1, 31)]


@pytest.fixture
def bundles(tmp_path: Path) -> list[Path]:
    """Two bundles of the same items that answer differently."""
    paths = [tmp_path / f"{seed}.edgerec" for seed in range(2)]
    for seed, path in enumerate(paths):
        write_random(random_tower(30, 8, seed), path)
    return paths


@pytest.fixture
def requests() -> Any:
    return requests_of([[one] for one in ITEMS[:10]], ["word"], ITEMS)


def test_swaps_under_load_are_measured(bundles: list[Path], requests: Any) -> None:
    found = measure(bundles, requests, 2, 0.6, warmup=0.2)
    assert found["wrong"] == found["dropped"] == 0 and found["faults"] == {}
    assert set(found["by_bundle"]) == {sha256(path) for path in bundles}
    assert len(found["seconds_to_swap"]) == 2
    assert found["answers"]["all"]["n"] == sum(found["by_bundle"].values())
    assert found["answers"].keys() == {"all", "recommend", "search", "similar"}
    spent = hand_over(bundles[0], requests, rounds=1)
    assert min(spent.values()) > 0


def test_wrong_answers_and_dropped_requests_are_counted(bundles: list[Path], requests: Any) -> None:
    known = {sha256(bundles[0]): oracle(bundles[0], requests)}
    known[sha256(bundles[0])][0][0]["score"] += 1e-6
    unknown = {sha256(bundles[1]): oracle(bundles[1], requests)}
    with server(bundles[0]) as (address, _):
        one_off = asyncio.run(load(address, requests, known, 1, 0.5))
        other = asyncio.run(load(address, requests, unknown, 1, 0.2))
    gone = asyncio.run(load(address, requests, known, 1, 0.2))
    assert one_off.faults.keys() == {"wrong"} and one_off.right
    assert other.faults.keys() == {"wrong"} and not other.right
    assert gone.faults.keys() == {"dropped: ConnectError"} and not gone.right


def test_the_committed_result_prints_its_table() -> None:
    assert OUT.with_suffix(".md").read_text("utf-8") == report(json.loads(OUT.with_suffix(".json").read_text("utf-8")))
