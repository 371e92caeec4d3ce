"""What a run came to: its scores beside the baselines, calibration, mistakes, and the record of it all."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from encodery.config import Config
from encodery.data.corpus import HeldRows
from encodery.evaluation.baselines import Baseline, majority, tfidf_logistic
from encodery.evaluation.calibration import expected_calibration_error, fit_temperature, reliability_bins
from encodery.evaluation.evaluate import MAIN_METRIC, probabilities, score
from encodery.evaluation.intervals import Metric, paired_difference
from encodery.evaluation.metrics import score_labels, score_multilabel, score_numbers
from encodery.evaluation.mistakes import confusion_matrix, most_wrong, most_wrong_numbers, per_class_table
from encodery.evaluation.record import ComparisonRow, RunKind, RunRecord
from encodery.trained import Task

RUN_KIND: dict[str, RunKind] = {
    "masked": "pretraining",
    "classify": "classification",
    "multilabel": "multilabel",
    "regress": "regression",
}


Compared = Literal["majority", "tfidf", "scratch"]


class EvaluationConfig(Config):
    """What the result is compared with and how sure the figures are."""

    compare: list[Compared] = Field(default_factory=lambda: ["majority", "tfidf"])  # type: ignore[arg-type]
    """majority: the commonest answer; tfidf: TF-IDF with a linear model on the same rows; scratch: the same
    encoder, fine-tuned the same way, without the weights it started from."""
    resamples: int = Field(default=1000, ge=100, le=100_000)
    """Bootstrap resamples behind each 95 % interval."""
    errors: int = Field(default=20, ge=0, le=1000)
    """How many of the rows it is most wrong about the report shows."""


@dataclass(frozen=True)
class Contender:
    """One fine-tuned model in the comparison: its logits on the scored rows and what it cost."""

    name: str
    logits: np.ndarray
    parameters: int
    seconds: float
    note: str = ""


def calibrated(task: Task, logits: np.ndarray, truth: np.ndarray) -> Task:
    """The task with the temperature that fits the validation rows best (classes only)."""
    if task.kind != "classify" or not truth.size:
        return task
    return replace(task, temperature=fit_temperature(logits, truth))


def baseline_rows(
    task: Task,
    compare: list[Compared],
    train: HeldRows,
    validation: HeldRows | None,
    scored: HeldRows,
    evaluation: EvaluationConfig,
    seed: int,
) -> list[tuple[ComparisonRow, Baseline]]:
    """Majority and TF-IDF, trained on the same rows and scored on the same rows as the encoder."""
    kind = {"classify": "class", "multilabel": "classes", "regress": "number"}[task.kind]
    names = list(task.labels) or None
    rows: list[tuple[ComparisonRow, Baseline]] = []
    made: list[Baseline] = []
    labels = [row.label for row in train.rows]
    if "majority" in compare:
        made.append(majority(labels, len(scored.rows), kind=kind, labels=names))  # type: ignore[arg-type]
    if "tfidf" in compare:
        held = None
        if validation is not None:
            held = (validation.texts, [row.label for row in validation.rows], validation.pairs)
        made.append(
            tfidf_logistic(
                train.texts,
                labels,
                scored.texts,
                kind=kind,  # type: ignore[arg-type]
                labels=names,
                train_pairs=train.pairs,
                test_pairs=scored.pairs,
                validation=held,
            )
        )
    for baseline in made:
        metric = _baseline_metric(task, baseline, scored, evaluation, seed)
        rows.append(
            (
                ComparisonRow(baseline.name, metric, baseline.parameters, baseline.seconds, baseline.note),
                baseline,
            )
        )
    return rows


def _baseline_metric(
    task: Task, baseline: Baseline, scored: HeldRows, evaluation: EvaluationConfig, seed: int
) -> Metric:
    truth = scored.store.labels
    assert truth is not None
    rng, resamples = np.random.default_rng(seed), evaluation.resamples
    if task.kind == "regress":
        return score_numbers(baseline.predicted, truth, rng=rng, resamples=resamples)[MAIN_METRIC[task.kind]]
    assert baseline.probabilities is not None
    scorer = score_multilabel if task.kind == "multilabel" else score_labels
    return scorer(baseline.probabilities, truth, baseline.labels, rng=rng, resamples=resamples)[MAIN_METRIC[task.kind]]


def contender_row(
    task: Task, contender: Contender, scored: HeldRows, evaluation: EvaluationConfig, seed: int
) -> ComparisonRow:
    """The line of a trained model in the table."""
    truth = scored.store.labels
    assert truth is not None
    metrics = score(task, contender.logits, truth, rng=np.random.default_rng(seed), resamples=evaluation.resamples)
    return ComparisonRow(
        contender.name,
        metrics[MAIN_METRIC[task.kind]],
        contender.parameters,
        contender.seconds,
        contender.note,
    )


def pairwise_notes(task: Task, own: Contender, others: list[Contender], scored: HeldRows, seed: int) -> list[str]:
    """One sentence for each other model: whether the difference on the same rows is beyond chance."""
    truth = scored.store.labels
    if task.kind != "classify" or truth is None:
        return []
    right = own.logits.argmax(1) == truth
    notes = []
    for other in others:
        gain = paired_difference(right, other.logits.argmax(1) == truth, np.random.default_rng(seed))
        assert gain.value is not None and gain.low is not None and gain.high is not None
        sure = "beyond chance" if gain.excludes_zero else "within chance"
        notes.append(
            f"{own.name} against {other.name}, same rows: {100 * gain.value:+.1f} points "
            f"({100 * gain.low:+.1f} to {100 * gain.high:+.1f}), {sure}."
        )
    return notes


def detail(task: Task, logits: np.ndarray, scored: HeldRows, evaluation: EvaluationConfig, seed: int) -> dict[str, Any]:
    """The parts of the record that come from the scored rows: metrics, confusion, calibration, errors."""
    truth = scored.store.labels
    assert truth is not None
    where = [row.where for row in scored.rows]
    texts = [row.text if row.pair is None else f"{row.text}  ⟷  {row.pair}" for row in scored.rows]
    metrics = score(task, logits, truth, rng=np.random.default_rng(seed), resamples=evaluation.resamples)
    parts: dict[str, Any] = {
        "metrics": {name: metric.to_dict() for name, metric in metrics.items()},
        "main_metric": MAIN_METRIC[task.kind],
        "labels": list(task.labels),
    }
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


def diagnoses(curves: list[dict[str, Any]], entropy: float | None, task: Task, logits: np.ndarray | None) -> list[str]:
    """What went wrong with the learning, in words, when it did."""
    found: list[str] = []
    losses = [row["loss"] for row in curves if row.get("loss") is not None]
    validation = [row["validation_loss"] for row in curves if row.get("validation_loss") is not None]
    if entropy is not None and validation and entropy - 0.3 < min(validation):
        found.append(
            f"The loss stayed near the entropy of the token frequencies ({entropy:.2f}): the model has learned how "
            "often tokens occur, but not yet from their neighbours. Give it more time (training.budget), smaller "
            "batches, or the optimizer muon and frontend.start=cooccurrence."
        )
    if len(losses) >= 20 and np.mean(losses[:5]) * 1.02 < np.mean(losses[-5:]):
        found.append("The training loss ended higher than it began: lower training.optim.lr.")
    if len(validation) >= 3 and min(validation) * 1.1 < validation[-1] and min(validation) < validation[0]:
        found.append(
            "The validation loss rose again towards the end (overfitting); the best weights were kept. A shorter "
            "budget, more dropout or more data would help."
        )
    if logits is not None and task.kind == "classify" and len(np.unique(logits.argmax(1))) == 1:
        found.append(
            f"Every row was answered with {task.labels[int(logits.argmax(1)[0])]!r}: the model collapsed. Lower "
            "training.optim.lr, or set objective.class_weights=balanced when one class is rare."
        )
    return found


def hardware_facts() -> dict[str, Any]:
    """What the run ran on."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        name = models[0] if models else name
    except OSError:
        pass
    facts: dict[str, Any] = {"cpu": name, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name(0)
    return {**facts, "system": platform.platform()}


def version_facts() -> dict[str, str]:
    """The versions a result depends on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for package in ("encodery", "torch", "numpy", "tokenizers", "scikit-learn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def now() -> str:
    """Date and time, to the minute, with the zone."""
    return time.strftime("%Y-%m-%d %H:%M %Z")


def base_record(name: str, task: Task, command: str) -> RunRecord:
    """A record with what does not depend on the result."""
    return RunRecord(
        name=name,
        kind=RUN_KIND[task.kind],
        command=command,
        created=now(),
        hardware=hardware_facts(),
        versions=version_facts(),
    )
