"""The two towers: an item tower (text part + collaborative residual) and a user tower of exponential recencies.

``item_in`` (as history) and ``item_out`` (as candidate) are the text part plus a residual that the log taught. The
text part is the text vector in the coordinates of an uncentred PCA that stays frozen: at full width, with residuals of
zero, the model *is* the zero-shot profile of the text encoder, and training can only add to it. The user vector is the
normalised sum of what the history's items left: ``scale * normalise(sum over events of w(age) * item_in)``, with
``w(age) = sum over k of mix_k * decay_k ** age``. A score is ``user . item_out + bias``, and where purchases repeat
also ``sum over r of weight_r * log(1 + sum over events of the item of decay_r ** age)``: what the user took often and
lately, which no inner product of 128 numbers can hold. Its exponential is a power of a (decayed) count, so that a
weight of 1 makes chances proportional to how often an item was taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgerec.distill.baselines import recency_matrix
from edgerec.distill.softmax import PADDING, Asked, Candidates, Logits, asked, candidates, next_item_loss
from edgerec.interactions import FloatArray, Requests

EPSILON = 1e-6  # floor of a user vector's norm
INITIAL_SCALE = 10.0  # near what training ends at (7 to 11), so that it need not travel
REPEAT_HALF_LIVES = (20.0, 200.0, 2000.0)  # in events, where the repeat recencies start
REPEAT_WEIGHT = 0.7  # where each starts; on onlineretail they end at 0.7 to 0.9
REPEAT_FASTER = 10.0  # learning rate of the repeat term against the rest: it has six numbers, far to go


@dataclass(frozen=True)
class TowerConfig:
    """What a pair of towers is."""

    embedding_size: int = 128
    half_lives: tuple[float, ...] = (1.0, 5.0, 50.0)  # in events, where the recencies start
    shared: bool = True  # one vector per item, as history and as candidate
    repeat: bool = False  # a term for items that the user took before
    history_dropout: float = 0.3  # of the coordinates of a history's vectors
    residual_dropout: float = 0.2  # of whole residuals, so that text alone must carry an item


class ColdMap(NamedTuple):
    """What an item without training events has, as affine functions of its text part; the last row is the constant.

    ``item_in`` and ``item_out`` are float32 [d + 1, d], ``bias`` [d + 1].
    """

    item_in: FloatArray
    item_out: FloatArray
    bias: FloatArray

    def apply(self, text: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return ``item_in``, ``item_out`` [n, d] and biases [n] of text parts [n, d]."""
        item_in, item_out, bias = (text @ part[:-1] + part[-1] for part in self)
        return item_in, item_out, bias


@dataclass(frozen=True)
class TowerArrays:
    """Towers as plain arrays: what is scored, exported and shipped.

    ``item_in``, ``item_out`` and ``text`` are float32 [n_items, d] (the same array twice where shared), ``bias``
    [n_items], ``decays`` and ``mix`` [K], ``repeat_decays`` and ``repeat_weights`` [R], empty without a repeat term.
    """

    item_in: FloatArray
    item_out: FloatArray
    text: FloatArray
    bias: FloatArray
    decays: FloatArray
    mix: FloatArray
    scale: float
    cold: ColdMap
    repeat_decays: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    repeat_weights: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def shared(self) -> bool:
        """Whether an item has one vector."""
        return self.item_in is self.item_out

    def users(self, requests: Requests) -> FloatArray:
        """Return user vectors, float32 [R, d]; an empty history gives zeros."""
        matrices = [recency_matrix(requests.histories, len(self.bias), float(decay)) for decay in self.decays]
        weights = sum(float(mix) * matrix for mix, matrix in zip(self.mix, matrices, strict=True))
        users: FloatArray = weights @ self.item_in
        return self.scale * users / np.maximum(np.linalg.norm(users, axis=1, keepdims=True), EPSILON)

    def score(self, requests: Requests) -> FloatArray:
        """Return scores of the whole catalogue, float32 [R, n_items]."""
        scores = (self.users(requests) @ self.item_out.T + self.bias).astype(np.float32, copy=False)
        for decay, weight in zip(self.repeat_decays, self.repeat_weights, strict=True):
            taken = recency_matrix(requests.histories, len(self.bias), float(decay))
            rows = np.repeat(np.arange(len(requests)), np.diff(taken.indptr))
            scores[rows, taken.indices] += weight * np.log1p(taken.data)
        return scores


def pca(vectors: FloatArray, size: int) -> FloatArray:
    """Return the ``size`` leading right singular vectors, float32 [T, size]: a PCA without centring.

    Inner products are kept as well as that many dimensions can (Eckart & Young 1936); all of them are kept at full
    width. Fewer than ``size`` directions (few items, narrow encoder) are filled up with zeros.
    """
    covariance = vectors.T.astype(np.float64) @ vectors
    _, directions = np.linalg.eigh(covariance)  # ascending
    leading = directions[:, ::-1][:, :size]
    largest = np.abs(leading).argmax(axis=0)  # a sign per direction, so that machines agree
    leading = leading * np.sign(leading[largest, np.arange(leading.shape[1])])
    padding = np.zeros((len(leading), size - leading.shape[1]))
    return np.hstack([leading, padding]).astype(np.float32)


