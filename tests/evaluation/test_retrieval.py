"""Rankings: each metric by its definition and by scikit-learn's; ties, fusion, significance, BM25 by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from encodery.errors import DataError, TrainingError
from encodery.evaluation.bm25 import BM25, words_of
from encodery.evaluation.retrieval import (
    permutation_p,
    ranking_metrics,
    reciprocal_rank_fusion,
    score_rankings,
    weighted_fusion,
)

RUN = {"a": {"d1": 3.0, "d2": 2.0, "d3": 1.0, "d4": 0.5}, "b": {"d1": 0.1, "d2": 0.9, "d3": 0.5}}
JUDGED = {"a": {"d2": 1.0, "d4": 3.0, "d9": 1.0, "d1": 0.0}, "b": {"d3": 1.0}, "nothing": {"d1": 0.0}}


def test_by_hand() -> None:
    found = ranking_metrics(RUN, JUDGED, cutoffs=(1, 3, 10))
    assert found["mrr_1"].tolist() == [0, 0]
    assert found["mrr_10"].tolist() == [1 / 2, 1 / 2]
    assert found["success_1"].tolist() == [0, 0] and found["success_3"].tolist() == [1, 1]
    assert found["recall_3"].tolist() == [1 / 3, 1] and found["recall_10"].tolist() == [2 / 3, 1]
    assert found["mean_average_precision"].tolist() == [pytest.approx((1 / 2 + 2 / 4) / 3), 1 / 2]
    best = 3 + 1 / math.log2(3) + 1 / math.log2(4)
    assert found["ndcg_10"][0] == pytest.approx((1 / math.log2(3) + 3 / math.log2(5)) / best)
    assert found["ndcg_3"][0] == pytest.approx((1 / math.log2(3)) / best)


def test_as_scikit_learn_counts_them() -> None:
    rng = np.random.default_rng(0)
    scores, grades = rng.normal(size=(40, 30)), rng.integers(0, 4, (40, 30)) * (rng.random((40, 30)) < 0.3)
    grades[:, 0] = 1
    run = {str(q): {str(d): float(scores[q, d]) for d in range(30)} for q in range(40)}
    judged = {str(q): {str(d): float(grades[q, d]) for d in range(30)} for q in range(40)}
    found = ranking_metrics(run, judged, cutoffs=(5, 10))
    for limit in (5, 10):
        expected = [ndcg_score(grades[q : q + 1], scores[q : q + 1], k=limit) for q in range(40)]
        np.testing.assert_allclose(found[f"ndcg_{limit}"], expected)
    expected = [average_precision_score(grades[q] > 0, scores[q]) for q in range(40)]
    np.testing.assert_allclose(found["mean_average_precision"], expected)


def test_scores_that_are_all_alike_gain_nothing() -> None:
    run = {"q": {f"d{n}": 1.0 for n in range(10)}}
    found = ranking_metrics(run, {"q": {"d0": 1.0}})
    assert found["mrr_10"].tolist() == [0.1]


def test_a_query_that_the_run_lacks_counts_nothing_and_wrong_input_is_refused() -> None:
    assert ranking_metrics({}, JUDGED)["mean_average_precision"].tolist() == [0, 0]
    with pytest.raises(DataError, match="relevant"):
        ranking_metrics(RUN, {"q": {"d": 0.0}})
    with pytest.raises(TrainingError, match="query a"):
        ranking_metrics({"a": {"d1": math.nan}}, JUDGED)
    with pytest.raises(DataError, match="one weight"):
        weighted_fusion([RUN], [1.0, 2.0])
    with pytest.raises(DataError, match="pairs"):
        permutation_p(np.zeros(3), np.zeros(4), np.random.default_rng(0))
    with pytest.raises(DataError, match="no documents"):
        BM25([])


def test_intervals_are_over_queries() -> None:
    rng = np.random.default_rng(3)
    judged = {str(q): {"d": 1.0} for q in range(200)}
    run = {str(q): {"d": 1.0, "e": 2.0 * (q % 2)} for q in range(200)}
    found = score_rankings(run, {**judged, "none": {"d": 0.0}}, rng=rng)["mrr_10"]
    assert found.value == pytest.approx(0.75) and "1 queries" in found.note
    assert found.low is not None and found.high is not None
    deviation = 0.25 / math.sqrt(200)
    assert found.high - found.low == pytest.approx(3.92 * deviation, rel=0.2)


def test_permutation_p_is_small_only_for_a_difference() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=100)
    assert permutation_p(a, a - 1 + 0.1 * rng.normal(size=100), rng) < 0.001
    assert permutation_p(a, a, rng) == 1.0
    # Three queries, all won by the same run: 2 of 8 sign patterns are as large.
    assert permutation_p(np.array([1.0, 2, 3]), np.zeros(3), rng) == pytest.approx(0.25, abs=0.03)


def test_fusion() -> None:
    one, two = {"q": {"a": 9.0, "b": 5.0, "c": 1.0}}, {"q": {"b": 0.3, "c": 0.2, "d": 0.2}}
    fused = reciprocal_rank_fusion([one, two], k=60)["q"]
    assert fused["a"] == pytest.approx(1 / 61) and fused["b"] == pytest.approx(1 / 62 + 1 / 61)
    assert fused["d"] == pytest.approx(1 / 62.5)
    summed = weighted_fusion([one, two], [1.0, 0.5], scale="minmax")["q"]
    assert summed == pytest.approx({"a": 1.0, "b": 0.5 + 0.5, "c": 0.0, "d": 0.0})
    alone = weighted_fusion([one, two], [1.0, 0.0])["q"]
    assert sorted(alone, key=lambda name: -alone[name])[:2] == ["a", "b"]


def test_bm25_by_hand() -> None:
    documents = ["the cat sat", "the dog and the dog", "a bird"]
    found = BM25(documents, k1=1.2, b=0.75).scores(["the dog", "unknown", "cat cat"])
    mean = 10 / 3

    def part(often: int, length: int, known_in: int) -> float:
        idf = math.log(1 + (3 - known_in + 0.5) / (known_in + 0.5))
        return idf * often / (often + 1.2 * (0.25 + 0.75 * length / mean))

    assert found.shape == (3, 3)
    assert found[0].tolist() == pytest.approx([part(1, 3, 2), part(2, 5, 2) + part(2, 5, 1), 0.0])
    assert found[1].tolist() == [0, 0, 0]
    assert found[2, 0] == pytest.approx(2 * part(1, 3, 1))


def test_words() -> None:
    assert words_of("Hello, World's 3rd_try") == ["hello", "world", "s", "3rd", "try"]
    assert words_of("我爱北京 ok 好") == ["我爱", "爱北", "北京", "ok", "好"]
