"""Why an item has its place: what each event and each word of its text adds to its score, and what would change it.

*Events.* The score is exactly ``bias + repeats + sum over events of scale / norm * w(age) * (item_in . item_out)``,
with ``w(age) = sum over k of mix_k * decay_k ** age`` and ``norm`` the length of the mixed state, which all events
share. So contributions add up, but "without it" is another question, since the norm would change: it is computed anew.

*Words.* The text acts through what the encoder foretells of it: a masked text changes the score by
``user . (encoder(masked) - encoder(text))`` and the biases' difference, for warm items too, whose residuals stay.
Occlusion leaves out one word at a time. LIME (Ribeiro et al. 2016) fits a weighted ridge regression to random masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerec.runtime.additions import text_of
from edgerec.runtime.layout import SMALLEST_NORM, FloatArray
from edgerec.runtime.many import pools_of
from edgerec.runtime.ranking import positive
from edgerec.runtime.recommender import Recommender

KERNEL_WIDTH = 25.0  # of lime's text explainer, for cosine distances times 100
RIDGE = 1.0  # lime's own
SAMPLES = 500


@dataclass(frozen=True)
class Contribution:
    """What one event of the history adds to the score; ``age`` 0 is the latest."""

    item: str
    title: str
    age: int
    contribution: float


@dataclass(frozen=True)
class Without:
    """What becomes of the explained item if one item of the history had not been taken."""

    item: str
    title: str
    rank: int
    leaves: bool  # the top k


@dataclass(frozen=True)
class Word:
    """A word of the item's text, and what it adds to the score by occlusion and by LIME."""

    word: str
    occlusion: float
    lime: float


@dataclass(frozen=True)
class Explanation:
    """Why an item has its place after a history.

    ``score`` is ``bias + repeats + sum of the events' contributions``. Of somebody unknown it is the popularity, which
    stands as the bias. ``rank`` counts from 1, 0 where the item is not returned at all.
    """

    item: str
    title: str
    k: int
    rank: int
    score: float
    bias: float
    repeats: float
    events: list[Contribution]
    without: list[Without]
    words: list[Word]

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as a JSON value."""
        return asdict(self)


def explain(
    recommender: Recommender,
    item: str,
    history: Sequence[str],
    k: int = 10,
    words: bool = True,
    seed: int = 0,
) -> Explanation:
    """Explain an item's place after a history.

    Args:
        recommender: An open bundle.
        item: The item to explain.
        history: Item ids, oldest first.
        k: The length of the list that ``without`` speaks of.
        words: Explain the text too; it needs ``tokenizers`` and a bundle that holds texts.
        seed: Of LIME's masks.

    Raises:
        UnknownItemError: An id is not in the catalogue.
        UsageError: k is below 1, or an argument is of another type.
        BundleError: The bundle holds no texts.
        MissingExtraError: ``tokenizers`` is not installed.
    """
    k = positive(k, "k")
    row, rows = recommender.rows([item])[0], recommender.rows(history)
    user, shares = user_parts(recommender, rows)
    target = recommender.vector(row, as_history=False)
    events = [float(share @ target) for share in shares]
    bias, repeats = constants(recommender, row, rows)
    rank, without = without_each(recommender, row, rows, k)
    return Explanation(
        item,
        recommender.named([row], [0.0])[0].title,
        k,
        rank,
        bias + repeats + sum(events),
        bias,
        repeats,
        [
            Contribution(one.item, one.title, len(rows) - 1 - place, one.score)
            for place, one in enumerate(recommender.named(rows, events))
        ],
        without,
        explain_words(recommender, item, row, user, seed) if words and len(rows) else [],
    )


def user_parts(recommender: Recommender, rows: Sequence[int]) -> tuple[FloatArray, FloatArray]:
    """Return the user vector float32 [d], and what of it each event is, [L, d]: they add up."""
    contents = recommender.contents
    size = contents.embedding_size
    if not rows:
        return np.zeros(size, np.float32), np.zeros((0, size), np.float32)
    ages = np.arange(len(rows) - 1, -1, -1)
    mix = np.array(contents.model["mix"], np.float64)
    weights = mix @ contents.decays.astype(np.float64)[:, None] ** ages
    vectors = recommender.vectors(rows, as_history=True)
    parts = weights[:, None] * vectors
    norm = max(float(np.linalg.norm(parts.sum(axis=0))), SMALLEST_NORM)
    shares = (contents.model["scale"] / norm * parts).astype(np.float32)
    return shares.sum(axis=0), shares


def constants(recommender: Recommender, row: int, rows: Sequence[int]) -> tuple[float, float]:
    """Return an item's bias (its popularity, of somebody unknown), and what its own earlier events add."""
    contents, overlay = recommender.contents, recommender.overlay
    place = overlay.places.get(row)
    if not rows:
        popularity = contents.external["popularity.f32"]
        return float(popularity[row] if row <= contents.n_items else popularity[1:].min()), 0.0
    bias = contents.external["bias.f32"][row] if place is None else overlay.bias[place]
    ages = np.array([len(rows) - 1 - at for at, one in enumerate(rows) if one == row], np.float64)
    memory = (contents.repeat_decays.astype(np.float64)[:, None] ** ages).sum(axis=1)
    return float(bias), float(contents.repeat_weights.astype(np.float64) @ np.log1p(memory))


