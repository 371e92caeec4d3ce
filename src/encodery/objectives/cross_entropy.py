"""Cross-entropy over a large vocabulary, whose gradient is made on the way."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

IGNORED = -100
"""A target that counts for nothing."""
NUMBERS_AT_ONCE = 1 << 19
"""On a CPU so many logits are worked on at a time: they fit the processor's cache in float32."""


def cross_entropy(logits_MV: Tensor, target_M: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """-log softmax(logits)[target] summed over the rows, in nats, and the number of rows whose target has the highest
    logit; rows with the target IGNORED are left out. With `smoothing` see `row_losses`.

    Computed in float32 whatever the type of the logits. The softmax is all that the gradient needs (softmax minus one
    at the target), so it is turned into it at once, a few rows at a time: neither log-probabilities nor a float32 copy
    of the logits is ever held for the whole batch.
    """
    loss_M, _, right_M = row_losses(logits_MV, target_M, smoothing)
    return loss_M.sum(), right_M.sum()


def row_losses(logits_MV: Tensor, target_M: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """For each row the loss, the surprise -log softmax(logits)[target] without a gradient, and whether the target has
    the highest logit: (M,) each; 0 where the target is IGNORED.

    The loss is the surprise, or with `smoothing` e (1 - e) times it and e times the mean surprise over all tokens, as
    if the target were each other token with the probability e / V (Szegedy et al. 2016, section 7).
    """
    found = cast(tuple[Tensor, Tensor, Tensor], _RowLosses.apply(logits_MV, target_M, smoothing))
    return found


def rows_at_once(logits_MV: Tensor) -> int:
    """Rows of logits that are worked on together: NUMBERS_AT_ONCE on a CPU, all of them elsewhere."""
    M, V = logits_MV.shape
    return max(1, NUMBERS_AT_ONCE // V) if logits_MV.device.type == "cpu" else max(1, M)


class _RowLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_MV: Tensor, target_M: Tensor, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
        counts_M1 = (target_M != IGNORED)[:, None]
        target_M1 = target_M.clamp_min(0)[:, None]
        wanted = ctx.needs_input_grad[0]
        gradient_MV = torch.empty_like(logits_MV) if wanted else logits_MV.new_empty(0)
        M, V = logits_MV.shape
        loss_M, surprise_M = (torch.zeros(M, device=logits_MV.device) for _ in range(2))
        right_M = torch.zeros(M, dtype=torch.bool, device=logits_MV.device)
        size = rows_at_once(logits_MV)
        for first in range(0, len(target_M), size):
            rows = slice(first, first + size)
            counts, target, logits = counts_M1[rows], target_M1[rows], logits_MV[rows].float()
            own, largest = logits.gather(1, target), logits.amax(1, keepdim=True)
            share = torch.softmax(logits, dim=1)
            # log(sum of exp) from the largest share: unlike the target's own, it is never too small for a float.
            log_sum = largest - share.amax(1, keepdim=True).log()
            surprise = (log_sum - own) * counts
            surprise_M[rows] = surprise[:, 0]
            loss_M[rows] = surprise[:, 0]
            if smoothing:
                loss_M[rows] += (smoothing * (own - logits.mean(1, keepdim=True)) * counts)[:, 0]
            right_M[rows] = ((own >= largest) & counts)[:, 0]
            if wanted:
                if smoothing:
                    share.sub_(smoothing / V)
                gradient_MV[rows] = share.scatter_add_(1, target, torch.full_like(own, smoothing - 1.0)).mul_(counts)
        ctx.save_for_backward(gradient_MV)
        ctx.mark_non_differentiable(surprise_M, right_M)
        return loss_M, surprise_M, right_M

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (gradient_MV,) = ctx.saved_tensors
        return gradient_MV * grads[0][:, None].to(gradient_MV.dtype), None, None
