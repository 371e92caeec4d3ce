"""Norms, feed-forward layers and the initialisation of weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormName = Literal["layernorm", "rmsnorm"]
ActivationName = Literal["relu", "gelu", "silu", "geglu", "swiglu"]

# Exact gelu: on CPUs in bf16 its tanh approximation is several times slower.
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "geglu": F.gelu,
    "swiglu": F.silu,
}


def make_norm(name: NormName, width: int, *, epsilon: float = 1e-5, bias: bool = True) -> nn.Module:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019, which has no bias and no mean)."""
    if name == "rmsnorm":
        return nn.RMSNorm(width, eps=epsilon)
    return nn.LayerNorm(width, eps=epsilon, bias=bias)


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Set a share `rate` of the numbers to 0 and scale the others by 1 / (1 - rate) (Srivastava et al. 2014).

    On a CPU PyTorch draws a random float for each number, which takes longer than the matrix product beside it. Here
    one draw of 64 bits decides on eight numbers, and the rate is rounded to 256ths.
    """
    if not training or rate == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate)
    dropped = min(255, max(1, round(256 * rate)))
    drawn = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_()
    # The sign of a draw is always 0. Each bit becomes the sum of two neighbours, so that every one is random.
    octets = (drawn ^ (drawn << 1)).view(torch.uint8)[: x.numel()].view(x.shape)
    return x * (octets >= dropped).to(x.dtype).mul_(256 / (256 - dropped))


class FeedForward(nn.Module):
    """Two linear layers around an activation, applied to every position alone: (P, D) -> (P, D).

    Plain: `out(act(in(x)))` ("Attention Is All You Need", section 3.3). Gated (`geglu`, `swiglu`):
    `out(act(gate(x)) * value(x))` (Shazeer 2020, "GLU Variants Improve Transformer").
    """

    def __init__(
        self,
        width: int,
        mlp_width: int,
        *,
        activation: ActivationName,
        bias: bool = True,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.gated = activation in ("geglu", "swiglu")
        self.activation = _ACTIVATIONS[activation]
        self.inner = nn.Linear(width, mlp_width * (2 if self.gated else 1), bias=bias)
        self.outer = nn.Linear(mlp_width, width, bias=bias)
        self.drop_rate = drop_rate

    def forward(self, x_PD: Tensor) -> Tensor:
        hidden = self.inner(x_PD)
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            hidden = self.activation(gate) * value
        else:
            hidden = self.activation(hidden)
        return self.outer(dropout(hidden, self.drop_rate, self.training))


def initialise(module: nn.Module, *, std: float, depth: int, generator: torch.Generator) -> None:
    """Draw every weight from a normal of `std`; norms start at 1, biases at 0.

    The last linear layer of each residual branch (named `outer`) starts smaller by sqrt(2 * depth), so that the
    sum over branches keeps its size whatever the depth (Radford et al. 2019, section 2.3).
    """
    for name, parameter in module.named_parameters():
        if parameter.dim() < 2:
            continue
        scale = std / math.sqrt(2 * max(1, depth)) if name.endswith("outer.weight") else std
        with torch.no_grad():
            parameter.normal_(0.0, scale, generator=generator)
    for part in module.modules():
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm | nn.RMSNorm):
            nn.init.ones_(part.weight)
            if isinstance(part, nn.LayerNorm) and part.bias is not None:
                nn.init.zeros_(part.bias)