def ranks_of(recommender: Recommender, row: int, histories: Sequence[Sequence[int]], seen: set[int]) -> list[int]:
    """Return the rank of an item after each of some histories, among all but ``seen``; 0 where it is not returned."""
    ranks = []
    for pool in pools_of(recommender, histories, recommender.overlay.next_row, exclude_seen=False):
        order = [one for one in pool.rows.tolist() if one not in seen]
        ranks.append(order.index(row) + 1 if row in order else 0)
    return ranks


def without_each(recommender: Recommender, row: int, history: Sequence[int], k: int) -> tuple[int, list[Without]]:
    """Return the item's rank, and what it is without each item of the history.

    What was taken stays masked, where the bundle masks it, so that no place falls free.
    """
    seen = set(history) if recommender.contents.model["mask_seen"] else set()
    taken = list(dict.fromkeys(history))
    histories = [list(history), *([one for one in history if one != left] for left in taken)]
    first, *ranks = ranks_of(recommender, row, histories, seen)
    named = recommender.named(taken, [0.0] * len(taken))
    return first, [
        Without(one.item, one.title, rank, 0 < first <= k and not 0 < rank <= k)
        for one, rank in zip(named, ranks, strict=True)
    ]


def explain_words(recommender: Recommender, item: str, row: int, user: FloatArray, seed: int) -> list[Word]:
    """Return what each word of an item's text adds to its score for a user vector float32 [d]."""
    overlay = recommender.overlay
    place = overlay.places.get(row)
    text = text_of(recommender, item, row) if place is None else overlay.items[place].text
    words = text.split()
    alone = ~np.eye(len(words), dtype=np.bool_)
    masks = np.concatenate([alone, sampled_masks(len(words), SAMPLES, seed)])
    full, scores = masked_scores(recommender, words, masks, user)
    occlusion, lime = full - scores[: len(words)], ridge(masks[len(words) :], scores[len(words) :])
    return [Word(word, float(a), float(b)) for word, a, b in zip(words, occlusion, lime, strict=True)]


def masked_scores(
    recommender: Recommender, words: Sequence[str], masks: NDArray[np.bool_], user: FloatArray
) -> tuple[float, NDArray[np.float64]]:
    """Return what the encoder's part of the score is with all words, and with those of each mask bool [M, W]."""
    texts = [" ".join(words), *(" ".join(np.array(words, object)[mask]) for mask in masks)]
    different = list(dict.fromkeys(texts))  # short texts have fewer masks than are drawn
    vectors = recommender.encoder.encode(different)
    scores = dict(zip(different, (vectors.item_out @ user + vectors.bias).tolist(), strict=True))
    return scores[texts[0]], np.array([scores[text] for text in texts[1:]], np.float64)


def sampled_masks(words: int, samples: int, seed: int) -> NDArray[np.bool_]:
    """Return the whole text and random masks, bool [samples, words], drawn as lime's text explainer does.

    How many words go is uniform over 1 .. W, and which ones is too.
    """
    rng = np.random.default_rng(seed)
    masks = np.ones((samples, words), np.bool_)
    for line in range(1, samples):
        masks[line, rng.permutation(words)[: rng.integers(1, words + 1)]] = False
    return masks


def ridge(masks: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the words' coefficients of a ridge regression weighted by nearness to the whole text, float64 [W].

    A mask's weight is ``sqrt(exp(-(100 * cosine distance) ** 2 / 25 ** 2))``, as in lime's text explainer.
    """
    share = masks.mean(axis=1)
    distance = 100 * (1 - np.sqrt(share))  # the cosine of a mask and the whole text is the root of the share it keeps
    weights = np.sqrt(np.exp(-(distance**2) / KERNEL_WIDTH**2))
    x, total = masks.astype(np.float64), weights.sum()
    x, y = x - weights @ x / total, scores - weights @ scores / total  # the constant is not shrunk
    gram = (x * weights[:, None]).T @ x + RIDGE * np.eye(x.shape[1])
    return np.linalg.solve(gram, (x * weights[:, None]).T @ y)
