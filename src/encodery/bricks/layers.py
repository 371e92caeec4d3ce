"""Norms, feed-forward layers and the initialisation of weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.bricks.choices import ActivationName, NormName, is_gated
from encodery.bricks.dropout import dropout
from encodery.bricks.products import Linear


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


# Exact gelu where there is a choice: on CPUs in bf16 its tanh approximation is several times slower.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": F.silu,
    "geglu": F.gelu,
    "geglu_tanh": _gelu_tanh,
    "swiglu": F.silu,
}


def make_norm(name: NormName, width: int, *, epsilon: float = 1e-5, bias: bool = True) -> nn.Module:
    """LayerNorm (Ba et al. 2016), RMSNorm (Zhang and Sennrich 2019, which has no bias and no mean) or BatchNorm."""
    if name == "rmsnorm":
        return RMSNorm(width, eps=epsilon)
    if name == "batchnorm":
        return MaskedBatchNorm(width, epsilon=epsilon, bias=bias)
    return nn.LayerNorm(width, eps=epsilon, bias=bias)


def normed(norm: nn.Module, x_PD: Tensor, real_P: Tensor) -> Tensor:
    """`norm(x)`; a BatchNorm is told which positions are real."""
    return norm(x_PD, real_P) if isinstance(norm, MaskedBatchNorm) else norm(x_PD)


class RMSNorm(nn.RMSNorm):
    """`x / sqrt(mean(x^2) + epsilon) * weight` (Zhang and Sennrich 2019, equation 4): computed in the type of the
    weights, given back in that of the vectors. PyTorch's own warns where the two differ, as under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class MaskedBatchNorm(nn.Module):
    """BatchNorm (Ioffe and Szegedy 2015) over the real positions of a batch: padding neither counts in the statistics
    nor changes with them. (P, D) -> (P, D).

    While learning, a batch is normed by its own mean and variance, so its documents do influence each other; in use by
    the running averages, and they do not.
    """

    mean: Tensor
    variance: Tensor
    MOMENTUM = 0.1

    def __init__(self, width: int, *, epsilon: float, bias: bool) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, x_PD: Tensor, real_P: Tensor) -> Tensor:
        mean, variance = self.mean, self.variance
        if self.training and bool(real_P.any()):
            real = real_P[:, None].float()
            count = real.sum()
            mean = (x_PD.float() * real).sum(0) / count
            variance = ((x_PD.float() - mean).square() * real).sum(0) / count
            with torch.no_grad():
                self.mean.lerp_(mean, self.MOMENTUM)
                self.variance.lerp_(variance, self.MOMENTUM)
        scale = self.weight * torch.rsqrt(variance + self.epsilon)
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        return x_PD * scale.to(x_PD.dtype) + shift.to(x_PD.dtype)


class FeedForward(nn.Module):
    """Two linear layers around an activation, applied to every position alone: (P, D) -> (P, D).

    Plain: `out(act(in(x)))` ("Attention Is All You Need", section 3.3). Gated (`geglu`, `geglu_tanh`, `swiglu`):
    `out(act(gate(x)) * value(x))` (Shazeer 2020, "GLU Variants Improve Transformer"). `inputs` is the width of what
    comes in, where that is not `width`.
    """

    def __init__(
        self,
        width: int,
        mlp_width: int,
        *,
        activation: ActivationName,
        bias: bool = True,
        drop_rate: float = 0.0,
        inputs: int | None = None,
    ) -> None:
        super().__init__()
        self.gated = is_gated(activation)
        self.activation = ACTIVATIONS[activation]
        self.inner = Linear(inputs or width, mlp_width * (2 if self.gated else 1), bias=bias)
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
        elif isinstance(part, nn.LayerNorm | nn.RMSNorm | MaskedBatchNorm):
            nn.init.ones_(part.weight)
            if not isinstance(part, nn.RMSNorm) and part.bias is not None:
                nn.init.zeros_(part.bias)
