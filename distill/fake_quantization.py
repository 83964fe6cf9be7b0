"""Fake quantizers in a student's encoder: where nncf puts them, with the ranges that calibration found.

They round as ``QuantizeLinear`` and ``DequantizeLinear`` do, to int8 with zero-point 0: weights per output channel,
activations per tensor. The gradient passes straight through them within the range (Jacob et al. 2018, arXiv
1712.05877), and the scales stay as calibrated.

nncf's own quantizers build a C++ extension at their first pass (with nvcc on a GPU), and its way from them to torch's
wants torchao. So torch's operators take their places before any pass; and what nncf would do between passes is left
out: SmoothQuant adds a Mul per layer, and a bias that is to be corrected is corrected by training.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgerec.distill.text_student import TextStudent
from edgerec.quiet_nncf import quiet_nncf

LEVELS = (-128, 127)  # of int8; torch exports no others
SMALLEST = 1e-8  # scale of a channel of zeros: engines refuse 0
HOOKS = "__nncf_hooks"  # where nncf keeps what it puts between operators


class FakeQuantizer(nn.Module):
    """Rounds a tensor to int8 levels and back.

    Args:
        scale: float32 [1]; or [C], for a weight whose first axis is its C output channels.
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.clamp(min=SMALLEST))
        self.register_buffer("zero", torch.zeros(len(scale), dtype=torch.int32), persistent=False)

    def forward(self, value: Tensor) -> Tensor:
        """Return the rounded tensor, of the same shape."""
        if len(self.scale) == 1:
            return torch.fake_quantize_per_tensor_affine(value, self.scale[0], self.zero[0], *LEVELS)
        return torch.fake_quantize_per_channel_affine(value, self.scale, self.zero, 0, *LEVELS)


def calibrated(encoder: TextStudent, batches: Sequence[tuple[Tensor, Tensor]]) -> TextStudent:
    """Return a copy of an encoder with fake quantizers on the weights and inputs of its embeddings and linear layers.

    Args:
        encoder: It is left as it is.
        batches: Token ids and masks, int64 [B, L] each, of the texts that give the ranges.
    """
    nncf = quiet_nncf()
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, AdvancedSmoothQuantParameters

    advanced = AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.DISABLE,  # signed inputs: their sums do not saturate
        disable_bias_correction=True,
        smooth_quant_alphas=AdvancedSmoothQuantParameters(matmul=-1),
    )
    with contextlib.redirect_stdout(sys.stderr):  # its progress bars
        quantized: TextStudent = nncf.quantize(
            encoder,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(types=["matmul"], validate=False),  # attention's: all inputs, or none
            advanced_parameters=advanced,
        )
    storage: Any = quantized.get_submodule(HOOKS)
    for name, quantizer in list(storage.named_hooks()):
        storage.set_submodule(name, FakeQuantizer(quantizer.get_parameters_for_torch_fq()[2]))
    return quantized


def attach(encoder: TextStudent, state: Mapping[str, Tensor]) -> TextStudent:
    """Put saved fake quantizers back into an encoder, in place, and return it.

    Args:
        encoder: Without any.
        state: The ``state_dict`` of ``quantizers`` of one that has them.
    """
    quiet_nncf()
    from nncf.torch.function_hook.hook_storage import decode_hook_name
    from nncf.torch.function_hook.wrapper import wrap_model

    storage: Any = wrap_model(encoder).get_submodule(HOOKS)
    insert = {"pre_hooks": storage.register_pre_function_hook, "post_hooks": storage.register_post_function_hook}
    for name, scale in sorted(state.items()):
        kind, operator, port = decode_hook_name(name.removesuffix(".scale"))
        insert[kind](operator, port, FakeQuantizer(scale))
    return encoder


def quantizers(encoder: nn.Module) -> nn.Module | None:
    """Return the module that holds an encoder's fake quantizers, None where it has none."""
    return dict(encoder.named_children()).get(HOOKS)
