"""One number a document, cut by ordered thresholds into classes that have an order: a cumulative link model."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.batch import Batch, Output, States
from encodery.bricks.dropout import dropout
from encodery.bricks.layers import initialise
from encodery.bricks.pooling import Pooling
from encodery.bricks.products import Linear
from encodery.heads.options import OrdinalReadoutConfig


class OrdinalReadout(nn.Module):
    """States -> logits (N, C), which are log-probabilities of the classes, and the pooled vectors (N, D).

    P(class > k) = sigmoid(s - b_k) with one number s a document and thresholds b_0 < b_1 < ... (proportional odds,
    McCullagh 1980, section 2; the shared weights of CORAL, Cao et al. 2020, section 3.3). The thresholds cannot lose
    their order: each is the one before it plus a positive step, the softplus of a parameter.
    """

    def __init__(self, config: OrdinalReadoutConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.pooling = Pooling(config.pooling, width)
        self.hidden = Linear(width, width) if config.hidden else None
        # The thresholds are the bias: s has none of its own.
        self.score = Linear(width, 1, bias=False)
        self.first = nn.Parameter(torch.zeros(1))
        self.steps = nn.Parameter(torch.zeros(config.outputs - 2))

    def initialise(self, generator: torch.Generator) -> None:
        """At a score of 0 all classes begin equally likely."""
        initialise(self, std=0.02, depth=1, generator=generator)
        classes = self.config.outputs
        edges = torch.logit(torch.arange(1, classes) / classes)
        with torch.no_grad():
            self.first.copy_(edges[:1])
            # The inverse of softplus.
            self.steps.copy_(torch.log(torch.expm1(edges.diff())))

    def thresholds(self) -> Tensor:
        """(C - 1,) in ascending order."""
        return self.first + F.pad(torch.cumsum(F.softplus(self.steps), 0), (1, 0))

    def forward(self, states: States, batch: Batch) -> Output:
        del batch
        vectors_ND = self.pooling(states.summary or states)
        x_ND = vectors_ND
        # The last step runs in float32: it is tiny, and N changes from batch to batch.
        with torch.autocast(x_ND.device.type, enabled=False):
            if self.hidden is not None:
                x_ND = torch.tanh(self.hidden(x_ND))
            score_N1 = self.score(dropout(x_ND, self.config.drop_rate, self.training))
            logits_NC = class_log_probabilities(score_N1 - self.thresholds())
        return Output(logits_NC, vectors_ND, balance=states.balance)


def class_log_probabilities(above_NT: Tensor) -> Tensor:
    """Logits of P(class > k), falling along k, (N, C - 1) -> log P(class = k), (N, C).

    sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): its logarithm loses no digits, however far out.
    """
    ends = above_NT.new_full((len(above_NT), 1), math.inf)
    upper_NC, lower_NC = torch.cat([ends, above_NT], 1), torch.cat([above_NT, -ends], 1)
    inner = above_NT[:, :-1] - above_NT[:, 1:]
    between = F.pad(torch.log(-torch.expm1(-inner.clamp_min(1e-6))), (1, 1))
    return F.logsigmoid(upper_NC) + F.logsigmoid(-lower_NC) + between


def above_log_probabilities(logits_NC: Tensor) -> tuple[Tensor, Tensor]:
    """log P(class > k) and log P(class <= k), (N, C - 1) each, from log-probabilities of the classes."""
    falling = torch.logcumsumexp(logits_NC.flip(1), 1).flip(1)
    return falling[:, 1:], torch.logcumsumexp(logits_NC, 1)[:, :-1]
