"""Cross-entropy over a large vocabulary, whose gradient is made on the way."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

IGNORED = -100
"""A target that counts for nothing."""
NUMBERS_AT_ONCE = 1 << 19
"""On a CPU so many logits are worked on at a time: they fit the processor's cache in float32."""


def cross_entropy(logits_MV: Tensor, target_M: Tensor) -> tuple[Tensor, Tensor]:
    """-log softmax(logits)[target] summed over the rows, in nats, and the number of rows whose target has the highest
    logit; rows with the target IGNORED are left out.

    Computed in float32 whatever the type of the logits. The softmax is all that the gradient needs (softmax minus one
    at the target), so it is turned into it at once, a few rows at a time: neither log-probabilities nor a float32 copy
    of the logits is ever held for the whole batch.
    """
    total, correct = cast(tuple[Tensor, Tensor], _CrossEntropy.apply(logits_MV, target_M))
    return total, correct


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_MV: Tensor, target_M: Tensor) -> tuple[Tensor, Tensor]:
        counts_M1 = (target_M != IGNORED)[:, None]
        target_M1 = target_M.clamp_min(0)[:, None]
        wanted = ctx.needs_input_grad[0]
        gradient_MV = torch.empty_like(logits_MV) if wanted else logits_MV.new_empty(0)
        total = torch.zeros((), device=logits_MV.device)
        correct = torch.zeros((), dtype=torch.int64, device=logits_MV.device)
        size = len(target_M) or 1
        if logits_MV.device.type == "cpu":
            size = max(1, NUMBERS_AT_ONCE // logits_MV.shape[1])
        for first in range(0, len(target_M), size):
            rows = slice(first, first + size)
            counts, target, logits = counts_M1[rows], target_M1[rows], logits_MV[rows].float()
            own, largest = logits.gather(1, target), logits.amax(1, keepdim=True)
            share = torch.softmax(logits, dim=1)
            # log(sum of exp) from the largest share: unlike the target's own, it is never too small for a float.
            log_sum = largest - share.amax(1, keepdim=True).log()
            total += ((log_sum - own) * counts).sum()
            correct += ((own >= largest) & counts).sum()
            if wanted:
                share.scatter_add_(1, target, torch.full_like(own, -1.0)).mul_(counts)
                gradient_MV[rows] = share
        ctx.save_for_backward(gradient_MV)
        ctx.mark_non_differentiable(correct)
        return total, correct

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (gradient_MV,) = ctx.saved_tensors
        return gradient_MV * grads[0].to(gradient_MV.dtype), None
