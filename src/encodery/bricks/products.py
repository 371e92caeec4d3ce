"""Linear layers by the routine that is fastest on this machine; the same numbers as PyTorch's own."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# oneDNN's linear layer adds the bias inside the product. PyTorch's own first copies the bias over the whole output,
# and in float32 it goes to a library that uses half of the vector units of other makers' processors.
_onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
onednn_has_bf16: bool = _onednn is not None and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
"""Whether oneDNN computes in bf16 here: on x86 it needs AVX-512. PyTorch's own routines do on every processor."""


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type in which matrix products run: autocast's when it is on, else that of the vectors."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def products_in(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Inside this context matrix products run in `dtype`; weights, sums and the loss stay in float32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


class Linear(nn.Linear):
    """`x W^T + b`: (..., inputs) -> (..., outputs). Parameters as those of `nn.Linear`, by the same names."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x W^T + b` in the type of autocast; each gradient has the type of its parameter."""
    # A tracer writes down PyTorch's own operator, which every runtime knows.
    if x.device.type != "cpu" or _onednn is None or torch.jit.is_tracing():
        return F.linear(x, weight, bias)
    dtype = compute_dtype(x)
    with torch.autocast("cpu", enabled=False):
        return cast(Tensor, _Linear.apply(x.to(dtype), weight, bias, dtype))


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if _onednn is None or (x.dtype == torch.bfloat16 and not onednn_has_bf16):
        return F.linear(x, weight, bias)
    return _onednn(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        weight = weight.to(dtype)
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _product(x, weight, None if bias is None else bias.to(dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = _product(grad, weight.t(), None) if grad.dtype == torch.float32 else grad @ weight
        grad, x = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        if ctx.needs_input_grad[1]:
            # The narrower side on the left: a tenth faster.
            to_weight = (x.t() @ grad).t() if x.shape[1] < grad.shape[1] else grad.t() @ x
        if ctx.has_bias and ctx.needs_input_grad[2]:
            to_bias = grad.sum(0)
        return to_x, to_weight, to_bias, None
