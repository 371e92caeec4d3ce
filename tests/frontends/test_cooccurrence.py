"""Co-occurrence embeddings: counts and mutual information by hand, never across documents."""

from __future__ import annotations

import math

import numpy as np
import pytest

import encodery.frontends.cooccurrence as room
from encodery.frontends.cooccurrence import cooccurrence_embeddings, count_neighbours, positive_mutual_information

TOY = [np.array([1, 2, 3, 1]), np.array([2, 2]), np.array([4]), np.array([], dtype=np.int64), np.array([3, 0])]


def by_hand(documents: list[np.ndarray], vocab_size: int, reach: int) -> np.ndarray:
    counts = np.zeros((vocab_size, vocab_size))
    for ids in documents:
        for i, a in enumerate(ids):
            for j, b in enumerate(ids):
                if i != j and abs(i - j) <= reach:
                    counts[a, b] += 1 / abs(i - j)
    return counts


@pytest.mark.parametrize("reach", [1, 2, 5])
def test_counts_by_hand_never_across_documents(reach: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for documents in (TOY, [rng.integers(0, 6, rng.integers(0, 9)) for _ in range(50)]):
        for chunk in (1, 7, 1 << 20):
            real = room._chunks
            monkeypatch.setattr(room, "_chunks", lambda given, chunk=chunk: real(given, chunk))
            found = count_neighbours(documents, 6, reach=reach)
            monkeypatch.undo()
            np.testing.assert_allclose(found.toarray(), by_hand(documents, 6, reach), rtol=1e-6)
            assert abs(found - found.T).max() == 0


def test_mutual_information_by_hand() -> None:
    counts = by_hand(TOY, 6, 5)
    found = positive_mutual_information(count_neighbours(TOY, 6)).toarray()
    total, word = counts.sum(), counts.sum(axis=1)
    context = word**0.75
    for a in range(6):
        for b in range(6):
            expected = 0.0
            if counts[a, b]:
                pair = counts[a, b] / total
                expected = max(0.0, math.log(pair / (word[a] / total * context[b] / context.sum())))
            assert found[a, b] == pytest.approx(expected, abs=1e-6)


def corpus(number: int = 400) -> list[np.ndarray]:
    """Two topics: tokens 5-14 stand together, and 15-24."""
    rng = np.random.default_rng(1)
    return [rng.integers(5, 15, 12) + 10 * (n % 2) for n in range(number)]


def test_tokens_that_stand_together_become_alike() -> None:
    vectors = cooccurrence_embeddings(corpus(), 30, 8, std=0.1, seed=3)
    assert vectors.shape == (30, 8) and vectors.dtype == np.float32
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T
    same = np.concatenate([alike[5:15, 5:15].ravel(), alike[15:25, 15:25].ravel()]).mean()
    assert same > 0.5 + alike[5:15, 15:25].mean()
    assert vectors[5:25].std() == pytest.approx(0.1, rel=0.15)
    assert np.linalg.norm(vectors[25:], axis=1).min() > 0  # never counted: random, not zero


def test_the_same_seed_gives_the_same_bits() -> None:
    one, same, other = (cooccurrence_embeddings(corpus(), 30, 8, std=0.1, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one, same) and not np.array_equal(one[25:], other[25:])


@pytest.mark.parametrize(
    "documents",
    [[], [np.array([7])], [np.array([7, 7, 7])], [np.array([7, 8])], [np.array([7, 8, 9])] * 3, corpus(6)],
)
@pytest.mark.parametrize("width", [4, 64])
def test_too_little_text_is_still_a_start(documents: list[np.ndarray], width: int) -> None:
    """Fewer independent directions than channels, down to no text at all."""
    vectors = cooccurrence_embeddings(iter(documents), 30, width, std=0.1, seed=1)
    assert vectors.shape == (30, width) and np.isfinite(vectors).all()
    assert np.unique(vectors, axis=0).shape[0] == 30  # no two tokens begin as the same vector
