"""Which number format to compute in on this machine, decided by a short measurement and said out loud."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import torch

from encodery.bricks.products import products_in

PrecisionName = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Precision:
    """The chosen format and the reason, as a sentence for the log."""

    dtype: torch.dtype
    reason: str

    def autocast(self, device: torch.device) -> torch.autocast:
        """Matrix products in `dtype`; weights, sums and the loss stay in float32."""
        return products_in(self.dtype, device)


def choose_precision(wanted: PrecisionName, device: torch.device) -> Precision:
    """Use what was asked for; `auto` times a matrix product in both formats and takes bf16 when clearly faster.

    Processors without bf16 units compute it many times slower than float32, so the name of the format alone says
    nothing about speed.
    """
    if wanted == "fp32":
        return Precision(torch.float32, "fp32, as asked")
    if wanted == "bf16":
        return Precision(torch.bfloat16, "bf16, as asked")
    fp32, bf16 = _seconds(torch.float32, device), _seconds(torch.bfloat16, device)
    ratio = fp32 / bf16
    if ratio > 1.2:
        return Precision(torch.bfloat16, f"bf16: matrix products run {ratio:.1f} times faster than in fp32 here")
    return Precision(torch.float32, f"fp32: bf16 products run at {ratio:.1f} times its speed here")


def _seconds(dtype: torch.dtype, device: torch.device, size: int = 512, repeats: int = 5) -> float:
    """Fastest of a few timed products of (4 size, size) by (size, size)."""
    left = torch.ones(4 * size, size, dtype=dtype, device=device)
    right = torch.ones(size, size, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return best
