"""Fake quantizers round as int8 does, pass gradients within their range, and come back from disk."""

from __future__ import annotations

from pathlib import Path

import torch

from edgerec.distill import checkpoint
from edgerec.distill.fake_quantization import FakeQuantizer, calibrated, quantizers
from edgerec.distill.student import batches, load, save, tokenise

TEXTS = [f"title {'red' if n % 2 else 'blue'} {n}" for n in range(12)] + ["blue", "red red red 3"]


def test_a_tensor_is_rounded_to_steps_and_clipped_where_int8_ends() -> None:
    value = torch.tensor([0.26, -0.24, 1000.0, -1000.0], requires_grad=True)
    made = FakeQuantizer(torch.tensor([0.1]))(value)
    torch.testing.assert_close(made, torch.tensor([0.3, -0.2, 12.7, -12.8]))
    made.sum().backward()
    assert value.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_each_output_channel_has_its_own_step_and_a_dead_one_a_step_above_zero() -> None:
    quantizer = FakeQuantizer(torch.tensor([1.0, 0.5, 0.0]))
    weight = torch.tensor([[1.4, -1.4], [1.4, -1.4], [0.0, 0.0]])
    torch.testing.assert_close(quantizer(weight), torch.tensor([[1.0, -1.0], [1.5, -1.5], [0.0, 0.0]]))
    assert bool((quantizer.scale > 0).all())


def test_a_calibrated_encoder_is_near_the_given_one_and_survives_the_disk(
    untrained: tuple[Path, Path], tmp_path: Path
) -> None:
    encoder, tokenizer_json = load(untrained[1] / checkpoint.ENCODER)
    tokens = tokenise(tokenizer_json, TEXTS)
    fake = calibrated(encoder, [(ids, mask) for _, ids, mask in batches(tokens)])
    save(tmp_path / "fake", fake, tokenizer_json)
    with torch.no_grad():
        plain, rounded, again = (one(**tokens) for one in (encoder, fake, load(tmp_path / "fake")[0]))
    assert quantizers(encoder) is None
    assert 1e-6 < float((1 - torch.cosine_similarity(plain, rounded)).max()) < 0.02
    assert torch.equal(rounded, again)
    found = [module for module in fake.modules() if isinstance(module, FakeQuantizer)]
    weights = 3 + 6 + 1  # of the embeddings, of a layer, of the head
    assert sum(len(one.scale) > 1 for one in found) == weights
