"""What a run came to: trained models beside each other, what went wrong, and the record it is kept in."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from encodery.data.corpus import HeldRows
from encodery.evaluation.intervals import difference
from encodery.evaluation.judges.judge import Judge
from encodery.evaluation.record import ComparisonRow, RunKind, RunRecord
from encodery.evaluation.settings import EvaluationConfig
from encodery.trained import Task

RUN_KIND: dict[str, RunKind] = {
    "masked": "pretraining",
    "replaced": "pretraining",
    "classify": "classification",
    "multilabel": "multilabel",
    "regress": "regression",
    "ordinal": "ordinal",
    "answer": "answers",
    "choose": "choices",
    "write": "writing",
    "causal": "language",
    "embed": "vectors",
    "rank": "ranking",
    "tag": "tagging",
}


FEW_STEPS = 50
"""Fewer than that hardly move the weights, whatever the rate."""


@dataclass(frozen=True)
class Contender:
    """One trained model in the comparison: what it says of the scored rows, by whom it is judged, what it cost."""

    name: str
    judge: Judge
    found: Any
    parameters: int
    seconds: float
    note: str = ""


def contender_row(contender: Contender, scored: HeldRows, evaluation: EvaluationConfig, seed: int) -> ComparisonRow:
    """The line of a trained model in the table."""
    judge, rng = contender.judge, np.random.default_rng(seed)
    metrics = judge.scores(contender.found, scored, rng=rng, resamples=evaluation.resamples)
    metric = metrics[judge.main_metric]
    return ComparisonRow(contender.name, metric, contender.parameters, contender.seconds, contender.note)


def with_gains(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """The table with what its last line, the run itself, has more than each of the others."""
    *others, own = rows
    return [replace(row, gain=difference(own.metric, row.metric)) for row in others] + [own]


def diagnoses(curves: list[dict[str, Any]], entropy: float | None) -> list[str]:
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
    steps = max((row["step"] for row in curves if row.get("step") is not None), default=0)
    if 0 < steps < FEW_STEPS:
        found.append(
            f"Only {steps:,} steps were taken, too few to learn much: read the rows more often (training.budget='10 "
            "epochs' and the like), or in smaller batches (training.batch_tokens)."
        )
    if len(losses) >= 20 and np.mean(losses[:5]) * 1.02 < np.mean(losses[-5:]):
        found.append("The training loss ended higher than it began: lower training.optim.lr.")
    if len(validation) >= 3 and min(validation) * 1.1 < validation[-1] and min(validation) < validation[0]:
        found.append(
            "The validation loss rose again towards the end (overfitting). A shorter budget, more dropout or more "
            "data would help."
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
