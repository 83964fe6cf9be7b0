"""The sizes of a BERT whose layers may differ: counted, read from a model, given to one.

A head keeps its width whatever else goes, so that heads times their width need not be the model's width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from edgerec.errors import UsageError


@dataclass(frozen=True)
class Shape:
    """The sizes of every layer; each keeps at least one head and one feed-forward unit."""

    hidden: int  # width of the residual stream
    head_width: int
    heads: tuple[int, ...]  # of each layer
    intermediate: tuple[int, ...]  # feed-forward units of each layer

    def __post_init__(self) -> None:
        least = min(self.hidden, self.head_width, *self.heads, *self.intermediate, len(self.heads))
        if least < 1 or len(self.heads) != len(self.intermediate):
            raise UsageError(f"got {self}; expected a layer or more, and at least one head and one unit in each")

    @classmethod
    def of(cls, bert: Any) -> Shape:
        """Return the sizes that a BERT-like model's weights have."""
        attention = [layer.attention.self for layer in bert.encoder.layer]
        return cls(
            bert.embeddings.word_embeddings.embedding_dim,
            attention[0].attention_head_size,
            tuple(one.num_attention_heads for one in attention),
            tuple(layer.intermediate.dense.out_features for layer in bert.encoder.layer),
        )

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> Shape:
        """Return sizes that came through JSON."""
        of_layers = {name: tuple(saved[name]) for name in ("heads", "intermediate")}
        return cls(saved["hidden"], saved["head_width"], **of_layers)

    @property
    def layers(self) -> int:
        """The number of layers."""
        return len(self.heads)

    @property
    def regular(self) -> bool:
        """Whether a Hugging Face configuration can say it: layers alike, and heads that make up the width."""
        alike = len({*zip(self.heads, self.intermediate, strict=True)}) == 1
        return alike and self.heads[0] * self.head_width == self.hidden

    def costs(self, measure: str, length: float) -> tuple[float, float]:
        """Return what a head and a unit cost: in weights (``params``), or else in operations per token.

        Args:
            measure: The name of a target.
            length: Tokens of a text, over which a head's scores and mixture run.
        """
        if measure == "params":
            return self.head_width * (4 * self.hidden + 3), 2 * self.hidden + 1
        return 2 * self.head_width * (4 * self.hidden + 2 * length), 4 * self.hidden

    def flops(self, length: float) -> float:
        """Return the floating-point operations of the matrix products per token, in texts of ``length`` tokens."""
        a_head, a_unit = self.costs("flops", length)
        return sum(self.heads) * a_head + sum(self.intermediate) * a_unit

    def layer_parameters(self) -> int:
        """Return the number of weights of the layers, biases and norms included."""
        a_head, a_unit = (int(cost) for cost in self.costs("params", 0))
        parts = sum(self.heads) * a_head + sum(self.intermediate) * a_unit
        return parts + self.layers * 6 * self.hidden  # two biases, two norms of two


def spread(total: int, places: int) -> tuple[int, ...]:
    """Return ``total`` as ``places`` numbers that are as equal as can be."""
    return tuple(total // places + (place < total % places) for place in range(places))


def resized(bert: Any, shape: Shape) -> Any:
    """Give the layers of a BERT-like model of the right width and depth their sizes, with random weights, in place."""
    for layer, heads, units in zip(bert.encoder.layer, shape.heads, shape.intermediate, strict=True):
        inner = heads * shape.head_width
        set_heads(layer.attention.self, heads, shape.head_width)
        for name in ("query", "key", "value"):
            setattr(layer.attention.self, name, drawn(shape.hidden, inner, bert.config.initializer_range))
        layer.attention.output.dense = drawn(inner, shape.hidden, bert.config.initializer_range)
        layer.intermediate.dense = drawn(shape.hidden, units, bert.config.initializer_range)
        layer.output.dense = drawn(units, shape.hidden, bert.config.initializer_range)
    return bert


def drawn(inputs: int, outputs: int, deviation: float) -> nn.Linear:
    """Return a layer with random weights, as a BERT's are drawn."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=deviation)
    nn.init.zeros_(layer.bias)
    return layer


def set_heads(attention: Any, heads: int, width: int) -> None:
    """Tell a self-attention how many heads its weights have."""
    attention.num_attention_heads, attention.attention_head_size = heads, width
    attention.all_head_size = heads * width


def describe(bert: Any) -> None:
    """Make the configuration of a BERT-like model say what its weights have: the largest where layers differ."""
    shape, embeddings = Shape.of(bert), bert.embeddings
    bert.config.update(
        {
            "num_hidden_layers": shape.layers,
            "hidden_size": shape.hidden,
            "num_attention_heads": max(shape.heads),
            "intermediate_size": max(shape.intermediate),
            "vocab_size": embeddings.word_embeddings.num_embeddings,
            "max_position_embeddings": embeddings.position_embeddings.num_embeddings,
        }
    )
