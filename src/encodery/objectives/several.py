"""Several objectives in one run: each sees the same rows in its own way, and their losses are added by weight.

L = sum_i w_i L_i          each L_i a mean over what it counts (hidden words, tokens, documents)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from encodery.batch import Batch, Output
from encodery.heads.options import PartReadoutConfig, SeveralReadoutConfig
from encodery.heads.several import SeveralOutput
from encodery.objectives.masked import Loss


class Part(Protocol):
    """An objective that can be one of several."""

    def readout(self) -> PartReadoutConfig: ...

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch: ...

    def loss(self, output: Output, batch: Batch) -> Loss: ...


class Several:
    """The objective: prepares a view of the batch for each part, has a readout for each, adds up their losses.

    `names` are for the journal: the numbers of part "order" stand there as "order.order_loss".
    """

    def __init__(self, parts: Sequence[Part], weights: Sequence[float], names: Sequence[str]) -> None:
        assert len(parts) == len(weights) == len(names), "a weight and a name for each part"
        self.parts = tuple(parts)
        self.weights = tuple(weights)
        self.names = tuple(names)

    def readout(self) -> SeveralReadoutConfig:
        return SeveralReadoutConfig(parts=tuple(part.readout() for part in self.parts))

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        """`views`, one for each part. Each part draws from a generator of its own, so that what one draws does not
        depend on which others there are."""
        seeds = rng.integers(0, 1 << 62, size=2)
        views = tuple(
            part.prepare(batch, np.random.default_rng([*seeds.tolist(), number]), progress)
            for number, part in enumerate(self.parts)
        )
        return replace(batch, views=views)

    def loss(self, output: Output, batch: Batch) -> Loss:
        """The weighted sum of the means, times the count of the first part: batches then weigh by what it counts."""
        assert isinstance(output, SeveralOutput)
        losses = self.each(output, batch)
        first = losses[0]
        mean = torch.zeros((), device=first.total.device)
        parts: dict[str, torch.Tensor] = {}
        for name, weight, loss in zip(self.names, self.weights, losses):
            own = loss.total / loss.count.clamp_min(1)
            mean = mean + weight * own
            parts[f"{name}.loss"] = own.detach()
            parts |= {f"{name}.{key}": value for key, value in loss.parts.items()}
        return Loss(mean * first.count, first.count, first.correct, parts)

    def each(self, output: SeveralOutput, batch: Batch) -> list[Loss]:
        """The loss of each part by itself."""
        answers = zip(self.parts, output.answers, batch.views, strict=True)
        return [part.loss(answer, view) for part, answer, view in answers]
