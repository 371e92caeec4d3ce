"""Candidates of a query, each read together with it by one encoder (a cross-encoder), and put in order.

    pointwise   - y log p - (1 - y) log(1 - p), p = sigmoid(score)                Nogueira and Cho 2019, equation 1
    listwise    - sum over candidates of y_i / sum(y) log softmax(scores)_i       ListNet, Cao et al. 2007, section 4.3
                  with shares of the grades, as in Bruch et al. 2019, equation 5

where y is how relevant a candidate is, from 0 to 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from encodery.batch import Batch, Output
from encodery.bricks.choices import PoolingName
from encodery.config import Config
from encodery.data.fields import Field as DataField
from encodery.data.loader import Loader
from encodery.data.negatives import negatives_of
from encodery.data.queries import QueryLoader
from encodery.data.sources import DataConfig, Labels
from encodery.heads.options import DocumentReadoutConfig
from encodery.objectives.choices import log_sum_by_row
from encodery.objectives.masked import Loss
from encodery.trained import Task


class RankConfig(Config):
    """Which of the candidates of a query answers it best."""

    kind: Literal["rank"] = "rank"
    loss: Literal["pointwise", "listwise"] = "listwise"
    """pointwise: each candidate by itself; listwise: all candidates of a query against each other."""
    grades: bool = False
    """Whether each row is one candidate (data.pair) with how relevant it is (data.label, a number from 0). If not, the
    second text of a row is right and those of data.negatives are wrong."""
    pooling: PoolingName = "mean"
    """How the vectors of a query and a candidate become one: first, mean, weighted, max, attention."""
    hidden: bool = False
    """An extra layer with tanh before the score, as in BERT."""
    drop_rate: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on the pooled vector."""
    paired: ClassVar[bool] = True

    @property
    def compose(self) -> str:
        """How samples are made of a row (data/composing.py)."""
        return "joined" if self.grades else "candidates"

    @property
    def labels(self) -> Labels:
        """What the rows need as their label."""
        return "number" if self.grades else "none"

    def fields(self, data: DataConfig) -> tuple[DataField, ...]:
        """What the rows need beside their texts."""
        if data.pair is None:
            raise ValueError("objective.kind rank reads a query and a candidate: name the column with data.pair")
        if self.grades:
            if data.label is None:
                raise ValueError("objective.grades: name the column that says how relevant a text is with data.label")
            return ()
        found = negatives_of(data)
        if not found:
            raise ValueError(
                "objective.kind rank learns from right and wrong candidates: name the wrong ones with data.negatives, "
                "or give each row a number (data.label) and set objective.grades: true"
            )
        return found


class Ranking:
    """The objective: hides nothing, needs a document readout with one output for each candidate. `most` is the highest
    grade."""

    def __init__(self, config: RankConfig, *, most: float = 1.0) -> None:
        self.config = config
        self.most = most

    def readout(self) -> DocumentReadoutConfig:
        config = self.config
        return DocumentReadoutConfig(
            pooling=config.pooling, outputs=1, hidden=config.hidden, drop_rate=config.drop_rate
        )

    def task(self) -> Task:
        """What is needed to read the answers again."""
        return Task("rank", detail={"grades": self.config.grades, "loss": self.config.loss, "most": self.most})

    def loader(self, loader: Loader) -> Loader:
        """The candidates of a query must come in one batch where they are compared."""
        if not (self.config.grades and self.config.loss == "listwise" and loader.shuffle):
            return loader
        given = {name: getattr(loader, name) for name in Loader.__dataclass_fields__}
        return QueryLoader(**given)

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        """With `truth["row"]` (N,), the number of each candidate's query in this batch, and `truth["grade"]` (N,)."""
        del rng, progress
        keys = batch.truth["query"].numpy() if "query" in batch.truth else batch.uids
        _, row = np.unique(keys, return_inverse=True)
        if self.config.grades:
            grade = (batch.truth["label"].float() / self.most).clamp(0, 1)
        else:
            grade = torch.from_numpy((batch.parts == 0).astype(np.float32))
        truth = {"row": torch.from_numpy(row.reshape(-1).astype(np.int64)), "grade": grade}
        return replace(batch, truth={**batch.truth, **truth})

    def loss(self, output: Output, batch: Batch) -> Loss:
        """pointwise: summed over the candidates. listwise: over the queries that have a relevant one; right are those
        whose highest score belongs to one of these."""
        assert output.logits is not None
        score_N, row_N, grade_N = output.logits[:, 0].float(), batch.truth["row"], batch.truth["grade"]
        if self.config.loss == "pointwise":
            total = F.binary_cross_entropy_with_logits(score_N, grade_N, reduction="sum")
            correct = ((score_N > 0) == (grade_N > 0.5)).sum()
            return Loss(total, torch.tensor(float(score_N.numel())), correct)
        return listwise(score_N, row_N, grade_N)


def listwise(score_N: Tensor, row_N: Tensor, grade_N: Tensor) -> Loss:
    """The cross-entropy of each query's scores with the shares of its grades."""
    log_total_R, highest_R = log_sum_by_row(score_N, row_N)
    grades_R = grade_N.new_zeros(log_total_R.numel()).index_add(0, row_N, grade_N)
    share_N = grade_N / grades_R.clamp_min(1e-9)[row_N]
    total = (share_N * (log_total_R[row_N] - score_N)).sum()
    first_N = (score_N >= highest_R[row_N]) & (grade_N > 0)
    right_R = torch.zeros_like(grades_R).index_add(0, row_N, first_N.float()) > 0
    return Loss(total, (grades_R > 0).sum().float(), right_R.sum())
