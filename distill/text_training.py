"""Training a text encoder through the towers, at the cost of a sample of items per step.

Re-encoding a whole catalogue each step would cost half a minute. So every item's text part stands in a table; a step
re-encodes a sample of rows, puts them into the table with their gradient, and leaves the other rows as they were last
computed. The teacher's second stage and the student's distillation are this one module: the first holds its encoder by
an anchor to where it started, the second pulls its encoder to the teacher's vectors and distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgerec.distill.ensemble import Ensemble
from edgerec.distill.losses import LossWeights, confidences, listwise, score_distance, vector_distance
from edgerec.distill.softmax import PADDING, Logits, candidates, next_item_loss
from edgerec.distill.towers import Towers
from edgerec.interactions import FloatArray, Requests

CHUNK = 128  # texts per forward pass of `refresh`
LAYERS = ("encoder.layer", "transformer.layer", "h", "layers")  # of BERT and RoBERTa; of DistilBERT, GPT-2, Llama


class TextTraining(nn.Module):
    """Towers with an encoder that gives their text part.

    Args:
        towers: Trainable or frozen; all rows of their catalogue are re-encoded.
        encoder: From text rows int [m] to vectors [m, d]; rows past the catalogue are further texts. It is given
            as many at once as its ``rows_at_once`` says, or ``CHUNK``.
        goal: [M, d] for all M >= n_items texts: where the vectors start, or the teacher's.
        weights: Of the loss.
        sample: Rows re-encoded per step.
        held_out: bool [M]; rows not trained on until ``admit``, so that unseen titles can be judged before.
        guide: From the re-encoded rows to further losses, by name.
        ensemble: Further teachers of the listwise loss.
    """

    table: Tensor  # [n_items, d]
    goal: Tensor  # [M, d]
    trained: Tensor  # int [m]: rows that may be drawn
    late: Tensor  # int [h]: rows that may be drawn after `admit`
    unseen: Tensor  # [h, d]: what the encoder made of them before

    def __init__(
        self,
        towers: Towers,
        encoder: Callable[[Tensor], Tensor],
        goal: Tensor,
        weights: LossWeights,
        sample: int = 64,
        held_out: Tensor | None = None,
        guide: Callable[[Tensor], dict[str, Tensor]] | None = None,
        ensemble: Ensemble | None = None,
    ) -> None:
        super().__init__()
        self.guide, self.ensemble = guide, ensemble
        self.towers, self.encoder, self.weights, self.sample = towers, encoder, weights, sample
        trained = torch.ones(len(goal), dtype=torch.bool) if held_out is None else ~held_out
        self.register_buffer("table", goal[: len(towers.text)].clone())
        self.register_buffer("goal", goal, persistent=False)
        self.register_buffer("trained", trained.nonzero()[:, 0], persistent=False)
        self.register_buffer("late", (~trained).nonzero()[:, 0], persistent=False)
        self.register_buffer("unseen", torch.zeros(len(self.late), goal.shape[1]))
        self.admitted = False

    def draw(self, history: Tensor) -> Tensor:
        """Return distinct rows to re-encode: half from the batch's items, half from all texts.

        Admitted rows have a quarter of the places, since they come late.
        """
        late = self.late[torch.randperm(len(self.late))[: self.sample // 4]] if self.admitted else self.late[:0]
        items = history[history != PADDING].unique()
        items = items[torch.isin(items, self.trained)]
        seen = items[torch.randperm(len(items))[: self.sample // 2]]
        rest = self.trained[torch.randperm(len(self.trained))[: self.sample - len(seen)]]
        return torch.cat([seen, rest, late]).unique()

    @torch.no_grad()
    def admit(self) -> None:
        """Train on the rows held out too from now on; what the encoder makes of them unseen is kept in ``unseen``."""
        if not self.admitted and not self.unseen.any() and len(self.late):
            was = self.training
            self.eval()
            self.unseen.copy_(self.encoder(self.late))
            self.train(was)
        self.admitted = True

    def forward(self, history: Tensor, targets: Tensor, sources: Tensor) -> dict[str, Tensor]:
        """Return the weighted loss of [B, L] windows and of the re-encoded rows."""
        rows = self.draw(history)
        live = self.encoder(rows).to(self.table.dtype)  # mixed precision gives another
        items = rows < len(self.table)
        text = self.table.index_copy(0, rows[items], live[items])
        self.table.copy_(text.detach())
        terms = self.guide(rows) if self.guide else {}
        if self.weights.vectors:
            terms["vectors"] = vector_distance(live, self.goal[rows])
        if self.weights.next_item or self.weights.listwise or self.weights.logits:
            terms |= self.score_terms(history, targets, sources, text)
        return {"loss": self.weights.total(terms)}

    def score_terms(self, history: Tensor, targets: Tensor, sources: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Return the losses of the scores at the sources, by name."""
        weights, chosen, terms = self.weights, candidates(self.towers.warm, history, targets), {}
        seed = int(torch.randint(2**31, ()))

        def logits_of(part: Tensor) -> Logits:
            """Score with the same dropout for both sides, so that equal text parts have equal scores."""
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                return self.towers.logits(history, targets, sources, part, chosen)

        logits = logits_of(text)
        if weights.next_item:
            terms["next-item"] = next_item_loss(logits)
        if weights.listwise or weights.logits:
            with torch.no_grad():
                taught = logits_of(self.goal[: len(self.table)]).scores
        if weights.logits:
            terms["logits"] = score_distance(logits.scores, taught)
        if weights.listwise:
            shares = torch.softmax(taught / weights.temperature, dim=-1)
            if self.ensemble:
                shares = self.ensemble.mixed(shares, history, targets, sources, chosen, weights.temperature)
            trusted = confidences(shares, logits.rows, logits.columns, weights.confidence)
            terms["listwise"] = listwise(logits.scores, shares, weights.temperature, trusted)
        return terms

    @torch.no_grad()
    def refresh(self) -> None:
        """Re-encode the whole catalogue."""
        for rows in torch.arange(len(self.table)).split(getattr(self.encoder, "rows_at_once", CHUNK)):
            self.table[rows] = self.encoder(rows)

    def text(self) -> FloatArray:
        """Return the text part as last encoded, float32 [n_items, d]."""
        return self.table.cpu().numpy().copy()

    def score(self, requests: Requests) -> FloatArray:
        """Return scores of the whole catalogue with re-encoded texts, float32 [R, n_items]."""
        return self.towers.arrays(self.text()).score(requests)


