"""Encoding by batch size, against what the same device can do at most: Williams et al. 2009, "Roofline".

The roof is measured, not read off a data sheet: ``peak`` by a large product of the same type, ``bandwidth`` by a copy.
A batch's operations are torch's own count. Its bytes are the least there can be: weights once, of embeddings the rows
looked up, ids in and vectors out; what a batch really moves is more, so the share of the roof is rather too small.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgerec.benchmarks.percentiles import summarise

BATCHES = (1, 8, 32, 128, 512)
WARMUP = 5
LEAST = 64  # so that p90 has its bound


class Roof(NamedTuple):
    """What a device does at most: operations a second, and bytes a second."""

    peak: float
    bandwidth: float

    def at(self, flops: float, moved: float) -> float:
        """Return the operations a second that can be reached with so many operations on so many bytes."""
        return min(self.peak, self.bandwidth * flops / moved)


def seconds(work: Callable[[], object], device: str, least: float, count: int = LEAST) -> list[float]:
    """Return how long each repetition took, until both a duration and a count are reached; warm-up is not timed."""
    wait: Callable[[], object] = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(WARMUP):
        work()
    found: list[float] = []
    end = time.perf_counter() + least
    while len(found) < count or time.perf_counter() < end:
        wait()
        start = time.perf_counter()
        work()
        wait()
        found.append(time.perf_counter() - start)
    return found


def roof(device: str, side: int = 4096, least: float = 1.0) -> Roof:
    """Measure a device: a float32 product of ``side`` by ``side``, and a copy of 16 such matrices; the best of each."""
    a = torch.rand(side, side, device=device)
    many = torch.rand(16, side, side, device=device)
    out = torch.empty_like(many)
    product = min(seconds(lambda: a @ a, device, least, 3))
    copy = min(seconds(lambda: out.copy_(many), device, least, 3))
    return Roof(2 * side**3 / product, 2 * many.nbytes / copy)


def traffic(encoder: nn.Module, ids: Tensor, vectors: Tensor) -> float:
    """Return the fewest bytes of a batch."""
    tables = [one for one in encoder.modules() if isinstance(one, nn.Embedding)]
    embeddings = {id(one.weight) for one in tables}
    weights = sum(one.nbytes for one in encoder.parameters() if id(one) not in embeddings)
    rows = sum(ids.numel() * one.embedding_dim * one.weight.element_size() for one in tables)
    return float(weights + rows + ids.nbytes + vectors.nbytes)


@torch.inference_mode()
def sweep(
    encoder: nn.Module,
    tokens: Sequence[tuple[Tensor, Tensor]],
    device: str,
    limit: Roof,
    compiled: bool,
    least: float = 1.0,
) -> list[dict[str, Any]]:
    """Return a row per batch.

    Args:
        encoder: From ids and mask int64 [B, L] to vectors [B, D].
        tokens: Ids and mask of each batch.
        device: "cuda", or "cpu".
        limit: What the device does at most.
        compiled: By ``torch.compile``.
        least: Seconds per batch.
    """
    encoder = encoder.to(device).eval()
    encode: Callable[..., Tensor] = torch.compile(encoder, dynamic=True) if compiled else encoder
    rows = []
    for ids, mask in tokens:
        ids, mask = ids.to(device), mask.to(device)
        with FlopCounterMode(display=False) as counter:
            vectors = encoder(ids, mask)
        flops, moved = float(counter.get_total_flops()), traffic(encoder, ids, vectors)
        taken = np.array(seconds(partial(encode, ids, mask), device, least))
        middle = float(np.median(taken))
        rows.append(
            {
                "mode": "compiled" if compiled else "eager",
                "batch": len(ids),
                "tokens": ids.shape[1],
                "latency_ms": summarise(taken * 1e3),
                "texts_per_second": len(ids) / middle,
                "flops": flops,
                "bytes": moved,
                "share_of_roof": flops / middle / limit.at(flops, moved),
            }
        )
    return rows
