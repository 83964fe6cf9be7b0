"""Encoders are compared on equal titles, by clock and by processor; a peer's process that ends says so."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgerec.benchmarks import encode_speed
from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.peer_text import timed
from edgerec.errors import UsageError


def test_a_peer_takes_as_many_times_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_speed, "SIZES", (encode_speed.Size(1, 3, 1), encode_speed.Size(4, 1, 2)))
    asked: dict[str, list[Sequence[Sequence[str]]]] = {"MiniLM": [], "ours": []}

    def subject(name: str, clock: int, processor: int) -> encode_speed.Ask:
        def ask(requests: Sequence[Sequence[str]]) -> encode_speed.Taken:
            asked[name].append(requests)
            return [clock] * len(requests), processor * len(requests)

        return ask

    subjects = {"MiniLM": subject("MiniLM", 3_000_000, 2_000_000), "ours": subject("ours", 10_000, 20_000)}
    one, several = encode_speed.measure(subjects, ["a", "b", "c"], 6)
    assert asked["MiniLM"] == asked["ours"]
    assert {(len(requests), len(requests[0])) for requests in asked["ours"]} == {(3, 1), (1, 4)}
    assert (one["rounds"], several["rounds"], one["latency"]["ours"]["n"]) == (6, 3, 18)
    assert one["by_clock"]["ours"]["ratio"] == pytest.approx(300)
    assert several["by_processor"]["ours"]["ratio"] == pytest.approx(100)
    assert several["processor_ms"]["MiniLM"] == pytest.approx(2)
    stages = {"ours": dict.fromkeys(("tokens", "graph"), 1.0)}
    result = {"sizes": [one, several], "stages_us": stages, "threads": 1, "tokens": 3.0, "environment": environment()}
    assert "| 4 | ours | 3 | 0.010 | 0.010 | 0.010 | 0.020 | 300.0 (300.0 to 300.0) |" in encode_speed.table(result)


def test_every_request_is_timed() -> None:
    seen: list[Sequence[str]] = []
    clock, processor = timed(seen.append, [["a"], ["b", "c"]])
    assert seen == [["a"], ["b", "c"]]
    assert len(clock) == 2
    assert min(*clock, processor) >= 0


def test_a_peer_that_cannot_start_is_named(tmp_path: Path) -> None:
    peer = encode_speed.Peer(sys.executable, "nobody", tmp_path, tmp_path)
    with pytest.raises(UsageError, match="ended with code 1"):
        peer([["a"]])
    peer.close()
