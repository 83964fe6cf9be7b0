"""The baselines that stand in every report. A model that does not beat them is a bug, not a result.

Each is fitted on ``Split.train`` alone and scores the whole catalogue for a batch of histories, oldest event first.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from edgerec.errors import DataError, UsageError
from edgerec.interactions import FloatArray, IntArray, Ragged, Requests, Split
from edgerec.metrics import Scorer, validation_ndcg

Model = TypeVar("Model")

DECAYS = (0.5, 0.6, 0.7, 0.8, 0.9)  # weight of an event against the next newer one
SUMMED = 10  # distances whose pairs are summed at once: a sparse sum per distance took minutes on a million events
EASE_LIMIT = 5_000  # items; the closed form needs a dense float64 matrix of that side, 200 MB


def recency_matrix(histories: Ragged, n_items: int, decay: float, last: int | None = None) -> sp.csr_matrix:
    """Return float32 [R, n_items]: each history's items weighted ``decay ** age``, the newest event's age being 0."""
    ages = np.repeat(histories.offsets[1:], histories.lengths) - 1 - np.arange(len(histories.values))
    rows = np.repeat(np.arange(len(histories)), histories.lengths)
    keep = ages < last if last is not None else np.ones(len(ages), dtype=np.bool_)
    values = np.power(np.float32(decay), ages[keep], dtype=np.float32)
    return sp.csr_matrix((values, (rows[keep], histories.values[keep])), shape=(len(histories), n_items))


class Popularity:
    """Number of training events of each item."""

    def __init__(self, split: Split) -> None:
        self.counts = np.bincount(split.train.values, minlength=split.n_items).astype(np.float32)

    def score(self, requests: Requests) -> FloatArray:
        """Return the same popularity for every request, float32 [R, n_items]."""
        return np.tile(self.counts, (len(requests), 1))


class PersonalFrequency:
    """How often the user took each item, popularity breaking ties: hard to beat where purchases repeat."""

    def __init__(self, split: Split) -> None:
        counts = Popularity(split).counts
        self.n_items, self.tie = split.n_items, counts / (counts.max() + 1)

    def score(self, requests: Requests) -> FloatArray:
        """Return counts in the history plus a popularity below one, float32 [R, n_items]."""
        return np.asarray(recency_matrix(requests.histories, self.n_items, 1.0).todense()) + self.tie


def co_occurrences(items: IntArray, users: NDArray[np.int64], distances: NDArray[np.int64], n: int) -> sp.csr_matrix:
    """Return float32 [n, n], from older to newer: the sum of ``1/distance`` over pairs of a user's events."""
    pairs = [np.zeros((0, 3))]
    for distance in distances:
        same = np.flatnonzero(users[distance:] == users[:-distance])
        pairs.append(np.stack([items[same], items[same + distance], np.full(len(same), 1 / distance)], axis=1))
    older, newer, weight = np.concatenate(pairs).T
    return sp.csr_matrix((weight.astype(np.float32), (older.astype(np.int32), newer.astype(np.int32))), shape=(n, n))


