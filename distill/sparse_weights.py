"""Weights held at zero: by magnitude, or two of each four along a layer's input, as sparse tensor cores want it.

A dense kernel multiplies by zeros as by other numbers, so on a CPU sparsity saves space in a compressed file and no
time. TensorRT's sparse kernels (Ampere and later) take the 2:4 pattern: of four consecutive weights along the input, at
most two are not zero (Mishra et al. 2021, arXiv 2104.08378). As there, the largest two stay, and training goes on with
the others held at zero.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from edgerec.distill import checkpoint
from edgerec.distill.distillation import Start
from edgerec.distill.encoder import Progress, no_progress
from edgerec.distill.fake_quantization import quantizers
from edgerec.distill.options import TrainOptions
from edgerec.distill.recovery import RECOVERY, open_student, recover
from edgerec.distill.text_student import TextStudent
from edgerec.errors import UsageError
from edgerec.interactions import Dataset, Split
from edgerec.quiet_nncf import quiet_nncf

MAGNITUDE, TWO_OF_FOUR = "magnitude", "2:4"


class HeldZeros(TrainerCallback):
    """Sets the weights that a mask leaves out to zero, now and after each step.

    Args:
        encoder: Its weights are changed in place.
        masks: bool, by parameter name: which weights live.
    """

    def __init__(self, encoder: nn.Module, masks: Mapping[str, Tensor]) -> None:
        self.held = [(encoder.get_parameter(name), mask) for name, mask in masks.items()]
        self.hold()

    @torch.no_grad()
    def hold(self) -> None:
        """Set them to zero."""
        for weight, mask in self.held:
            weight.mul_(mask.to(weight.device))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Undo what the optimiser did to them, before anything is judged or saved."""
        self.hold()


def linear_weights(encoder: nn.Module) -> dict[str, Tensor]:
    """Return the weights of an encoder's linear layers by parameter name, each [outputs, inputs]."""
    found = encoder.named_modules()
    return {f"{name}.weight": module.weight.detach() for name, module in found if isinstance(module, nn.Linear)}


def masks_of(encoder: TextStudent, pattern: str, ratio: float) -> dict[str, Tensor]:
    """Choose the weights of the linear layers that stay.

    Args:
        encoder: A student with layers.
        pattern: ``MAGNITUDE`` or ``TWO_OF_FOUR``.
        ratio: Share of each layer's weights that goes; of 2:4 it is a half.

    Returns:
        bool [outputs, inputs] by parameter name.

    Raises:
        UsageError: Unknown pattern, another ratio of 2:4, or a layer that has no groups of four inputs.
    """
    if pattern == MAGNITUDE and 0 < ratio < 1:
        return largest(encoder, ratio)
    if pattern == TWO_OF_FOUR and ratio == 0.5:
        return {name: two_of_four(weight, name) for name, weight in linear_weights(encoder).items()}
    raise UsageError(
        f"got pattern {pattern!r} with ratio {ratio}; expected magnitude with one between 0 and 1, or 2:4 with 0.5"
    )


def two_of_four(weight: Tensor, name: str) -> Tensor:
    """Return which weights of [outputs, inputs] are the larger two of their four; of equal ones the first stay.

    Raises:
        UsageError: The number of inputs cannot be parted into fours.
    """
    if weight.shape[1] % 4:
        raise UsageError(
            f"{name} has {weight.shape[1]} inputs; expected a multiple of 4 for 2:4 sparsity: distill with such a "
            "--hidden and --intermediate, or take --pattern magnitude"
        )
    order = weight.abs().unflatten(1, (-1, 4)).argsort(dim=2, descending=True, stable=True)
    return (order.argsort(dim=2) < 2).flatten(1)


def largest(encoder: TextStudent, ratio: float) -> dict[str, Tensor]:
    """Return which weights of each linear layer are not among its smallest, by ``nncf.prune``."""
    nncf = quiet_nncf()
    from nncf.torch.function_hook.pruning.magnitude.algo import get_pruned_modules

    example = torch.ones(1, 4, dtype=torch.int64)
    mode = nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_LOCAL
    pruned = nncf.prune(copy.deepcopy(encoder), mode, ratio=ratio, examples_inputs=(example, example))
    found = {name.replace(":", "."): hook.binary_mask for name, hook in get_pruned_modules(pruned).items()}
    return {name: found[name] for name in linear_weights(encoder)}


def share_of_zeros(masks: Mapping[str, Tensor]) -> float:
    """Return how much of all weights the masks leave out."""
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())


def sparsify(
    trained: checkpoint.Checkpoint,
    teacher: checkpoint.Checkpoint,
    data: Dataset,
    split: Split,
    pattern: str,
    ratio: float,
    out: Path,
    options: TrainOptions = RECOVERY,
    resume: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Make a student's linear layers sparse, and let it recover under its teacher.

    Args:
        trained: A student with layers.
        teacher: What it was distilled from.
        data: The data that both were made from.
        split: Its split.
        pattern: See ``masks_of``, as for the ratio.
        ratio: Share of weights that goes.
        out: A new folder, or with ``resume`` an unfinished one.
        options: How the training goes.
        resume: Go on from the last checkpoint.
        progress: Called with the number of texts encoded by the teacher.

    Returns:
        The report of ``distillation.distill`` and ``sparsity``: pattern, ratio, number of weights and share of zeros.

    Raises:
        UsageError: See ``masks_of`` and ``recovery.recover``; or the student was trained for INT8 before.
    """
    encoder, tokenizer_json = open_student(trained)
    if quantizers(encoder) is not None:
        raise UsageError(f"{trained.folder} was trained for INT8; expected the student before that: sparsify, then qat")
    masks = masks_of(encoder, pattern, ratio)
    claim = {"pattern": pattern, "ratio": ratio, "weights": len(masks), "zeros": share_of_zeros(masks)}
    start = Start(encoder, tokenizer_json, [HeldZeros(encoder, masks)])
    report = recover(trained, teacher, data, split, start, {"sparsity": claim}, options, out, resume, progress)
    return {**report, "sparsity": claim}
