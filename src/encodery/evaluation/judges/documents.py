"""Judging answers about whole documents: one class, several labels, or a number for each row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from encodery.data.corpus import HeldRows
from encodery.data.loader import Loader
from encodery.evaluation.baselines import Baseline, majority, tfidf_logistic
from encodery.evaluation.calibration import expected_calibration_error, fit_temperature, reliability_bins
from encodery.evaluation.evaluate import (
    MAIN_METRIC,
    fit_readout_mix,
    mixed,
    probabilities,
    quick_score,
    row_parts,
    score,
)
from encodery.evaluation.intervals import Metric
from encodery.evaluation.judges.judge import Comparison, Judge
from encodery.evaluation.metrics import score_labels, score_multilabel, score_numbers
from encodery.evaluation.mistakes import confusion_matrix, most_wrong, most_wrong_numbers, per_class_table
from encodery.evaluation.record import ComparisonRow
from encodery.evaluation.settings import EvaluationConfig
from encodery.evaluation.wording import value_text
from encodery.model import Model


@dataclass(frozen=True)
class DocumentAnswers:
    """The logits of each answer that the readout mixes, (answers, rows, C), and what they come to, (rows, C)."""

    parts: np.ndarray
    logits: np.ndarray


class DocumentJudge(Judge):
    """Of classify, multilabel and regress."""

    known: ClassVar[tuple[str, ...]] = ("majority", "tfidf")

    @property
    def main_metric(self) -> str:
        return MAIN_METRIC[self.task.kind]

    def found(self, model: Model, held: HeldRows, loader: Loader, dtype: torch.dtype) -> DocumentAnswers:
        parts = row_parts(model, loader, held.store.rows, dtype)
        return DocumentAnswers(parts, mixed(model, parts))

    def adapted(self, model: Model, found: DocumentAnswers, held: HeldRows) -> DocumentAnswers:
        fit_readout_mix(model, self.task, found.parts, truth_of(held))
        return replace(found, logits=mixed(model, found.parts))

    def calibrated(self, found: DocumentAnswers, held: HeldRows) -> DocumentJudge:
        """With the temperature that fits the validation rows best (classes only)."""
        truth = truth_of(held)
        if self.task.kind != "classify" or not truth.size:
            return self
        return DocumentJudge(replace(self.task, temperature=fit_temperature(found.logits, truth)))

    def quick(self, found: DocumentAnswers, held: HeldRows) -> dict[str, float]:
        return quick_score(self.task, found.logits, truth_of(held))

    def scores(
        self, found: DocumentAnswers, held: HeldRows, *, rng: np.random.Generator, resamples: int = 1000
    ) -> dict[str, Metric]:
        return score(self.task, found.logits, truth_of(held), rng=rng, resamples=resamples)

    def each(self, found: DocumentAnswers, held: HeldRows) -> np.ndarray | None:
        if self.task.kind != "classify":
            return None
        return (found.logits.argmax(1) == truth_of(held)).astype(np.float64)

    def note(self, found: DocumentAnswers, held: HeldRows) -> str:
        """What the encoder and the n-grams would get without each other: who did the work?"""
        if len(found.parts) == 1:
            return ""
        truth = truth_of(held)
        encoder, ngrams = (
            value_text(quick_score(self.task, part, truth)["metric"], self.main_metric) for part in found.parts
        )
        return f"its encoder alone gets {encoder}, its n-grams alone {ngrams}"

    def baselines(self, asked: Comparison) -> list[ComparisonRow]:
        """Majority and TF-IDF, trained on the same rows and scored on the same rows as the encoder."""
        kind: Any = {"classify": "class", "multilabel": "classes", "regress": "number"}[self.task.kind]
        names = list(self.task.labels) or None
        labels = [row.label for row in asked.train.rows]
        made: list[Baseline] = []
        if "majority" in asked.wanted:
            made.append(majority(labels, len(asked.scored.rows), kind=kind, labels=names))
        if "tfidf" in asked.wanted:
            held = None
            if asked.validation is not None:
                held = (asked.validation.texts, [row.label for row in asked.validation.rows], asked.validation.pairs)
            made.append(
                tfidf_logistic(
                    asked.train.texts,
                    labels,
                    asked.scored.texts,
                    kind=kind,
                    labels=names,
                    train_pairs=asked.train.pairs,
                    test_pairs=asked.scored.pairs,
                    validation=held,
                )
            )
        return [
            ComparisonRow(
                baseline.name,
                self._of_baseline(baseline, asked.scored, asked.evaluation, asked.seed),
                baseline.parameters,
                baseline.seconds,
                baseline.note,
            )
            for baseline in made
        ]

    def _of_baseline(self, baseline: Baseline, scored: HeldRows, evaluation: EvaluationConfig, seed: int) -> Metric:
        truth, rng, resamples = truth_of(scored), np.random.default_rng(seed), evaluation.resamples
        if self.task.kind == "regress":
            return score_numbers(baseline.predicted, truth, rng=rng, resamples=resamples)[self.main_metric]
        assert baseline.probabilities is not None
        scorer = score_multilabel if self.task.kind == "multilabel" else score_labels
        return scorer(baseline.probabilities, truth, baseline.labels, rng=rng, resamples=resamples)[self.main_metric]

    def detail(self, found: DocumentAnswers, held: HeldRows, evaluation: EvaluationConfig, seed: int) -> dict[str, Any]:
        """Metrics, confusion, calibration, errors."""
        task, logits, truth = self.task, found.logits, truth_of(held)
        where = [row.where for row in held.rows]
        texts = [row.text if row.pair is None else f"{row.text}  ⟷  {row.pair}" for row in held.rows]
        parts = super().detail(found, held, evaluation, seed)
        given = probabilities(task, logits)
        if task.kind == "regress":
            step = max(1, truth.size // 2000)
            parts["scatter"] = np.column_stack([truth, given])[::step].tolist()
            parts["errors"] = most_wrong_numbers(given, truth, texts, where=where, top=evaluation.errors)
            return parts
        parts["errors"] = most_wrong(given, truth, task.labels, texts, where=where, top=evaluation.errors)
        predicted = given.argmax(1) if task.kind == "classify" else (given >= 0.5)
        parts["per_class"] = per_class_table(truth, predicted, task.labels)
        if task.kind == "classify":
            parts["confusion"] = confusion_matrix(truth, predicted, len(task.labels)).tolist()
            plain = probabilities(replace(task, temperature=1.0), logits)
            parts["calibration"] = {
                "before": reliability_bins(plain, truth),
                "after": reliability_bins(given, truth),
                "temperature": task.temperature,
                "ece_before": expected_calibration_error(plain, truth),
                "ece_after": expected_calibration_error(given, truth),
            }
        return parts

    def diagnoses(self, found: DocumentAnswers) -> list[str]:
        logits = found.logits
        if self.task.kind != "classify" or len(np.unique(logits.argmax(1))) != 1:
            return []
        return [
            f"Every row was answered with {self.task.labels[int(logits.argmax(1)[0])]!r}: the model collapsed. Lower "
            "training.optim.lr, or set objective.class_weights=balanced when one class is rare."
        ]

    def difference(self, found: DocumentAnswers, precise: DocumentAnswers, held: HeldRows) -> str:
        task, logits = self.task, found.logits
        change = np.abs(probabilities(task, logits) - probabilities(task, precise.logits)).mean()
        if task.kind == "regress":
            return f"numbers differ from those of fp32 by {change:.4g} on average"

        def decided(found: np.ndarray) -> np.ndarray:
            return found > 0 if task.kind == "multilabel" else found.argmax(axis=1)[:, None]

        same = (decided(logits) == decided(precise.logits)).all(axis=1).mean()
        return f"{same:.2%} of the rows are answered as in fp32; shares differ by {change:.4f}"


def truth_of(held: HeldRows) -> np.ndarray:
    """The labels of held rows, as numbers."""
    assert held.store.labels is not None, "rows with labels"
    return np.asarray(held.store.labels)
