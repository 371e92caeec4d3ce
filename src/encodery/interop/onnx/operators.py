"""Operators of PyTorch that its exporter cannot write, in those of ONNX (opset 18)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

OPSET = 18
"""The first that has bitwise operators; ONNX Runtime reads it since 1.14 (2023)."""


def _constant(g: Any, *numbers: int) -> Any:
    return g.op("Constant", value_t=torch.tensor(numbers, dtype=torch.int64))


def _scalar(g: Any, number: float, dtype: torch.dtype) -> Any:
    return g.op("Constant", value_t=torch.tensor(number, dtype=dtype))


def _xor(g: Any, a: Any, b: Any) -> Any:
    """Of whole numbers of 64 bits; `b` may be a number that the program names."""
    return g.op("BitwiseXor", a, b).setType(a.type())


def _shift_right(g: Any, a: Any, by: Any) -> Any:
    """Of whole numbers, negative ones too: what is left of the multiple of 2^by below. ONNX divides towards zero, and
    shifts only numbers without a sign."""
    size = _scalar(g, 1 << int(by.node().t("value")), torch.int64)
    below = g.op("Sub", a, g.op("Mod", a, size))
    return g.op("Div", below, size).setType(a.type())


def _unfold(g: Any, x: Any, dim: Any, size: Any, step: Any) -> Any:
    """Windows of `size` neighbours along a dimension, one at each place (step 1), as a new last dimension."""
    dim, size, step = (int(given.node().t("value")) for given in (dim, size, step))
    assert step == 1, "the convolutions of this project move by one token"
    windows = []
    for first in range(size):
        last = first - size + 1
        ends = _constant(g, last) if last else _constant(g, torch.iinfo(torch.int64).max)
        part = g.op("Slice", x, _constant(g, first), ends, _constant(g, dim))
        windows.append(g.op("Unsqueeze", part, _constant(g, -1)))
    return g.op("Concat", *windows, axis_i=-1)


def _rms_norm(g: Any, x: Any, shape: Any, weight: Any, epsilon: Any) -> Any:
    """`x / sqrt(mean(x^2) + epsilon) * weight` over the last dimension (Zhang and Sennrich 2019, equation 4)."""
    del shape  # of one number, the width: all norms here are over one dimension
    square = g.op("ReduceMean", g.op("Mul", x, x), _constant(g, -1), keepdims_i=1)
    root = g.op("Sqrt", g.op("Add", square, g.op("Cast", epsilon, to_i=1)))
    return g.op("Mul", g.op("Div", x, root), weight).setType(x.type())


def _index_add(g: Any, x: Any, dim: Any, index: Any, added: Any, alpha: Any) -> Any:
    """Rows of `added` onto those rows of `x` that `index` names, also several onto one."""
    assert int(dim.node().t("value")) == 0 and float(alpha.node().t("value")) == 1, "rows are added as they are"
    where = g.op("Unsqueeze", index, _constant(g, -1))
    return g.op("ScatterND", x, where, added, reduction_s="add").setType(x.type())


_OPERATORS: dict[str, Callable[..., Any]] = {
    "aten::__xor_": _xor,  # the exporter takes the last underscore for the mark of an operator in place
    "aten::__rshift_": _shift_right,
    "aten::unfold": _unfold,
    "aten::index_add": _index_add,
    "aten::rms_norm": _rms_norm,
}


@contextmanager
def known_operators() -> Iterator[None]:
    """Inside the block the exporter knows these operators too."""
    for name, written in _OPERATORS.items():
        torch.onnx.register_custom_op_symbolic(name, written, OPSET)
    try:
        yield
    finally:
        for name in _OPERATORS:
            torch.onnx.unregister_custom_op_symbolic(name, OPSET)