def decay_logits(half_lives: tuple[float, ...]) -> Tensor:
    """Return the logits of the decays per event that halve in so many events, float32 [K]."""
    return torch.logit(0.5 ** (1 / torch.tensor(half_lives, dtype=torch.float64))).float()


class Towers(nn.Module):
    """Trainable towers over a fixed catalogue.

    Args:
        text_vectors: float32 [n_items, T], L2-normalised rows of the text encoder.
        warm: bool [n_items]; the softmax of training runs over these items only, so cold ones are nobody's negatives.
        config: Sizes and regularisation.
        projection: float32 [T, d]; None fits the PCA to ``text_vectors``.
    """

    text: Tensor  # [n_items, d]: text vectors in the PCA's coordinates
    projection: Tensor  # [T, d]
    warm: Tensor  # [n_items]
    cold_in: Tensor  # the parts of a `ColdMap`
    cold_out: Tensor
    cold_bias: Tensor

    def __init__(
        self,
        text_vectors: FloatArray,
        warm: NDArray[np.bool_],
        config: TowerConfig,
        projection: FloatArray | None = None,
    ) -> None:
        super().__init__()
        self.tower_config = config
        projection = pca(text_vectors, config.embedding_size) if projection is None else projection
        shape = (len(text_vectors), config.embedding_size)
        decays, repeat_decays = (decay_logits(lives) for lives in (config.half_lives, REPEAT_HALF_LIVES))
        self.register_buffer("text", torch.from_numpy(text_vectors @ projection))
        self.register_buffer("projection", torch.from_numpy(projection))
        self.register_buffer("warm", torch.from_numpy(warm.copy()))
        identity = torch.eye(shape[1] + 1, shape[1])  # a text part as it is, until `set_cold`
        self.register_buffer("cold_in", identity)
        self.register_buffer("cold_out", identity.clone())
        self.register_buffer("cold_bias", torch.zeros(shape[1] + 1))
        self.residual_in = nn.Parameter(torch.zeros(shape))
        self.residual_out = None if config.shared else nn.Parameter(torch.zeros(shape))
        self.decay_logits = nn.Parameter(decays)
        self.mix = nn.Parameter(torch.full((len(decays),), 1 / len(decays)))
        self.log_scale = nn.Parameter(torch.tensor(INITIAL_SCALE).log())
        self.bias = nn.Parameter(torch.zeros(shape[0]))
        self.repeat_logits = nn.Parameter(repeat_decays) if config.repeat else None
        self.repeat_weights = nn.Parameter(torch.full_like(repeat_decays, REPEAT_WEIGHT)) if config.repeat else None

    def item_vectors(self, text: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``item_in`` and ``item_out`` of warm items, [n_items, d] each, from another text part if given."""
        text = self.text if text is None else text
        keep = torch.ones(len(text), 1, device=text.device)
        if self.training:
            keep = (torch.rand_like(keep) >= self.tower_config.residual_dropout).float()
        item_in = text + keep * self.residual_in
        return item_in, item_in if self.residual_out is None else text + keep * self.residual_out

    def user_vectors(self, item_in: Tensor, history: Tensor) -> Tensor:
        """Return the user vector after each event of right-padded windows: int [B, L] -> [B, L, d]."""
        events = item_in[history.clamp(min=0)] * (history != PADDING).unsqueeze(-1)
        events = functional.dropout(events, self.tower_config.history_dropout, self.training)
        places = torch.arange(history.shape[1], device=history.device)
        ages = places[:, None] - places[None, :]  # [L, L]; of event s when event t has just happened
        decays = self.decay_logits.sigmoid()[:, None, None]
        weights = (self.mix[:, None, None] * decays ** ages.clamp(min=0)).sum(0) * (ages >= 0)
        return self.log_scale.exp() * functional.normalize(weights @ events, dim=-1, eps=EPSILON)

    def logits(
        self,
        history: Tensor,
        targets: Tensor,
        sources: Tensor,
        text: Tensor | None = None,
        chosen: Candidates | None = None,
    ) -> Logits:
        """Score the candidates where targets are asked for.

        Args:
            history: int [B, L], right-padded.
            targets: int [B, L], ``PADDING`` where none is asked for.
            sources: int [B, L], the place in the history after which each target is asked for.
            text: [n_items, d], another text part.
            chosen: What competes; drawn anew if not given.
        """
        item_in, item_out = self.item_vectors(text)
        places = asked(targets, sources)
        chosen = chosen or candidates(self.warm, history, targets)
        users = self.user_vectors(item_in, history)[places.windows, places.places]
        scores = users @ item_out[chosen.items].T + self.bias[chosen.items] + chosen.offset
        if self.repeat_logits is not None:
            scores = scores + self.repeat_scores(history, places, chosen)
        return Logits(scores, places.rows, chosen.columns[places.items])

    def repeat_scores(self, history: Tensor, places: Asked, chosen: Candidates) -> Tensor:
        """Return the repeat term of every candidate at every source, [S, C]; only items of the history have one."""
        assert self.repeat_logits is not None and self.repeat_weights is not None
        valid = history != PADDING
        same = (history[:, :, None] == history[:, None, :]) & valid[:, :, None]
        first = same.to(torch.uint8).argmax(dim=2)  # [B, L]: where each event's item stands first
        at_first = nn.functional.one_hot(first, history.shape[1]) * valid.unsqueeze(-1)  # [B, L, L]
        age = places.places[:, None] - torch.arange(history.shape[1], device=history.device)  # [S, L]
        weights = self.repeat_logits.sigmoid()[:, None, None] ** age.clamp(min=0) * (age >= 0)  # [R, S, L]
        term = torch.zeros_like(age, dtype=weights.dtype)
        for window in places.windows.unique():  # sources are sorted by window, and few per basket
            rows = places.windows == window
            counts = weights[:, rows] @ at_first[window].to(weights.dtype)  # [R, s, L]
            term[rows] = (self.repeat_weights[:, None, None] * counts.log1p()).sum(0)
        columns = chosen.columns[history.clamp(min=0)][places.windows]
        return torch.zeros(len(term), len(chosen.items), device=term.device).scatter_add(1, columns, term)

    def forward(self, history: Tensor, targets: Tensor, sources: Tensor) -> dict[str, Tensor]:
        """Return the cross-entropy of the next items of [B, L] windows."""
        return {"loss": next_item_loss(self.logits(history, targets, sources))}

    @torch.no_grad()
    def arrays(self, text: FloatArray | None = None, residuals: bool = True) -> TowerArrays:
        """Return the towers as arrays.

        Args:
            text: Another text part, [n_items, d]; None for the trained one.
            residuals: False leaves text alone (vectors of every item as if it were cold, its own bias kept).
        """
        part = self.text.cpu().numpy() if text is None else text
        warm = self.warm.cpu().numpy()
        learned = (warm & np.bool_(residuals))[:, None]
        cold = self.cold_map()
        cold_in, cold_out, cold_bias = cold.apply(part)

        def vectors(residual: Tensor, without: FloatArray) -> FloatArray:
            return np.where(learned, part + residual.cpu().numpy(), without).astype(np.float32)

        item_in = vectors(self.residual_in, cold_in)
        return TowerArrays(
            item_in=item_in,
            item_out=item_in if self.residual_out is None else vectors(self.residual_out, cold_out),
            text=part,
            bias=np.where(warm, 0, cold_bias).astype(np.float32) + self.bias.cpu().numpy(),
            decays=self.decay_logits.sigmoid().cpu().numpy(),
            mix=self.mix.cpu().numpy().copy(),
            scale=float(self.log_scale.exp()),
            cold=cold,
            **self.repeat_arrays(),
        )

    def cold_map(self) -> ColdMap:
        """Return what maps text parts to cold items."""
        return ColdMap(*(part.cpu().numpy().copy() for part in (self.cold_in, self.cold_out, self.cold_bias)))

    @torch.no_grad()
    def set_cold(self, cold: ColdMap, old: float = 0.0) -> None:
        """Take over what maps text parts to cold items.

        Args:
            cold: For an item that comes later.
            old: What the catalogue's own cold items have on top of its bias: what nobody took is not new.
        """
        for own, given in zip((self.cold_in, self.cold_out, self.cold_bias), cold, strict=True):
            own.copy_(torch.from_numpy(given))
        self.bias[~self.warm] = old

    def repeat_arrays(self) -> dict[str, FloatArray]:
        """Return the repeat term's decays and weights, where there is one."""
        if self.repeat_logits is None or self.repeat_weights is None:
            return {}
        decays, weights = self.repeat_logits.sigmoid().cpu().numpy(), self.repeat_weights.cpu().numpy().copy()
        return {"repeat_decays": decays, "repeat_weights": weights}

    def score(self, requests: Requests) -> FloatArray:
        """Return scores of the whole catalogue, float32 [R, n_items]."""
        return self.arrays().score(requests)

    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Return AdamW's groups: residuals decay towards the text, nothing else decays."""
        residuals = [p for p in (self.residual_in, self.residual_out) if p is not None]
        rest = [self.decay_logits, self.mix, self.log_scale, self.bias]
        repeat = [p for p in (self.repeat_logits, self.repeat_weights) if p is not None]
        groups = [
            {"params": residuals, "lr": learning_rate, "weight_decay": weight_decay},
            {"params": rest, "lr": learning_rate, "weight_decay": 0.0},
            {"params": repeat, "lr": REPEAT_FASTER * learning_rate, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]
