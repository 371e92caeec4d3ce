"""A choice of feed-forward layers: each token goes through the few that a router picks for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.bricks.choices import ActivationName
from encodery.bricks.layers import FeedForward
from encodery.bricks.products import Linear

ROUNDED_TO = 64
"""Tokens of an expert are filled up to a multiple of this: each new shape of a product costs compilation."""


class Experts(nn.Module):
    """Mixture of experts (Shazeer et al. 2017, equations 1 to 5, without noise): (P, D) -> (P, D) and the balance.

    A token is answered by its `chosen` best experts, weighted by a softmax over their router scores. None is ever
    refused for lack of room, so a token's answer does not depend on its neighbours.
    """

    def __init__(
        self, width: int, mlp_width: int, experts: int, chosen: int, *, activation: ActivationName, bias: bool
    ) -> None:
        super().__init__()
        self.chosen = chosen
        self.router = Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(
            FeedForward(width, mlp_width, activation=activation, bias=bias) for _ in range(experts)
        )

    def forward(self, x_PD: Tensor, real_P: Tensor) -> tuple[Tensor, Tensor]:
        """`balance` is E * sum of (share of tokens whose first choice is e) * (mean router probability of e), over the
        real tokens: 1 when all experts are used alike (Fedus et al. 2022, Switch Transformers, equations 4 to 6)."""
        score_PE = self.router(x_PD).float()
        best = score_PE.topk(self.chosen, dim=-1)
        # The one expert of a token keeps its probability among all, or the router would not learn (Fedus et al. 2022).
        alone = self.chosen == 1
        weight_PC = torch.softmax(score_PE, dim=-1).gather(1, best.indices) if alone else best.values.softmax(dim=-1)
        found_PD = torch.zeros_like(x_PD, dtype=torch.float32)
        for number, expert in enumerate(self.experts):
            token, rank = torch.nonzero((best.indices == number) & real_P[:, None], as_tuple=True)
            missing = -token.shape[0] % ROUNDED_TO
            answer = expert(F.pad(x_PD[token], (0, 0, 0, missing)))[: token.shape[0]]
            found_PD = found_PD.index_add(0, token, answer.float() * weight_PC[token, rank, None])
        return found_PD.to(x_PD.dtype), self._balance(score_PE, best.indices[:, 0], real_P)

    def _balance(self, score_PE: Tensor, first_P: Tensor, real_P: Tensor) -> Tensor:
        real = real_P.float()
        total = real.sum().clamp_min(1)
        probability_E = (torch.softmax(score_PE, dim=-1) * real[:, None]).sum(0) / total
        share_E = torch.zeros_like(probability_E).index_add(0, first_P, real) / total
        return len(self.experts) * (share_E * probability_E).sum()
