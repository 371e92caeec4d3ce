"""Judging choices: the scores of a row's options, ragged, against the option that is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from encodery.data.corpus import HeldRows
from encodery.data.loader import Loader, Place
from encodery.evaluation.choices import (
    RuleChoices,
    each_right,
    majority_place,
    score_choices,
    shares,
    word_overlap,
)
from encodery.evaluation.intervals import Metric
from encodery.evaluation.judges.judge import Comparison, Judge
from encodery.evaluation.metrics import SMALLEST_PROBABILITY
from encodery.evaluation.record import ComparisonRow
from encodery.evaluation.settings import EvaluationConfig
from encodery.model import Model, answering


@dataclass(frozen=True)
class ChoiceScores:
    """The score of each option of each row: flat, in the order of the rows, with the row that each belongs to."""

    scores: np.ndarray
    owner: np.ndarray

    def rows(self, count: int) -> list[np.ndarray]:
        """The scores of every row."""
        edges = np.searchsorted(self.owner, np.arange(1, count))
        return np.split(self.scores, edges)


def scores_of_rows(model: Model, loader: Loader, dtype: torch.dtype) -> ChoiceScores:
    """The score of each option of every row, whatever the packing."""
    scores, uids, parts = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    with answering(model, dtype):
        for batch, _ in loader.epoch(Place()):
            output = model(batch.to(model.device))
            assert output.logits is not None
            scores.append(output.logits[:, 0].double().cpu().numpy())
            uids.append(batch.uids)
            parts.append(batch.parts)
    flat, uid, part = (np.concatenate(found) for found in (scores, uids, parts))
    order = np.lexsort((part, uid))
    return ChoiceScores(flat[order], uid[order])


class ChoiceJudge(Judge):
    """Of choose."""

    known: ClassVar[tuple[str, ...]] = ("majority", "tfidf")

    @property
    def main_metric(self) -> str:
        return "choice_accuracy"

    def found(self, model: Model, held: HeldRows, loader: Loader, dtype: torch.dtype) -> ChoiceScores:
        del held
        return scores_of_rows(model, loader, dtype)

    def quick(self, found: ChoiceScores, held: HeldRows) -> dict[str, float]:
        rows, right = found.rows(len(held.rows)), _right(held)
        surprise = [-np.log(max(shares(one)[number], SMALLEST_PROBABILITY)) for one, number in zip(rows, right)]
        return {"loss": float(np.mean(surprise)), "metric": float(each_right(rows, right).mean())}

    def scores(
        self, found: ChoiceScores, held: HeldRows, *, rng: np.random.Generator, resamples: int = 1000
    ) -> dict[str, Metric]:
        return score_choices(found.rows(len(held.rows)), _right(held), rng=rng, resamples=resamples)

    def each(self, found: ChoiceScores, held: HeldRows) -> np.ndarray:
        return each_right(found.rows(len(held.rows)), _right(held))

    def baselines(self, asked: Comparison) -> list[ComparisonRow]:
        """majority: the place where the right option stands most often; tfidf: the option whose words are most those of
        the text (and of the question, where there is one)."""
        options, right = _options(asked.scored), _right(asked.scored)
        made: list[RuleChoices] = []
        if "majority" in asked.wanted:
            made.append(majority_place(_right(asked.train), [len(row) for row in options]))
        if "tfidf" in asked.wanted:
            made.append(word_overlap(_texts(asked.train), _options(asked.train), _texts(asked.scored), options))
        found = []
        for rule in made:
            rng = np.random.default_rng(asked.seed)
            metric = score_choices(rule.scores, right, rng=rng, resamples=asked.evaluation.resamples)[self.main_metric]
            found.append(ComparisonRow(rule.name, metric, 0, rule.seconds, rule.note))
        return found

    def detail(self, found: ChoiceScores, held: HeldRows, evaluation: EvaluationConfig, seed: int) -> dict[str, Any]:
        """Metrics, and the wrong rows with the least probability on the right option."""
        parts = super().detail(found, held, evaluation, seed)
        errors = []
        for number, (row, scores) in enumerate(zip(held.rows, found.rows(len(held.rows)))):
            choices, chances = row.beside["choices"], shares(scores)
            said = int(scores.argmax())
            if said != choices.right:
                errors.append(
                    {
                        "text": row.text if row.pair is None else f"{row.text}  ⟷  {row.pair}",
                        "where": row.where,
                        "row": number,
                        "true": choices.options[choices.right],
                        "predicted": choices.options[said],
                        "probability": float(chances[said]),
                        "true_probability": float(chances[choices.right]),
                    }
                )
        errors.sort(key=lambda error: error["true_probability"])
        return {**parts, "errors": errors[: evaluation.errors]}


def _right(held: HeldRows) -> list[int]:
    return [row.beside["choices"].right for row in held.rows]


def _options(held: HeldRows) -> list[tuple[str, ...]]:
    return [row.beside["choices"].options for row in held.rows]


def _texts(held: HeldRows) -> list[str]:
    return [row.text if row.pair is None else f"{row.text} {row.pair}" for row in held.rows]
