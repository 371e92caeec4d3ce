"""Hidden words, and whether the second text of a pair follows the first: BERT's and ALBERT's pretraining.

    L = L_words + weight L_order      Devlin et al. 2019, section 3.1; Lan et al. 2020, section 3.1

What the pairs are is a matter of data/sentences.py. Where a document has one sentence it has no second text: it counts
for its hidden words alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from encodery.batch import Batch, Output
from encodery.data.fields import Field as DataField
from encodery.data.loader import Loader
from encodery.data.pair_loader import FOLLOWS, IN_ORDER, UNKNOWN, pair_loader
from encodery.data.sentences import PairsName, SentenceField
from encodery.data.sources import DataConfig
from encodery.heads.options import OrderReadoutConfig
from encodery.heads.order import OrderOutput
from encodery.objectives.masked import Loss, Masked, MaskedConfig

ROUNDED_TO = 32
"""The number of positions that are read is a multiple of this, so that few shapes are seen."""


class OrderConfig(MaskedConfig):
    """Which pairs of segments are made of documents with several sentences, and what is hidden in them."""

    kind: Literal["order"] = "order"  # pyright: ignore[reportIncompatibleVariableOverride]
    pairs: PairsName = "order"
    """order: neighbouring segments, every other pair swapped (ALBERT); next: every other second segment is from another
    document (BERT), which topics alone give away."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """Of the order's loss beside that of the words."""
    short_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the pairs that are shorter than there is room for."""

    def fields(self, data: DataConfig) -> tuple[DataField, ...]:
        """Where sentences begin. Raises ValueError for rows that are pairs of texts already."""
        if data.pair is not None:
            raise ValueError("objective.kind: order makes its pairs from documents: leave data.pair out")
        return (SentenceField(),)


class Ordered(Masked):
    """The objective: hides tokens of pairs of texts, asks whether the second follows the first."""

    config: OrderConfig

    def readout(self) -> OrderReadoutConfig:
        return OrderReadoutConfig()

    def loader(self, loader: Loader) -> Loader:
        """Pairs of segments instead of whole texts."""
        return pair_loader(loader, self.config.pairs, self.config.short_share)

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        """Hide tokens. `truth["at"]` goes on with the first token of each document (N, rounded up to F), and gets
        `follows` (F,): 1 or 0, and -1 where there is no second text."""
        batch = super().prepare(batch, rng, progress)
        first = batch.layout.starts
        spare = -len(first) % ROUNDED_TO
        mark = batch.values[FOLLOWS][first] if FOLLOWS in batch.values else torch.zeros_like(first)
        follows = torch.where(mark == UNKNOWN, -1.0, (mark == IN_ORDER).float())
        more = {
            "at": torch.cat([batch.truth["at"], first, first.new_zeros(spare)]),
            FOLLOWS: F.pad(follows, (0, spare), value=-1.0),
        }
        return replace(batch, truth={**batch.truth, **more})

    def loss(self, output: Output, batch: Batch) -> Loss:
        """The loss of the words, and for each of them `weight` times the mean loss of the pairs."""
        assert isinstance(output, OrderOutput) and output.follows is not None
        words = super().loss(output, batch)
        follows_F = batch.truth[FOLLOWS]
        counts_F = follows_F >= 0
        number = counts_F.sum()
        each_F = F.binary_cross_entropy_with_logits(output.follows.float(), follows_F.clamp_min(0), reduction="none")
        order = (each_F * counts_F).sum() / number.clamp_min(1)
        right = (((output.follows.detach() > 0) == (follows_F > 0.5)) & counts_F).sum()
        # A batch without any pair says nothing of how well they are told.
        parts = {"word_loss": words.total.detach() / words.count.clamp_min(1)}
        if bool(number):
            parts |= {"order_loss": order.detach(), "order_accuracy": right / number}
        return replace(words, total=words.total + self.config.weight * words.count * order, parts=parts)