class TopLayers(nn.Module):
    """The upper layers of an encoder or decoder over cached activations of the lower ones.

    The model itself runs, without its lower layers, and the first of the upper ones is handed what was cached: masks,
    rotary positions and a last norm are the model's own business.

    Args:
        model: A Hugging Face model for which ``layers_of`` finds the layers. It is taken apart: its lower layers go.
        tokens: ``input_ids`` and ``attention_mask`` int [n_items, L], padded on the right.
        trained: Number of layers from the top that are trained.
        projection: [T, d], frozen.
        pooling: ``mean`` or ``last``.
    """

    cached: Tensor
    ids: Tensor
    mask: Tensor
    projection: Tensor

    def __init__(
        self, model: Any, tokens: dict[str, Tensor], trained: int, projection: Tensor, pooling: str = "mean"
    ) -> None:
        super().__init__()
        layers = layers_of(model)
        assert layers is not None
        below, ids, mask = len(layers) - trained, tokens["input_ids"], tokens["attention_mask"]
        model.config.use_cache = False
        states = []
        with torch.no_grad():
            order = mask.sum(1).argsort()
            for rows in order.split(CHUNK):
                width = int(mask[rows].sum(1).max())
                output = model(
                    input_ids=ids[rows, :width], attention_mask=mask[rows, :width], output_hidden_states=True
                )
                states.append(functional.pad(output.hidden_states[below], (0, 0, 0, ids.shape[1] - width)))
        self.register_buffer("cached", torch.cat(states)[order.argsort()], persistent=False)
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("projection", projection, persistent=False)
        del layers[:below]
        self.layers, self.pooling = layers, pooling
        self.frame = (model,)  # in a tuple: its embeddings are no part of a checkpoint

    def forward(self, rows: Tensor) -> Tensor:
        """Return text parts [m, d] of the texts at ``rows``."""
        width = int(self.mask[rows].sum(1).max())
        ids, hidden, mask = self.ids[rows, :width], self.cached[rows, :width], self.mask[rows, :width]

        def hand_over(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
            return ((hidden, *given[1:]), named) if given else (given, {**named, "hidden_states": hidden})

        model = self.frame[0].to(hidden.device)
        with self.layers[0].register_forward_pre_hook(hand_over, with_kwargs=True):
            states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return functional.normalize(pool(states, mask, self.pooling), dim=-1) @ self.projection


def layers_of(model: Any) -> nn.ModuleList | None:
    """Return the layers of a Hugging Face model, from the bottom up; None where they are in none of ``LAYERS``."""
    for path in LAYERS:
        try:
            found = model.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList):
            return found
    return None


def run_layers(layers: nn.ModuleList, hidden: Tensor, mask: Tensor) -> Tensor:
    """Run encoder layers on hidden states [B, L, H] under a padding mask int [B, L]."""
    additive = (1 - mask[:, None, None, :].to(hidden.dtype)) * torch.finfo(hidden.dtype).min
    for layer in layers:
        output = layer(hidden, additive)
        hidden = output[0] if isinstance(output, tuple) else output  # transformers 5 returns the tensor alone
    return hidden


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over real tokens: [B, L, H] and int [B, L] -> [B, H]."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Return the mean over real tokens, or the last of them: [B, L, H] and int [B, L] -> [B, H]."""
    if pooling == "last":
        mask = mask * (mask.cumsum(1) == mask.sum(1, keepdim=True))
    return mean_pool(hidden, mask)


def causal_mask(mask: Tensor) -> Tensor:
    """Return what is added to attention scores from left to right, float32 [B, 1, L, L], of a padding mask [B, L]."""
    places = torch.arange(mask.shape[1], device=mask.device)
    visible = (places[None, :] <= places[:, None]) & mask.bool()[:, None, None, :]
    return torch.where(visible, 0.0, torch.finfo(torch.float32).min)
