"""Which process this is of those that train together: one, unless ``torchrun`` or ``accelerate launch`` started more.

``accelerate launch --multi_gpu --num_processes 2 -m edgerec fine-tune ...`` does so, on CPUs too: with ``--cpu`` it
starts one process, whatever number it is given. The first process judges and writes; the others train along. Ctrl-C
ends them as it ends any program: ``--resume`` goes on from the last evaluation.
"""

from __future__ import annotations

import torch
from accelerate import PartialState


def processes() -> PartialState:
    """Return the state of this process; without a CUDA device it is one on CPU, which accelerate does not assume."""
    return PartialState(cpu=not torch.cuda.is_available())
