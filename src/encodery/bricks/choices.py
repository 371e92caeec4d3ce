"""The names of norms, activations and poolings, for configs: read without torch."""

from __future__ import annotations

from typing import Literal

NormName = Literal["layernorm", "rmsnorm", "batchnorm"]
ActivationName = Literal["relu", "gelu", "gelu_tanh", "silu", "geglu", "geglu_tanh", "swiglu"]
PoolingName = Literal["first", "mean", "weighted", "max", "attention"]


def is_gated(activation: ActivationName) -> bool:
    """Whether one half of the inner vector decides how much of the other passes."""
    return activation in ("geglu", "geglu_tanh", "swiglu")
