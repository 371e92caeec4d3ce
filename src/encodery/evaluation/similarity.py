"""How close two texts are: correlation of a model's similarities with those that people gave, and simple models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encodery.evaluation.bm25 import words_of
from encodery.evaluation.intervals import RESAMPLES, Metric
from encodery.evaluation.metrics import score_numbers

Array = NDArray[np.float64]


def score_similarity(
    close_N: Array, truth_N: Array, *, rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, Metric]:
    """Spearman's and Pearson's correlation of similarities (N,) with graded labels (N,). Their scales may differ."""
    found = score_numbers(close_N, truth_N, rng=rng, resamples=resamples)
    return {name: found[name] for name in ("spearman", "pearson")}


def cosines(a_ND: Array, b_ND: Array) -> Array:
    """The cosine of each row of one with the same row of the other, (N,); 0 where a vector is all zeros."""
    size_N = np.linalg.norm(a_ND, axis=1) * np.linalg.norm(b_ND, axis=1)
    return (a_ND * b_ND).sum(1) / np.where(size_N > 0, size_N, 1.0)


def tfidf_cosines(known: Sequence[str], first: Sequence[str], second: Sequence[str]) -> Array:
    """The cosine of the TF-IDF vectors of `first[i]` and `second[i]`, (N,), with the words and their weights from the
    texts in `known`; words as in BM25."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    model = TfidfVectorizer(analyzer=words_of).fit(known)  # pyright: ignore[reportArgumentType]
    a, b = model.transform(first), model.transform(second)  # each row has length 1
    return np.asarray(a.multiply(b).sum(axis=1)).ravel()


def tfidf_search(queries: Sequence[str], documents: Sequence[str]) -> Array:
    """The cosine of the TF-IDF vectors of each query and each document, (queries, documents); words and weights are
    those of the documents."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    model = TfidfVectorizer(analyzer=words_of).fit(documents)  # pyright: ignore[reportArgumentType]
    return np.asarray((model.transform(queries) @ model.transform(documents).T).todense())
