"""What is exported of a BERT student gives its numbers by fewer operators; another encoder stays as it is."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
import transformers
from torch import nn

import pytest

from edgerec.distill.shapes import Shape, resized
from edgerec.distill.static import StaticEncoder
from edgerec.distill.student import StudentEncoder
from edgerec.export.item_encoder import export_fp32
from edgerec.export.lean_bert import lean


def student(folder: Path, normalised: bool = False, shape: Shape | None = None) -> StudentEncoder:
    """Return a student whose weights all show."""
    torch.manual_seed(0)
    bert = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False)
    encoder = StudentEncoder(resized(bert, shape) if shape else bert, 8, normalised=normalised)
    for name, weights in encoder.named_parameters():
        nn.init.normal_(weights, 1.0 if "LayerNorm.weight" in name else 0.0, 0.3)
    return encoder.eval()


@pytest.mark.parametrize(
    ("normalised", "shape"),
    [(False, None), (True, None), (False, Shape(24, 8, (3, 1), (48, 5)))],
    ids=["plain", "length 1", "layers that differ"],
)
def test_the_numbers_are_the_students(small_bert: Path, normalised: bool, shape: Shape | None) -> None:
    encoder = student(small_bert, normalised, shape)
    mask = (torch.arange(9) < torch.tensor([9, 4, 1])[:, None]).long()
    ids = torch.randint(1, 21, (3, 9), generator=torch.Generator().manual_seed(0)) * mask
    with torch.no_grad():
        torch.testing.assert_close(lean(encoder)(ids, mask), encoder(ids, mask))


def test_the_graph_has_fewer_operators(small_bert: Path) -> None:
    encoder = student(small_bert)

    def operators(module: nn.Module) -> list[str]:
        graph = onnx.load_from_string(export_fp32(Named(module).eval(), 21, {"part": ("batch",)})).graph
        return [node.op_type for node in graph.node if node.op_type != "Constant"]

    small, whole = operators(lean(encoder)), operators(encoder)
    assert len(small) < 0.75 * len(whole)
    assert small.count("MatMul") == whole.count("MatMul") - 2 * len(encoder.stages)


class Named(nn.Module):
    """An encoder whose inputs have the graph's names."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the text part."""
        part: torch.Tensor = self.encoder(input_ids, attention_mask)
        return part


def test_what_is_no_plain_bert_stays_as_it_is() -> None:
    of = transformers.RobertaConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=21
    )
    for encoder in (StaticEncoder(21, 8, 8), StudentEncoder(transformers.RobertaModel(of, add_pooling_layer=False), 8)):
        assert lean(encoder) is encoder
