"""``item_encoder.onnx``: token ids in; the text vector for search and a new item's vectors and bias out.

Pooling, projection and the cold map are inside the graph, so that a device needs a tokenizer and one call. Other
precisions are made of it by ``quantization``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from edgerec.distill.towers import ColdMap
from edgerec.interactions import FloatArray

OPSET = 17
INPUTS = ("input_ids", "attention_mask")
OUTPUTS: Mapping[str, Sequence[str]] = dict.fromkeys(("text_vector", "item_in", "item_out", "bias"), ("batch",))


class ItemEncoder(nn.Module):
    """A text encoder with what the bundle's graph gives.

    Args:
        encoder: From ``input_ids`` and ``attention_mask`` int [B, L] to text parts [B, d].
        cold: From text parts to the vectors and the bias of an item that the log does not know.
        shared: Whether an item has one vector.
    """

    def __init__(self, encoder: nn.Module, cold: ColdMap, shared: bool) -> None:
        super().__init__()
        self.encoder, self.shared = encoder, shared
        self.maps = nn.ModuleList(affine(part) for part in (cold.item_in, cold.item_out, cold.bias[:, None]))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return ``text_vector`` (rows of norm 1), ``item_in`` and ``item_out``, each [B, d], and ``bias`` [B]."""
        part = self.encoder(input_ids, attention_mask)
        item_in, item_out, bias = (one(part) for one in self.maps)
        item_out = item_in.clone() if self.shared else item_out
        length = part.norm(dim=-1, keepdim=True).clamp(min=1e-12)  # functional.normalize would be two operators more
        return part / length, item_in, item_out, bias.squeeze(1)


def affine(weights: FloatArray) -> nn.Linear:
    """Return [n, d] @ weights[:-1] + weights[-1], of float32 [d + 1, m], as a layer."""
    layer = nn.Linear(weights.shape[0] - 1, weights.shape[1])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights[:-1].T.copy()))
        layer.bias.copy_(torch.from_numpy(weights[-1]))
    return layer


def export_fp32(module: nn.Module, vocabulary: int, outputs: Mapping[str, Sequence[str]] = OUTPUTS) -> bytes:
    """Return the graph with named dynamic batch and length.

    Args:
        module: In evaluation mode.
        vocabulary: Number of tokens; the example that is traced has two different lengths and no zeros but padding.
        outputs: Name -> names of its leading, dynamic dimensions.
    """
    ids = torch.randint(1, vocabulary, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    axes: dict[str, dict[int, str]] = {name: {0: "batch", 1: "length"} for name in INPUTS}
    axes |= {name: dict(enumerate(leading)) for name, leading in outputs.items()}
    with warnings.catch_warnings(), TemporaryDirectory() as folder:
        path = Path(folder) / "fp32.onnx"
        warnings.simplefilter("ignore")  # the tracer's own: it is the legacy path, and fuses best in onnxruntime
        torch.onnx.export(
            module,
            (ids, mask),
            path,
            input_names=list(INPUTS),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
        return path.read_bytes()
