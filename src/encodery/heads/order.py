"""Does the second text follow the first: a logit a pair, read from its first token, beside the hidden words."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from encodery.batch import Batch, Output, States
from encodery.bricks.layers import initialise
from encodery.bricks.products import Linear
from encodery.frontends.text import TextFrontend
from encodery.heads.options import OrderReadoutConfig
from encodery.heads.readouts import WordReadout


@dataclass(frozen=True)
class OrderOutput(Output):
    """`logits` (M, V) of the hidden words, and `follows` (F,), above 0 where the second text seems to follow."""

    follows: Tensor | None = None


class OrderReadout(WordReadout):
    """States of the hidden words, and behind them of the first tokens of documents -> OrderOutput.

    The vector of [CLS] goes through a layer with tanh, as in BERT (Devlin et al. 2019, section 3.1 and its code).
    """

    def __init__(self, config: OrderReadoutConfig, width: int, frontend: TextFrontend) -> None:
        super().__init__(config, width, frontend)
        self.pooler = Linear(width, width)
        self.answer = Linear(width, 1)

    def initialise(self, generator: torch.Generator) -> None:
        initialise(self, std=0.02, depth=1, generator=generator)

    def forward(self, states: States, batch: Batch) -> OrderOutput:
        hidden = len(batch.truth["target"])
        words = super().forward(States(states.vectors[:hidden], states.layout, balance=states.balance), batch)
        first_FD = states.vectors[hidden:]
        follows_F = self.answer(torch.tanh(self.pooler(first_FD))).squeeze(-1)
        return OrderOutput(logits=words.logits, balance=words.balance, follows=follows_F)
