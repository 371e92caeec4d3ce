"""Norms, feed-forward layers and the initialisation of weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.bricks.dropout import dropout
from encodery.bricks.products import Linear

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
        self.inner = Linear(width, mlp_width * (2 if self.gated else 1), bias=bias)
        self.outer = Linear(mlp_width, width, bias=bias)
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
