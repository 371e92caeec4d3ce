"""How far two distributions over the same answers are apart, whose gradient is made on the way."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from encodery.objectives.cross_entropy import rows_at_once


def divergence(one_MC: Tensor, other_MC: Tensor) -> Tensor:
    """For each row the mean of KL(p || q) and KL(q || p) in nats, (M,) float32, of p = softmax(one) and
    q = softmax(other): how far R-Drop's two answers are apart (Liang et al. 2021, equation 2).

    Computed in float32 whatever the type of the logits, a few rows at a time: over a vocabulary neither the
    log-probabilities nor a float32 copy of the logits is ever held for all rows.
    """
    return cast(Tensor, _Divergence.apply(one_MC, other_MC))


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, one_MC: Tensor, other_MC: Tensor) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        gradients = [torch.empty_like(logits) if wanted else logits.new_empty(0) for logits in (one_MC, other_MC)]
        apart_M = torch.empty(len(one_MC), device=one_MC.device)
        size = rows_at_once(one_MC)
        for first in range(0, len(one_MC), size):
            rows = slice(first, first + size)
            log_p, log_q = (logits[rows].float().log_softmax(1) for logits in (one_MC, other_MC))
            p, q, ratio = log_p.exp(), log_q.exp(), log_p - log_q
            forth, back = (p * ratio).sum(1, keepdim=True), -(q * ratio).sum(1, keepdim=True)
            apart_M[rows] = (forth + back)[:, 0] / 2
            if wanted:
                # KL(p || q) by the logits of p: p (log p/q - KL(p || q)); by those of q: q - p.
                gradients[0][rows] = (p * (ratio - forth) + p - q) / 2
                gradients[1][rows] = (q * (-ratio - back) + q - p) / 2
        ctx.save_for_backward(*gradients)
        return apart_M

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient * grads[0][:, None].to(gradient.dtype) for gradient in ctx.saved_tensors)
