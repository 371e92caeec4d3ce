"""Labels that have an order, such as stars or grades: a near miss is better than a far one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from encodery.batch import Batch, Output
from encodery.bricks.choices import PoolingName
from encodery.config import Config
from encodery.data.fields import Field as DataField
from encodery.data.sources import DataConfig, Labels
from encodery.data.store import TokenStore
from encodery.errors import DataError, nearest
from encodery.heads.options import OrdinalReadoutConfig
from encodery.heads.ordinal import above_log_probabilities
from encodery.objectives.masked import Loss
from encodery.trained import Task


class OrdinalConfig(Config):
    """One of several labels that have an order."""

    kind: Literal["ordinal"] = "ordinal"
    order: tuple[str, ...] = ()
    """The labels from the lowest to the highest. Empty: labels that are numbers, in the order of their numbers."""
    loss: Literal["likelihood", "coral"] = "likelihood"
    """likelihood: minus the log-probability of the label (proportional odds); coral: the cross-entropy of each question
    `is the label above this threshold`, added up (CORAL)."""
    pooling: PoolingName = "mean"
    """How the vectors of a text become one: first, mean, max or attention."""
    hidden: bool = False
    """An extra layer with tanh before the answer, as in BERT."""
    drop_rate: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on the pooled vector."""

    compose: ClassVar[str] = "joined"

    @property
    def labels(self) -> Labels:
        """What the rows need as their label."""
        return "class"

    def fields(self, data: DataConfig) -> tuple[DataField, ...]:
        """What the rows need beside it."""
        del data
        return ()

    @field_validator("order")
    @classmethod
    def _each_once(cls, order: tuple[str, ...]) -> tuple[str, ...]:
        if len(order) == 1 or len(set(order)) < len(order):
            raise ValueError(f"{', '.join(order)}: at least two labels, each once, from the lowest to the highest")
        return order


class Ordinal:
    """The objective: hides nothing, needs an ordinal readout, scores its log-probabilities against `truth['label']`
    (N,), the rank of each document's label."""

    def __init__(self, config: OrdinalConfig, *, labels: Sequence[str]) -> None:
        self.config = config
        self.labels = list(labels)

    @classmethod
    def of(cls, config: OrdinalConfig, store: TokenStore) -> Ordinal:
        """The objective for the labels of a store, which are numbered anew: from then on in their order.

        Raises DataError as `ordered_labels`.
        """
        labels = ordered_labels(store.label_names, config.order)
        if labels != store.label_names:
            assert store.labels is not None
            rank = np.array([labels.index(name) for name in store.label_names], dtype=np.int64)
            store.labels, store.label_names = rank[np.asarray(store.labels)], labels
        return cls(config, labels=labels)

    def task(self) -> Task:
        return Task("ordinal", tuple(self.labels))

    def readout(self) -> OrdinalReadoutConfig:
        config = self.config
        return OrdinalReadoutConfig(
            pooling=config.pooling, outputs=len(self.labels), hidden=config.hidden, drop_rate=config.drop_rate
        )

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        del rng, progress
        return batch

    def loss(self, output: Output, batch: Batch) -> Loss:
        """Loss summed over the documents. Right are those whose likeliest label is theirs."""
        assert output.logits is not None
        logits_NC, label_N = output.logits.float(), batch.truth["label"]
        correct = (logits_NC.detach().argmax(1) == label_N).sum()
        documents = torch.tensor(float(batch.layout.documents))
        if self.config.loss == "likelihood":
            return Loss(-logits_NC.gather(1, label_N[:, None]).sum(), documents, correct)
        return Loss(coral_loss(logits_NC, label_N).sum(), documents, correct)


def coral_loss(logits_NC: Tensor, label_N: Tensor) -> Tensor:
    """(N,): binary cross-entropy of `above the threshold k` summed over k (Cao et al. 2020, equation 4)."""
    above, below = above_log_probabilities(logits_NC)
    is_above = label_N[:, None] > torch.arange(above.shape[1], device=label_N.device)
    return -torch.where(is_above, above, below).sum(1)


def ordered_labels(found: Sequence[str], order: Sequence[str]) -> list[str]:
    """The labels of the training data from the lowest to the highest.

    Raises DataError when a label stands outside of the given order, when none is given and the labels are not numbers,
    and when there is only one.
    """
    if order:
        missing = [label for label in found if label not in order]
        if missing:
            raise DataError(
                f"the label {missing[0]!r} is not in objective.order{nearest(missing[0], order)}",
                expected=f"one of {', '.join(order)}",
                fix="add it to objective.order at its place, or correct the rows",
            )
        return list(order)
    numbers = {label: _number(label) for label in found}
    words = [label for label, number in numbers.items() if number is None]
    if words:
        raise DataError(
            f"the label {words[0]!r} is no number, so its place among the others is not known",
            expected="labels that are numbers, or objective.order",
            fix=f"say objective.order: [{', '.join(sorted(found))}] with the lowest first",
        )
    if len(found) < 2:
        raise DataError(
            f"{'only one label' if found else 'no label'} in the training data", expected="at least two with an order"
        )
    return sorted(found, key=lambda label: (numbers[label], label))


def _number(label: str) -> float | None:
    try:
        number = float(label.replace("_", "?"))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
