"""Supervised losses by hand: classes, weights, smoothing, several labels, numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from conftest import batch_of, documents_of
from encodery.batch import Batch, Output
from encodery.objectives.supervised import Supervised, SupervisedConfig

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 4.0, 1.0], [1.0, 1.0, -2.0]])


def labelled(label: Any) -> Batch:
    batch = batch_of([documents_of([3, 4]), documents_of([2, 5])], 8)
    return Batch(batch.values, batch.layout, {"label": torch.as_tensor(label)}, batch.uids, batch.parts)


def log_softmax(row: list[float]) -> list[float]:
    total = math.log(sum(math.exp(value) for value in row))
    return [value - total for value in row]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", ["none", "balanced", {"b": 3.0}])
def test_classes(weights: Any, smoothing: float) -> None:
    labels, counts = [0, 2, 1, 1], np.array([10, 30, 60])
    config = SupervisedConfig(class_weights=weights, label_smoothing=smoothing)
    loss = Supervised(config, labels=["a", "b", "c"], counts=counts).loss(Output(logits=LOGITS), labelled(labels))
    weight = {"none": [1.0] * 3, "balanced": [100 / (3 * n) for n in counts]}.get(str(weights), [1.0, 3.0, 1.0])
    total = 0.0
    for row, label in zip(LOGITS.tolist(), labels):
        found = log_softmax(row)
        total -= (1 - smoothing) * weight[label] * found[label]
        total -= smoothing / 3 * sum(w * value for w, value in zip(weight, found))
    assert float(loss.total) == pytest.approx(total, rel=1e-5)
    assert float(loss.count) == pytest.approx(sum(weight[label] for label in labels))
    assert int(loss.correct) == 3  # type: ignore[arg-type]
    reference = torch.nn.CrossEntropyLoss(torch.tensor(weight, dtype=torch.float32), label_smoothing=smoothing)
    mean = float(reference(LOGITS, torch.tensor(labels)))
    assert float(loss.total / loss.count) == pytest.approx(mean, rel=1e-5)


def test_balanced_weights_let_every_class_weigh_the_same() -> None:
    objective = Supervised(
        SupervisedConfig(class_weights="balanced"), labels=["a", "b", "c"], counts=np.array([1, 9, 0])
    )
    assert objective.weights is not None
    weights = objective.weights.tolist()
    assert weights[0] * 1 == pytest.approx(weights[1] * 9) and math.isfinite(weights[2])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_several_labels(smoothing: float) -> None:
    truth = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 1], [1, 1, 0]], dtype=bool)
    config = SupervisedConfig(kind="multilabel", label_smoothing=smoothing)
    loss = Supervised(config, labels=["a", "b", "c"]).loss(Output(logits=LOGITS), labelled(truth))
    total = 0.0
    for row, wanted in zip(LOGITS.tolist(), truth.tolist()):
        for value, yes in zip(row, wanted):
            target = yes * (1 - smoothing) + smoothing / 2
            chance = 1 / (1 + math.exp(-value))
            total -= (target * math.log(chance) + (1 - target) * math.log(1 - chance)) / 3
    assert float(loss.total) == pytest.approx(total, rel=1e-5)
    assert float(loss.count) == 4 and int(loss.correct) == 2  # type: ignore[arg-type]


def test_numbers_are_standardised() -> None:
    """Far from zero and close together: single precision would lose the differences."""
    label = np.array([1_700_000_000.0, 1_700_000_001.0, 1_700_000_002.0, 1_700_000_003.0])
    center, scale = float(label.mean()), float(label.std())
    objective = Supervised(SupervisedConfig(kind="regress"), labels=[], center=center, scale=scale)
    logits = LOGITS[:, :1]
    expected = sum(
        (value - (wanted - center) / scale) ** 2 for value, wanted in zip(logits[:, 0].tolist(), label.tolist())
    )
    loss = objective.loss(Output(logits=logits), labelled(label))
    assert float(loss.total) == pytest.approx(expected, rel=1e-5) and float(loss.count) == 4


@pytest.mark.parametrize(("kind", "outputs"), [("classify", 3), ("multilabel", 3), ("regress", 1)])
def test_the_readout_has_as_many_answers_as_the_task(kind: Any, outputs: int) -> None:
    config = SupervisedConfig(kind=kind, pooling="max", hidden=True, drop_rate=0.3)
    readout = Supervised(config, labels=[] if kind == "regress" else ["a", "b", "c"]).readout()
    assert (readout.outputs, readout.pooling, readout.hidden, readout.drop_rate) == (outputs, "max", True, 0.3)
