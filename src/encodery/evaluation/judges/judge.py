"""What is asked of a trained model and what its answers are worth: one Judge for each kind of task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from encodery.data.corpus import HeldRows
from encodery.data.loader import Loader
from encodery.evaluation.intervals import Metric
from encodery.evaluation.record import ComparisonRow
from encodery.evaluation.settings import EvaluationConfig
from encodery.model import Model
from encodery.trained import Task


@dataclass(frozen=True)
class Comparison:
    """What a result is compared with: the simple models that are `wanted`, what they learn from, and the rows that all
    are scored on."""

    wanted: list[str]
    train: HeldRows
    validation: HeldRows | None
    scored: HeldRows
    evaluation: EvaluationConfig
    seed: int


class Judge(ABC):
    """Scores the answers of a model to one task.

    What `found` gives is opaque to all others: it goes back into the other methods, with the rows it was found on.
    Methods with an answer here may be left as they are.
    """

    known: ClassVar[tuple[str, ...]] = ()
    """The simple models that it can be compared with, in the order of the table."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @property
    @abstractmethod
    def main_metric(self) -> str:
        """The metric that runs are compared by; higher is better (evaluation/metrics.py names it)."""

    @abstractmethod
    def found(self, model: Model, held: HeldRows, loader: Loader, dtype: torch.dtype) -> Any:
        """What the model says of every row, in the order of the data, whatever the packing."""

    def glance(self) -> Judge:
        """Who judges while a run is learning: one that takes less time, where `found` takes long."""
        return self

    def adapted(self, model: Model, found: Any, held: HeldRows) -> Any:
        """After small things that the model keeps are fitted to these (validation) rows: what it says of them now."""
        del model, held
        return found

    def calibrated(self, found: Any, held: HeldRows) -> Judge:
        """With what the task keeps (a temperature, a threshold) fitted to these (validation) rows."""
        del found, held
        return self

    @abstractmethod
    def quick(self, found: Any, held: HeldRows) -> dict[str, float]:
        """`loss` and `metric`, the main one, without an interval: for validation while training. With `score`, which
        decides which weights are kept, where that is not the metric."""

    @abstractmethod
    def scores(
        self, found: Any, held: HeldRows, *, rng: np.random.Generator, resamples: int = 1000
    ) -> dict[str, Metric]:
        """All metrics with their 95 % intervals."""

    def each(self, found: Any, held: HeldRows) -> np.ndarray | None:
        """A number for each row whose mean is the main metric, (rows,): for differences on the same rows. None where
        the main metric is no mean."""
        del found, held
        return None

    def note(self, found: Any, held: HeldRows) -> str:
        """What the table should say of this model beside its figures."""
        del found, held
        return ""

    def baselines(self, asked: Comparison) -> list[ComparisonRow]:
        """Those of `known` that are wanted, learned from the same rows and scored on the same rows."""
        del asked
        return []

    def detail(self, found: Any, held: HeldRows, evaluation: EvaluationConfig, seed: int) -> dict[str, Any]:
        """The parts of the record that come from the scored rows: `metrics`, `main_metric`, errors and so on."""
        rng = np.random.default_rng(seed)
        metrics = self.scores(found, held, rng=rng, resamples=evaluation.resamples)
        return {
            "metrics": {name: metric.to_dict() for name, metric in metrics.items()},
            "main_metric": self.main_metric,
            "labels": list(self.task.labels),
        }

    def diagnoses(self, found: Any) -> list[str]:
        """What went wrong with the answers, in words."""
        del found
        return []

    def difference(self, found: Any, precise: Any, held: HeldRows) -> str:
        """How answers in a lower precision differ from the precise ones, as a sentence without its full stop."""
        metrics = [self.quick(one, held)["metric"] for one in (found, precise)]
        return f"{self.main_metric} is {metrics[0]:.4f}, in fp32 {metrics[1]:.4f}"
