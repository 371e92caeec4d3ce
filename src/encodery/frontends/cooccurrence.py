"""A start for embeddings that costs seconds: which tokens stand near each other, factorised.

Masked-word pretraining first has to learn which words are alike, and sits on a plateau until it has. Counting
gives that at once: the positive pointwise mutual information of neighbouring tokens, factorised by a truncated
SVD, is what word2vec learns implicitly (Levy and Goldberg 2014, "Neural Word Embedding as Implicit Matrix
Factorization"; smoothing and root of the singular values after Levy, Goldberg and Dagan 2015).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import sparse


def count_neighbours(documents: Iterable[np.ndarray], vocab_size: int, *, reach: int = 5) -> sparse.csr_matrix:
    """Count how often two tokens stand within `reach` of each other, weighted by 1 / distance: (V, V), symmetric.

    `documents` yields id arrays; tokens of different documents are never neighbours.
    """
    total = sparse.csr_matrix((vocab_size, vocab_size), dtype=np.float32)
    for ids, document in _chunks(documents):
        for distance in range(1, reach + 1):
            same = document[distance:] == document[:-distance]
            left, right = ids[:-distance][same], ids[distance:][same]
            weight = np.full(left.size, 1.0 / distance, np.float32)
            total += sparse.csr_matrix((weight, (left, right)), shape=total.shape)
    return (total + total.T).tocsr()


def positive_mutual_information(counts: sparse.csr_matrix, *, smoothing: float = 0.75) -> sparse.csr_matrix:
    """max(0, log p(a, b) / (p(a) p(b)^smoothing)) at the counted pairs, (V, V)."""
    pairs = counts.tocoo()
    word = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    context = word**smoothing
    expected = word[pairs.row] / max(word.sum(), 1e-12) * (context[pairs.col] / max(context.sum(), 1e-12))
    value = np.log(np.maximum(pairs.data / max(counts.sum(), 1e-12), 1e-30) / np.maximum(expected, 1e-30))
    keep = value > 0
    return sparse.csr_matrix((value[keep].astype(np.float32), (pairs.row[keep], pairs.col[keep])), counts.shape)


def cooccurrence_embeddings(
    documents: Iterable[np.ndarray], vocab_size: int, width: int, *, std: float, seed: int, reach: int = 5
) -> np.ndarray:
    """Embeddings (V, D) float32 whose inner products follow the mutual information of neighbours.

    Columns are scaled together to spread `std`; tokens that were never counted get a random vector of that
    spread. When the corpus has fewer independent directions than `width`, the rest is random and small.
    """
    from sklearn.utils.extmath import randomized_svd

    rng = np.random.default_rng(seed)
    vectors = rng.normal(0.0, std, (vocab_size, width)).astype(np.float32)
    information = positive_mutual_information(count_neighbours(documents, vocab_size, reach=reach))
    counted = np.flatnonzero(np.diff(information.indptr))
    rank = min(width, len(counted) - 1)
    if rank < 2:
        return vectors
    # Its stub knows only the name of the default number of iterations.
    left, strength, _ = randomized_svd(information, n_components=rank, n_iter=3, random_state=seed)  # pyright: ignore
    factors = (left * np.sqrt(strength))[counted]
    factors -= factors.mean(axis=0)
    spread = float(factors.std()) or 1.0
    vectors[counted, :rank] = factors * (std / spread)
    vectors[counted, rank:] *= 0.1
    return vectors


def _chunks(documents: Iterable[np.ndarray], size: int = 1 << 20) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Join documents into arrays of about `size` tokens, with the number of the document beside each token."""
    held: list[np.ndarray] = []
    tokens = 0
    for ids in documents:
        held.append(np.asarray(ids, dtype=np.int64))
        tokens += len(ids)
        if size <= tokens:
            yield _joined(held)
            held, tokens = [], 0
    if tokens:
        yield _joined(held)


def _joined(held: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(held), np.repeat(np.arange(len(held)), [len(ids) for ids in held])
