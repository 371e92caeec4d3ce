"""What is left to chance while a model learns: dropped numbers, skipped branches, shifted positions."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Set a share `rate` of the numbers to 0 and scale the others by 1 / (1 - rate) (Srivastava et al. 2014)."""
    if not training or rate == 0:
        return x
    return x * dropout_mask(x, rate) if x.device.type == "cpu" else F.dropout(x, rate)


def add_dropped(x: Tensor, change: Tensor, rate: float, training: bool) -> Tensor:
    """`x + dropout(change)`, the end of a residual branch, in one pass over the numbers."""
    if not training or rate == 0:
        return x + change
    if x.device.type != "cpu":
        return x + F.dropout(change, rate)
    return cast(Tensor, _AddDropped.apply(x, change, dropout_mask(change, rate)))


def dropout_mask(x: Tensor, rate: float) -> Tensor:
    """What to multiply `x` with: 0 or 1 / (1 - rate), in the type and shape of `x`; the rate is rounded to 256ths.

    On a CPU PyTorch draws a random float for each number, which takes longer than the matrix product beside it. Here
    64 random bits decide on eight numbers, and comparisons are made in the type of `x`, since those that give booleans
    are ten times slower. Seeded from PyTorch's generator, like its own dropout.
    """
    dropped = min(255, max(1, round(256 * rate)))
    seed = int(torch.randint(1 << 62, ()))
    draws = np.random.SFC64(seed).random_raw(-(-x.numel() // 8))
    octets = torch.from_numpy(np.atleast_1d(draws).view(np.uint8)[: x.numel()])
    mask = octets.view(x.shape).to(x.dtype)
    return torch.ge(mask, dropped, out=mask).mul_(256 / (256 - dropped))


def skip_documents(change: Tensor, document: Tensor, most: int, rate: float) -> Tensor:
    """Stochastic depth (Huang et al. 2016): a branch is left out for a share `rate` of the documents, whole; for the
    others it counts 1 / (1 - rate). `change` (M, D) and the number `document` (M,) of each of its rows, less than
    `most`, which should not change from step to step."""
    kept = (rate <= torch.rand(most + 1, device=change.device)) / (1 - rate)
    return change * kept[document + 1][:, None].to(change.dtype)


def random_starts(document: Tensor, documents: int, most: int) -> Tensor:
    """A number from 0 to `most` for each document, at each of its positions: (P,) (SHAPE, Kiyono et al. 2021)."""
    return torch.randint(0, most + 1, (documents + 1,), device=document.device)[document + 1]


class _AddDropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return torch.addcmul(x, change, mask)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        return grads[0], grads[0] * ctx.saved_tensors[0], None
