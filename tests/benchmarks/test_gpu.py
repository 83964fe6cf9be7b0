"""What the run on a GPU consists of, on the CPU: the roof, the sweep, and the refusal."""

from __future__ import annotations

from pathlib import Path

import torch
from click.testing import CliRunner
from torch import Tensor, nn

import pytest

from edgerec.benchmarks import run_gpu
from edgerec.benchmarks.roofline import Roof, roof, sweep, traffic


class Bag(nn.Module):
    """The sum of eight numbers of each token, through one product."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.product = nn.Embedding(100, 8), nn.Linear(8, 4, bias=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        found: Tensor = self.product((self.table(ids) * mask[..., None]).sum(1))
        return found


def batch(size: int) -> tuple[Tensor, Tensor]:
    ids = torch.ones(size, 3, dtype=torch.int64)
    return ids, torch.ones_like(ids)


def test_a_roof_is_the_lower_of_two() -> None:
    limit = Roof(peak=100.0, bandwidth=10.0)
    assert limit.at(flops=5, moved=1) == 50 and limit.at(flops=50, moved=1) == 100


def test_a_roof_is_measured_of_a_product_and_a_copy() -> None:
    limit = roof("cpu", side=64, least=0.01)
    assert limit.peak > 1e6 and limit.bandwidth > 1e6


def test_a_batch_moves_weights_rows_ids_and_vectors() -> None:
    encoder, (ids, mask) = Bag(), batch(2)
    assert traffic(encoder, ids, encoder(ids, mask)) == 4 * 8 * 4 + 6 * 8 * 4 + 6 * 8 + 2 * 4 * 4


def test_a_sweep_counts_operations_and_tells_their_share_of_the_roof() -> None:
    limit = Roof(peak=1e9, bandwidth=1e9)
    rows = sweep(Bag(), [batch(1), batch(16)], "cpu", limit, compiled=False, least=0.01)
    assert [(row["batch"], row["tokens"], row["flops"]) for row in rows] == [(1, 3, 64.0), (16, 3, 1024.0)]
    for row in rows:
        reached = row["flops"] * row["texts_per_second"] / row["batch"]
        assert row["share_of_roof"] == pytest.approx(reached / limit.at(row["flops"], row["bytes"]))
        assert row["latency_ms"]["n"] >= 64
    text = run_gpu.report({"device": "a card", "roof": limit._asdict(), "rows": rows})
    assert "a card; measured at most: 0.001 TFLOP/s" in text and "| eager | 16 | 3 |" in text


def test_without_a_gpu_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "x").touch()
    said = CliRunner().invoke(run_gpu.main, [*[str(tmp_path / "x")] * 2, str(tmp_path / "out"), "--data", "none"])
    assert said.exit_code == 1 and said.output.startswith("not measured: torch ") and said.output.count("\n") == 1
    assert not (tmp_path / "out").exists()
