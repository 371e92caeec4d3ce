"""Multiple choice: every option scored beside its text, and the scores of a row compared with each other."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from encodery.batch import Batch, Output
from encodery.bricks.choices import PoolingName
from encodery.config import Config
from encodery.data.choices import ChoiceField
from encodery.data.fields import Field as DataField
from encodery.data.sources import DataConfig, Labels
from encodery.heads.options import DocumentReadoutConfig
from encodery.objectives.masked import Loss
from encodery.trained import Task


class ChoicesConfig(Config):
    """Which of the options that stand beside a text is the right one."""

    kind: Literal["choose"] = "choose"
    pooling: PoolingName = "first"
    """How the vectors of a text and an option become one: first, mean, max or attention."""
    hidden: bool = True
    """An extra layer with tanh before the score, as in BERT."""
    drop_rate: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on the pooled vector."""

    compose: ClassVar[str] = "choices"

    @property
    def labels(self) -> Labels:
        """What the rows need as their label: nothing, for it is read with the options."""
        return "none"

    def fields(self, data: DataConfig) -> tuple[DataField, ...]:
        """What the rows need beside their text. Raises ValueError when it is not named."""
        if data.choices is None:
            raise ValueError("objective.kind choose needs data.choices: the column of the options")
        if data.label is None:
            raise ValueError("objective.kind choose needs data.label: the column that says which option is right")
        return (ChoiceField(data.choices, data.label),)


class Choices:
    """The objective: hides nothing, needs a document readout with one output, a document for each option of a row.

    The loss of a row is the cross-entropy over its options, however many it has (Devlin et al. 2019, section 4.4). The
    documents of a row stand in one batch with its uid; `parts` (N,) number their options, and `values["right"]` (P,)
    says at their tokens which option is right, from 1. Rows where that is 0 count for nothing.
    """

    def __init__(self, config: ChoicesConfig) -> None:
        self.config = config

    def readout(self) -> DocumentReadoutConfig:
        config = self.config
        return DocumentReadoutConfig(
            pooling=config.pooling, outputs=1, hidden=config.hidden, drop_rate=config.drop_rate
        )

    def task(self) -> Task:
        return Task("choose")

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        """With `truth["row"]` (N,), the number of each document's row in this batch, and `truth["right"]` (N,) bool."""
        del rng, progress
        _, row = np.unique(batch.uids, return_inverse=True)
        right = torch.zeros(batch.layout.documents + 1, dtype=torch.int64)
        said = batch.values["right"]
        right = right.scatter_reduce(0, batch.layout.document + 1, said, "amax")[1:]
        is_right = right == torch.from_numpy(batch.parts) + 1
        truth = {"row": torch.from_numpy(row.reshape(-1).astype(np.int64)), "right": is_right}
        return replace(batch, truth={**batch.truth, **truth})

    def loss(self, output: Output, batch: Batch) -> Loss:
        """Loss summed over the rows; right are those whose right option scores highest."""
        assert output.logits is not None
        score_N, row_N, right_N = output.logits[:, 0].float(), batch.truth["row"], batch.truth["right"]
        total_R, largest_R = log_sum_by_row(score_N, row_N)
        lost_N = torch.where(right_N, total_R[row_N] - score_N, torch.zeros_like(score_N))
        correct = (right_N & (score_N >= largest_R[row_N])).sum()
        return Loss(lost_N.sum(), right_N.sum().float(), correct)


def log_sum_by_row(score_N: Tensor, row_N: Tensor) -> tuple[Tensor, Tensor]:
    """log(sum(exp(score))) and the highest score of each row, (R,) both; rows are numbered 0 to R - 1."""
    rows = int(row_N.max()) + 1 if row_N.numel() else 0
    largest = score_N.new_full((rows,), -torch.inf).scatter_reduce(0, row_N, score_N.detach(), "amax")
    total = score_N.new_zeros(rows).index_add(0, row_N, (score_N - largest[row_N]).exp())
    return largest + total.log(), largest
