"""A cross-encoder's losses by hand: each candidate by itself, all candidates of a query, grades."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from conftest import batch_of
from encodery.batch import Batch, Output
from encodery.data.sources import DataConfig
from encodery.objectives.ranking import RankConfig, Ranking

LOGITS = [0.5, -1.0, 2.0, 0.1, 0.3]


def candidates(uids: list[int], parts: list[int], objective: Ranking, **truth: Any) -> Batch:
    batch = batch_of([[np.array([5 + place]) for place in range(len(uids))]], 8)
    named = {name: torch.tensor(value) for name, value in truth.items()}
    batch = Batch(batch.values, batch.layout, named, np.array(uids), np.array(parts))
    return objective.prepare(batch, np.random.default_rng(0), 0.0)


def output() -> Output:
    return Output(logits=torch.tensor(LOGITS)[:, None])


def log_share(right: float, scores: list[float]) -> float:
    return right - math.log(sum(math.exp(score) for score in scores))


def test_listwise_compares_the_candidates_of_a_query() -> None:
    objective = Ranking(RankConfig())
    loss = objective.loss(output(), candidates([4, 4, 9, 9, 9], [0, 1, 1, 0, 2], objective))
    expected = -log_share(0.5, [0.5, -1.0]) - log_share(0.1, [2.0, 0.1, 0.3])
    assert float(loss.total) == pytest.approx(expected, rel=1e-5)
    assert float(loss.count) == 2 and int(loss.correct) == 1  # type: ignore[arg-type]


def test_listwise_with_grades_and_a_query_without_a_relevant_candidate() -> None:
    objective = Ranking(RankConfig(grades=True), most=3.0)
    batch = candidates([0, 1, 2, 3, 4], [0] * 5, objective, label=[3.0, 1.0, 0.0, 0.0, 0.0], query=[7, 7, 7, 8, 8])
    loss = objective.loss(output(), batch)
    scores = [0.5, -1.0, 2.0]
    expected = -0.75 * log_share(0.5, scores) - 0.25 * log_share(-1.0, scores)
    assert float(loss.total) == pytest.approx(expected, rel=1e-5)
    assert float(loss.count) == 1 and int(loss.correct) == 0  # type: ignore[arg-type]


def test_pointwise() -> None:
    objective = Ranking(RankConfig(grades=True, loss="pointwise"), most=2.0)
    loss = objective.loss(output(), candidates([0, 1, 2, 3, 4], [0] * 5, objective, label=[2.0, 0.0, 1.0, 0.0, 0.0]))
    expected = 0.0
    for score, grade in zip(LOGITS, [1, 0, 0.5, 0, 0]):
        p = 1 / (1 + math.exp(-score))
        expected -= grade * math.log(p) + (1 - grade) * math.log(1 - p)
    assert float(loss.total) == pytest.approx(expected, rel=1e-5)
    assert float(loss.count) == 5 and int(loss.correct) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("objective", "data", "said"),
    [
        ({}, {}, "data.pair"),
        ({}, {"pair": "b"}, "data.negatives"),
        ({"grades": True}, {"pair": "b"}, "data.label"),
    ],
)
def test_columns_that_are_missing_are_named(objective: dict[str, Any], data: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RankConfig.model_validate(objective).fields(DataConfig.model_validate({"train": "x.jsonl", **data}))
