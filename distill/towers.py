"""The two towers: an item tower (text part + collaborative residual) and a user tower of exponential recencies.

``item_in`` (as history) and ``item_out`` (as candidate) are the text part plus a residual that the log taught. The
text part is the text vector in the coordinates of an uncentred PCA that stays frozen: at full width, with residuals of
zero, the model *is* the zero-shot profile of the text encoder, and training can only add to it. The user vector is the
normalised sum of what the history's items left: ``scale * normalise(sum over events of w(age) * item_in)``, with
``w(age) = sum over k of mix_k * decay_k ** age``. A score is ``user . item_out + bias``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgerec.distill.baselines import recency_matrix
from edgerec.interactions import FloatArray, Requests

EPSILON = 1e-6  # floor of a user vector's norm
PADDING = -1  # row of no item, in training windows only
INITIAL_SCALE = 10.0  # near what training on ml-100k ends at (11), so that it need not travel


@dataclass(frozen=True)
class TowerConfig:
    """What a pair of towers is."""

    embedding_size: int = 64
    half_lives: tuple[float, ...] = (1.0, 5.0, 50.0)  # in events, where the recencies start
    shared: bool = True  # one vector per item, as history and as candidate
    history_dropout: float = 0.3  # of the coordinates of a history's vectors
    residual_dropout: float = 0.2  # of whole residuals, so that text alone must carry an item


@dataclass(frozen=True)
class TowerArrays:
    """Towers as plain arrays: what is scored, exported and shipped.

    ``item_in``, ``item_out`` and ``text`` are float32 [n_items, d] (the same array twice where shared), ``bias``
    [n_items], ``decays`` and ``mix`` [K].
    """

    item_in: FloatArray
    item_out: FloatArray
    text: FloatArray
    bias: FloatArray
    decays: FloatArray
    mix: FloatArray
    scale: float
    cold_gain: float  # a cold item's vectors are its text part times this
    cold_bias: float
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
        return (self.users(requests) @ self.item_out.T + self.bias).astype(np.float32, copy=False)


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


def inverse_sigmoid(values: FloatArray) -> FloatArray:
    """Return the logits of probabilities."""
    return np.log(values / (1 - values))


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
    cold: Tensor  # [2]: gain and bias of cold items

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
        decays = np.power(0.5, 1 / np.array(config.half_lives, dtype=np.float32))
        self.register_buffer("text", torch.from_numpy(text_vectors @ projection))
        self.register_buffer("projection", torch.from_numpy(projection))
        self.register_buffer("warm", torch.from_numpy(warm.copy()))
        self.register_buffer("cold", torch.tensor([1.0, 0.0]))
        self.residual_in = nn.Parameter(torch.zeros(shape))
        self.residual_out = None if config.shared else nn.Parameter(torch.zeros(shape))
        self.decay_logits = nn.Parameter(torch.from_numpy(inverse_sigmoid(decays)))
        self.mix = nn.Parameter(torch.full((len(decays),), 1 / len(decays)))
        self.log_scale = nn.Parameter(torch.tensor(INITIAL_SCALE).log())
        self.bias = nn.Parameter(torch.zeros(shape[0]))

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

    def logits(self, history: Tensor, targets: Tensor, text: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Score all warm items after each event that has a target.

        Returns:
            [P, n_warm] logits and int [P] the column of each target, for the P places with ``targets != PADDING``.
        """
        item_in, item_out = self.item_vectors(text)
        asked = targets != PADDING
        users = self.user_vectors(item_in, history)[asked]
        columns = self.warm.cumsum(0) - 1
        return users @ item_out[self.warm].T + self.bias[self.warm], columns[targets[asked]]

    def forward(self, history: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the full-softmax cross-entropy of the next item at every place of [B, L] windows."""
        logits, columns = self.logits(history, targets)
        return {"loss": functional.cross_entropy(logits, columns)}

    @torch.no_grad()
    def arrays(self, text: FloatArray | None = None, residuals: bool = True) -> TowerArrays:
        """Return the towers as arrays.

        Args:
            text: Another text part, [n_items, d]; None for the trained one.
            residuals: False leaves text alone (every item as if it were cold, its own bias kept).
        """
        part = self.text.cpu().numpy() if text is None else text
        warm = self.warm.cpu().numpy()[:, None] & np.bool_(residuals)
        gain, cold_bias = (float(value) for value in self.cold)

        def vectors(residual: Tensor) -> FloatArray:
            return np.where(warm, part + residual.cpu().numpy(), gain * part).astype(np.float32)

        item_in = vectors(self.residual_in)
        return TowerArrays(
            item_in=item_in,
            item_out=item_in if self.residual_out is None else vectors(self.residual_out),
            text=part,
            bias=np.where(self.warm.cpu().numpy(), self.bias.cpu().numpy(), cold_bias).astype(np.float32),
            decays=self.decay_logits.sigmoid().cpu().numpy(),
            mix=self.mix.cpu().numpy().copy(),
            scale=float(self.log_scale.exp()),
            cold_gain=gain,
            cold_bias=cold_bias,
        )

    def score(self, requests: Requests) -> FloatArray:
        """Return scores of the whole catalogue, float32 [R, n_items]."""
        return self.arrays().score(requests)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Return AdamW's groups: residuals decay towards the text, nothing else decays."""
        residuals = [p for p in (self.residual_in, self.residual_out) if p is not None]
        rest = [self.decay_logits, self.mix, self.log_scale, self.bias]
        return [{"params": residuals, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
