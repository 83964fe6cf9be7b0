"""Exact products over INT8 tables outside onnxruntime, a block at a time, so that no table is ever held as floats."""

from __future__ import annotations

import numpy as np

from edgerec.runtime.layout import CodeArray, FloatArray

BLOCK = 1 << 11  # items: their floats stay in the cache, and numpy's BLAS wakes no second thread
SMALLEST_NORM = 1e-12


def row_products(codes: CodeArray, scale: FloatArray, query: FloatArray) -> FloatArray:
    """Return the products of dequantized rows int8 [n, d] with a query float32 [d], float32 [n]."""
    parts = [codes[start : start + BLOCK].astype(np.float32) @ query for start in range(0, len(codes), BLOCK)]
    return np.concatenate(parts) * scale


def column_cosines(vectors: CodeArray | FloatArray, query: FloatArray) -> FloatArray:
    """Return the cosines of columns [d, n] with a query float32 [d], float32 [n]; an item's scale would cancel out."""
    parts = []
    query = query / np.float32(max(float(np.linalg.norm(query)), SMALLEST_NORM))
    for start in range(0, vectors.shape[1], BLOCK):
        block = vectors[:, start : start + BLOCK].astype(np.float32)
        norms = np.sqrt(np.einsum("ij,ij->j", block, block))
        parts.append(query @ block / np.maximum(norms, np.float32(SMALLEST_NORM)))
    return np.concatenate(parts)


def best(scores: FloatArray, k: int) -> list[int]:
    """Return the places of the k best scores above -inf, best first, ties by the lower place."""
    k = min(k, len(scores))
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    places = np.flatnonzero((scores >= least) & (scores > -np.inf))
    return [int(place) for place in places[np.argsort(-scores[places], kind="stable")[:k]]]
