"""Linear layers for use alone: weights sorted once for the processor's kernels, in float32, bfloat16 or int8."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.bricks.layers import FeedForward
from encodery.bricks.products import Linear, onednn_has_bf16

PrecisionInUse = Literal["fp32", "bf16", "int8"]


def prepare_for_use(module: nn.Module, precision: PrecisionInUse) -> torch.dtype:
    """Replace every Linear inside of `module` by one that computes in `precision` and learns no more; on a CPU only.
    Returns the type in which vectors should come in.

    With int8 the second half of each feed-forward layer keeps floating point: what comes out of the activation spans
    such a range that rounding it costs more than all the other roundings together.
    """
    wide = precision == "fp32" or (precision == "int8" and not _fast_bf16())
    dtype = torch.float32 if wide else torch.bfloat16
    whole = precision == "int8"
    for part in list(module.modules()):
        if isinstance(part, FeedForward):
            gelu = part.activation is F.gelu and not part.gated
            part.inner = _prepared(part.inner, dtype, whole, "gelu" if gelu else "none")  # type: ignore[assignment]
            part.outer = _prepared(part.outer, dtype, False)  # type: ignore[assignment]
            part.activation = _unchanged if gelu else part.activation
        for name, child in part.named_children():
            if isinstance(child, Linear):
                setattr(part, name, _prepared(child, dtype, whole))
    return dtype


def can_prepare(precision: PrecisionInUse) -> bool:
    """Whether this build of PyTorch has the kernels, and this processor what they need."""
    names = ["_linear_pointwise", "_reorder_linear_weight"]
    there = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)
    if precision == "bf16":
        return there and onednn_has_bf16
    return there and (precision != "int8" or hasattr(torch.ops.onednn, "qlinear_pointwise"))


def _fast_bf16() -> bool:
    return onednn_has_bf16 and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@cache
def _largest_weight() -> int:
    """What the largest weight of a row is rounded to. Kernels without VNNI add pairs of products in 16 bits: one bit
    less keeps them from overflowing. A product that just does not fit says which kernel is here."""
    x, weight = torch.full((1, 64), 255, dtype=torch.uint8), torch.full((16, 64), 127, dtype=torch.int8)
    packed, ones = torch.ops.onednn.qlinear_prepack(weight, None), torch.ones(16)
    zeros = torch.zeros(16, dtype=torch.int64)
    found = torch.ops.onednn.qlinear_pointwise(
        x, 1.0, 0, packed, ones, zeros, None, 1.0, 0, torch.float32, "none", [], "none"
    )
    return 127 if bool((found == 255 * 127 * 64).all()) else 63


def _prepared(layer: Linear, dtype: torch.dtype, whole: bool, after: str = "none") -> nn.Module:
    return Int8Linear(layer, dtype, after) if whole else PackedLinear(layer, dtype, after)


def _unchanged(x: Tensor) -> Tensor:
    return x


class PackedLinear(nn.Module):
    """`after(x W^T + b)`: (P, inputs) -> (P, outputs), in `dtype`; `after` is "none" or "gelu"."""

    def __init__(self, layer: Linear, dtype: torch.dtype, after: str) -> None:
        super().__init__()
        self.dtype, self.after = dtype, after
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().to(dtype), None)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, self.after, [], "none")


class Int8Linear(nn.Module):
    """The same with whole numbers of 8 bits (dynamic quantisation): weights are rounded once, with a scale for each
    output, what comes in at each call, between its least and its largest number. Sums are exact; what goes out
    has the type `dtype`."""

    def __init__(self, layer: Linear, dtype: torch.dtype, after: str) -> None:
        super().__init__()
        weight = layer.weight.detach().float()
        self.scale = weight.abs().amax(dim=1).clamp_min(1e-12) / _largest_weight()
        rounded = (weight / self.scale[:, None]).round().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.zero = torch.zeros(len(weight), dtype=torch.int64)
        self.bias = None if layer.bias is None else layer.bias.detach().float()
        self.dtype, self.after = dtype, after

    def forward(self, x: Tensor) -> Tensor:
        least, most = (float(value) for value in torch.aminmax(x))
        least, most = min(least, 0.0), max(most, 0.0)
        scale = max((most - least) / 254, 1e-12)  # 254 steps: rounding up never goes past the last one
        zero = round(-least / scale)
        # To signed numbers, a conversion that is fast, and by the highest bit to unsigned ones, which the kernel takes.
        start = torch.tensor(zero - 128, dtype=x.dtype)
        rounded = torch.add(start, x, alpha=1 / scale).round_().to(torch.int8).view(torch.uint8) ^ 128
        return torch.ops.onednn.qlinear_pointwise(
            rounded, scale, zero, self.weight, self.scale, self.zero, self.bias, 1.0, 0, self.dtype,
            self.after, [], "none",
        )  # fmt: skip
