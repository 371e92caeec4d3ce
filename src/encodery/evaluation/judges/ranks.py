"""Judging labels that have an order: probabilities of the ranks of each row, and how far off the answers are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch

from encodery.data.corpus import HeldRows
from encodery.data.loader import Loader, Place
from encodery.data.sources import Row
from encodery.evaluation.baselines import Baseline, majority, tfidf_logistic
from encodery.evaluation.calibration import fit_temperature, probabilities_at
from encodery.evaluation.intervals import Metric
from encodery.evaluation.judges.documents import truth_of
from encodery.evaluation.judges.judge import Comparison, Judge
from encodery.evaluation.mistakes import confusion_matrix, per_class_table
from encodery.evaluation.ranks import likeliest_rank, score_ranks
from encodery.evaluation.record import ComparisonRow
from encodery.evaluation.settings import EvaluationConfig
from encodery.model import Model, answering

SMALLEST = 1e-30


def rank_logits(model: Model, loader: Loader, rows: int, dtype: torch.dtype) -> np.ndarray:
    """Log-probabilities of the ranks of each row, (rows, C) float64. The probabilities of the windows of a long row are
    averaged, weighted by their tokens."""
    total: np.ndarray | None = None
    weight = np.zeros(rows)
    with answering(model, dtype):
        for batch, _ in loader.epoch(Place()):
            output = model(batch.to(model.device))
            assert output.logits is not None
            shares = output.logits.double().softmax(1).cpu().numpy()
            lengths = batch.layout.lengths.cpu().numpy().astype(np.float64)
            total = np.zeros((rows, shares.shape[1])) if total is None else total
            np.add.at(total, batch.uids, shares * lengths[:, None])
            np.add.at(weight, batch.uids, lengths)
    assert total is not None and (weight > 0).all(), "a row was left out of the batches"
    return np.log(np.maximum(total / weight[:, None], SMALLEST))


class RankJudge(Judge):
    """Of ordinal. The labels of the task stand in their order."""

    known: ClassVar[tuple[str, ...]] = ("majority", "tfidf")

    @property
    def main_metric(self) -> str:
        return "quadratic_kappa"

    def found(self, model: Model, held: HeldRows, loader: Loader, dtype: torch.dtype) -> np.ndarray:
        return rank_logits(model, loader, held.store.rows, dtype)

    def probabilities(self, found: np.ndarray) -> np.ndarray:
        """(rows, C)."""
        return probabilities_at(found, self.task.temperature)

    def calibrated(self, found: np.ndarray, held: HeldRows) -> RankJudge:
        """With the temperature that fits the validation rows best."""
        truth = truth_of(held)
        return RankJudge(replace(self.task, temperature=fit_temperature(found, truth))) if truth.size else self

    def quick(self, found: np.ndarray, held: HeldRows) -> dict[str, float]:
        truth, shares = truth_of(held), self.probabilities(found)
        loss = -np.log(np.maximum(shares[np.arange(truth.size), truth], SMALLEST)).mean()
        scores = score_ranks(shares, truth, rng=np.random.default_rng(0), resamples=0)
        return {"loss": float(loss), "metric": scores[self.main_metric].value or 0.0}

    def scores(
        self, found: np.ndarray, held: HeldRows, *, rng: np.random.Generator, resamples: int = 1000
    ) -> dict[str, Metric]:
        return score_ranks(self.probabilities(found), truth_of(held), rng=rng, resamples=resamples)

    def baselines(self, asked: Comparison) -> list[ComparisonRow]:
        """Majority and TF-IDF with a logistic regression that knows of no order, on the same rows."""
        labels, names = [row.label for row in asked.train.rows], list(self.task.labels)
        made: list[Baseline] = []
        if "majority" in asked.wanted:
            made.append(majority(labels, len(asked.scored.rows), labels=names))
        if "tfidf" in asked.wanted:
            held = None
            if asked.validation is not None:
                held = (asked.validation.texts, [row.label for row in asked.validation.rows], asked.validation.pairs)
            given = {
                "labels": names,
                "train_pairs": asked.train.pairs,
                "test_pairs": asked.scored.pairs,
                "validation": held,
            }
            made.append(tfidf_logistic(asked.train.texts, labels, asked.scored.texts, **given))
        found = []
        for one in made:
            assert one.probabilities is not None
            rng = np.random.default_rng(asked.seed)
            scores = score_ranks(
                one.probabilities, truth_of(asked.scored), rng=rng, resamples=asked.evaluation.resamples
            )
            found.append(ComparisonRow(one.name, scores[self.main_metric], one.parameters, one.seconds, one.note))
        return found

    def detail(self, found: np.ndarray, held: HeldRows, evaluation: EvaluationConfig, seed: int) -> dict[str, Any]:
        """Metrics, confusion, the table of the labels, and the rows that are farthest off."""
        parts = super().detail(found, held, evaluation, seed)
        truth, shares, labels = truth_of(held), self.probabilities(found), self.task.labels
        given = likeliest_rank(shares)
        parts["confusion"] = confusion_matrix(truth, given, len(labels)).tolist()
        parts["per_class"] = per_class_table(truth, given, labels)
        away, on_truth = np.abs(given - truth), shares[np.arange(truth.size), truth]
        wrong = [row for row in np.lexsort((on_truth, -away)).tolist() if away[row]][: evaluation.errors]
        parts["errors"] = [
            {
                "text": _shown(held.rows[row]),
                "where": held.rows[row].where,
                "row": row,
                "true": labels[int(truth[row])],
                "predicted": labels[int(given[row])],
                "probability": float(shares[row, given[row]]),
                "true_probability": float(on_truth[row]),
            }
            for row in wrong
        ]
        return parts

    def diagnoses(self, found: np.ndarray) -> list[str]:
        given = likeliest_rank(self.probabilities(found))
        if len(np.unique(given)) != 1:
            return []
        return [
            f"Every row was answered with {self.task.labels[int(given[0])]!r}: the model collapsed. Lower "
            "training.optim.lr, or give it more time (training.budget)."
        ]


def _shown(row: Row) -> str:
    return row.text if row.pair is None else f"{row.text}  ⟷  {row.pair}"
