"""A bundle's text encoder on one provider of onnxruntime, as the benchmark's cuda-ort has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgerec.benchmarks.adapters import NotHere
from edgerec.benchmarks.cuda_subject import PROVIDER, CudaSubject
from edgerec.benchmarks.devices import of_device
from edgerec.benchmarks.subjects import BundleSubject
from edgerec.runtime.layout import Tower


def test_the_encoder_answers_alike_on_another_provider(write: Callable[..., Path], ring: Tower) -> None:
    path = str(write(ring))
    own, other = BundleSubject("encode", path), CudaSubject("encode", path)
    other.provider = "CPUExecutionProvider"
    for subject in (own, other):
        subject.prepare()
    assert other.run_one("a b").tolist() == own.run_one("a b").tolist()


def test_a_provider_that_is_not_there_is_not_measured(
    write: Callable[..., Path], ring: Tower, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    path = write(ring)
    target, ranking = of_device("cuda-ort", path, ("recommend", "search", "encode"), 1)
    assert target.kinds == ("search", "encode") and not target.missing
    assert ranking.kinds == ("recommend",) and "cpu-ort" in str(ranking.missing)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(NotHere, match=f"expected {PROVIDER}"):
        CudaSubject("search", str(path)).prepare()
