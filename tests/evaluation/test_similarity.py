"""Similarities: cosines by hand, what simple models say, correlation whatever the scale."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from encodery.evaluation.similarity import cosines, score_similarity, tfidf_cosines, tfidf_search


def test_correlations_do_not_depend_on_the_scale() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 5, 80)
    close = truth / 5 + 0.2 * rng.normal(size=80)
    found = score_similarity(close, truth, rng=np.random.default_rng(1))
    again = score_similarity(10 * close - 3, truth, rng=np.random.default_rng(1))
    assert set(found) == {"spearman", "pearson"}
    assert found["spearman"].value == pytest.approx(np.asarray(spearmanr(close, truth))[0])
    assert found["pearson"].value == pytest.approx(again["pearson"].value)
    assert found["pearson"].low is not None and found["pearson"].low < np.corrcoef(close, truth)[0, 1]


def test_cosines() -> None:
    a, b = np.array([[1.0, 0], [3, 4], [0, 0]]), np.array([[1.0, 1], [6, 8], [1, 0]])
    assert cosines(a, b).tolist() == pytest.approx([0.5**0.5, 1, 0])


def test_simple_models() -> None:
    first, second = ["a cat sits", "a dog"], ["a cat sits", "the rain"]
    assert tfidf_cosines(first + second, first, second).tolist() == pytest.approx([1.0, 0.0])
    found = tfidf_search(["a cat"], ["a cat", "the rain", "cat cat"])
    assert found.shape == (1, 3) and found[0, 0] == pytest.approx(1.0) and found[0, 1] == 0 and 0 < found[0, 2] < 1