class ItemKNN:
    """Windowed co-occurrence: pairs at most ``window`` events apart count ``1/distance``.

    Normalised by the candidate's and the history item's ``sqrt(count)`` (cosine; Deshpande & Karypis 2004), the history
    item weighted by its inverse user frequency and by ``decay ** age``.
    """

    def __init__(self, split: Split, window: int = 10, decay: float = 0.9) -> None:
        self.n_items, self.window, self.decay = split.n_items, window, decay
        items, offsets = split.train.values, split.train.offsets
        users = np.repeat(np.arange(len(split.train)), split.train.lengths)
        counts = sp.csr_matrix((self.n_items, self.n_items), dtype=np.float32)
        for distances in np.array_split(np.arange(1, min(window, len(items) - 1) + 1), -(-window // SUMMED)):
            counts += co_occurrences(items, users, distances, self.n_items)
        counts = counts + counts.T  # a pair counts in both directions
        counts.setdiag(0)
        total = np.bincount(items, minlength=self.n_items).astype(np.float32)
        norm = 1 / np.sqrt(np.maximum(total, 1))
        idf = np.log((len(offsets)) / np.maximum(total, 1)).clip(min=0.1)
        self.similarity = (sp.diags(norm * idf) @ counts @ sp.diags(norm)).tocsr().astype(np.float32)

    def score(self, requests: Requests) -> FloatArray:
        """Return the summed similarity to the history, float32 [R, n_items]."""
        profile = recency_matrix(requests.histories, self.n_items, self.decay)
        return np.asarray((profile @ self.similarity).todense(), dtype=np.float32)


class EASE:
    """Linear item-item model in closed form (Steck 2019): B = I - P / diag(P), P = (X'X + reg I)^-1.

    Only the ``limit`` most popular items are modelled where the dense matrix would not fit; others score 0.
    """

    def __init__(self, split: Split, reg: float = 500.0, last: int = 10, limit: int = EASE_LIMIT) -> None:
        self.n_items, self.reg, self.last, self.limit = split.n_items, reg, last, limit
        counts = np.bincount(split.train.values, minlength=split.n_items)
        self.rows = np.sort(np.argsort(-counts, kind="stable")[:limit])
        binary = (recency_matrix(split.train, split.n_items, 1.0) > 0).astype(np.float32)[:, self.rows]
        gram = (binary.T @ binary).toarray().astype(np.float64)
        gram[np.diag_indices_from(gram)] += reg
        inverse = np.linalg.inv(gram)
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0)
        self.weights = weights.astype(np.float32)

    def score(self, requests: Requests) -> FloatArray:
        """Return scores from each history's last items, float32 [R, n_items]."""
        profile = recency_matrix(requests.histories, self.n_items, 1.0, self.last)
        scores = np.zeros((len(requests), self.n_items), dtype=np.float32)
        scores[:, self.rows] = profile[:, self.rows] @ self.weights
        return scores


class Profile:
    """Content: the recency-weighted sum of the history's item vectors against every item's vector.

    With frozen encoder vectors this is the zero-shot profile; with TF-IDF rows, the TF-IDF profile. Vectors are
    L2-normalised rows, dense [n_items, d] or sparse; ``decay`` 0.8 forgets half in three events.
    """

    def __init__(self, vectors: FloatArray | sp.csr_matrix, decay: float = 0.8) -> None:
        self.vectors, self.decay = vectors, decay

    def score(self, requests: Requests) -> FloatArray:
        """Return inner products with the profile, float32 [R, n_items]."""
        profile = recency_matrix(requests.histories, self.vectors.shape[0], self.decay) @ self.vectors
        scores = profile @ self.vectors.T
        return np.asarray(scores.todense() if sp.issparse(scores) else scores, dtype=np.float32)


class Blend:
    """``weight`` of one scorer and the rest of another, each scaled to unit standard deviation per request."""

    def __init__(self, first: Scorer, second: Scorer, weight: float = 0.5) -> None:
        if not 0 <= weight <= 1:
            raise UsageError(f"got a blend weight of {weight}; expected 0 to 1")
        self.first, self.second, self.weight = first, second, weight

    def score(self, requests: Requests) -> FloatArray:
        """Return the blended scores, float32 [R, n_items]."""
        a, b = standardise(self.first.score(requests)), standardise(self.second.score(requests))
        return self.weight * a + (1 - self.weight) * b


def standardise(scores: FloatArray) -> FloatArray:
    """Scale each line to standard deviation 1 (a constant line stays as it is)."""
    deviation = scores.std(axis=1, keepdims=True)
    return (scores / np.where(deviation > 0, deviation, 1)).astype(np.float32, copy=False)


def tfidf(texts: list[str]) -> sp.csr_matrix:
    """Return L2-normalised TF-IDF rows of unigrams and bigrams, sublinear, float32 [n_items, terms].

    Raises:
        DataError: No text holds a word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    pattern = r"(?u)\b\w+\b"
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=pattern, dtype=np.float32)
    try:
        return vectorizer.fit_transform(texts)
    except ValueError as error:  # "empty vocabulary"
        raise DataError(
            f"none of the {len(texts)} item texts holds a word, such as {texts[0]!r}; give titles"
        ) from error


def described(scorer: Scorer) -> dict[str, Any]:
    """Return the hyper-parameters that a baseline was tuned to, those of what it blends under their places."""
    found: dict[str, Any] = {}
    for name, value in vars(scorer).items():
        if isinstance(value, int | float) and name != "n_items":
            found[name] = value
        elif name in ("first", "second"):
            found[name] = described(value)
    return found


def variants(model: Model, name: str, values: Iterable[float]) -> Iterator[Model]:
    """Yield shallow copies of a fitted model that differ in one attribute that fitting does not depend on."""
    for value in values:
        one = copy.copy(model)
        setattr(one, name, value)
        yield one


def tuned(candidates: Iterable[Scorer], split: Split) -> Scorer:
    """Return the candidate with the best validation NDCG@10 (the first, at a tie): no straw men."""
    return max(candidates, key=lambda scorer: validation_ndcg(scorer, split, 10))


def tuned_knn(split: Split) -> Scorer:
    """Fit and tune ItemKNN."""
    return tuned((one for window in (10, 50) for one in variants(ItemKNN(split, window), "decay", DECAYS)), split)


def tuned_ease(split: Split) -> Scorer:
    """Fit and tune EASE."""
    return tuned((one for reg in (100.0, 500.0) for one in variants(EASE(split, reg), "last", (10, 50))), split)


def baselines(split: Split, texts: list[str], text_vectors: FloatArray | None) -> dict[str, Scorer]:
    """Fit and tune every baseline that applies; ``text_vectors`` is [n_items, T], None without an encoder."""
    knn, linear = tuned_knn(split), tuned_ease(split)
    fitted: dict[str, Scorer] = {"popularity": Popularity(split)}
    if not split.mask_seen:
        fitted["personal frequency"] = PersonalFrequency(split)
    partial = f" (top {EASE_LIMIT} items)" if split.n_items > EASE_LIMIT else ""
    fitted |= {"ItemKNN": knn, f"EASE{partial}": linear}
    fitted["TF-IDF profile"] = tuned(variants(Profile(tfidf(texts)), "decay", DECAYS), split)
    if text_vectors is not None:
        zero_shot = tuned(variants(Profile(text_vectors), "decay", DECAYS), split)
        fitted["zero-shot profile"] = zero_shot
        blends = (Blend(knn, zero_shot, weight) for weight in (0.3, 0.5, 0.7, 0.9))
        fitted["ItemKNN + zero-shot"] = tuned(blends, split)
    return fitted
