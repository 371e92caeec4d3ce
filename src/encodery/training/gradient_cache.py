"""One loss over the vectors of many batches, with the memory of one batch: gradient caching (Gao et al. 2021).

All batches are encoded without a graph; the loss looks at all vectors together, and its gradient by each vector is
kept; then each batch is encoded again, with a graph and the same dropout, and sent backward from the gradients of its
vectors. The gradients are those of one batch as large as all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from encodery.batch import Batch, Output
from encodery.objectives.masked import Loss

COMPARED = ("vectors", "tokens", "scale")
"""The parts of an Output that such a loss looks at."""


@runtime_checkable
class Together(Protocol):
    """An objective whose loss is one over all batches of a step."""

    def joint_loss(self, outputs: Sequence[Output], batches: Sequence[Batch]) -> Loss: ...


def joint_gradients(
    model: nn.Module,
    objective: Together,
    batches: Sequence[Batch],
    *,
    seeds: Sequence[int],
    autocast: Callable[[], AbstractContextManager[Any]],
    expert_balance: float = 0.0,
) -> Loss:
    """Add the gradients of the joint loss of `batches` to the model's; returns that loss.

    `seeds` are one for each batch: dropout follows from them. With one batch there is nothing to save, and it is
    encoded once. When the loss is not finite no gradient is added.
    """
    if len(batches) == 1:
        output = _encoded(model, batches[0], seeds[0], autocast)
        with autocast():
            loss = objective.joint_loss([output], batches)
        wanted = loss.total
        if output.balance is not None:
            wanted = wanted + expert_balance * loss.count * output.balance
        wanted.backward()
        return _detached(loss)
    # What a norm remembers of the batches it saw must not count them twice.
    remembered = {name: value.clone() for name, value in model.named_buffers()}
    with torch.no_grad():
        outputs = [_encoded(model, batch, seed, autocast) for batch, seed in zip(batches, seeds)]
        for name, value in model.named_buffers():
            value.copy_(remembered[name])
    outputs = [_as_leaves(output) for output in outputs]
    with autocast():
        loss = objective.joint_loss(outputs, batches)
    if not bool(torch.isfinite(loss.total)):
        return _detached(loss)
    loss.total.backward()
    for batch, seed, kept in zip(batches, seeds, outputs):
        again = _encoded(model, batch, seed, autocast)
        pairs = [(getattr(again, name), value.grad) for name, value in _compared(kept) if value.grad is not None]
        if again.balance is not None and expert_balance:
            share = expert_balance * loss.count / len(batches)
            pairs.append((again.balance, share.to(again.balance).reshape(again.balance.shape)))
        tensors, gradients = zip(*pairs)
        torch.autograd.backward(tensors, gradients)
    return _detached(loss)


def _encoded(model: nn.Module, batch: Batch, seed: int, autocast: Callable[[], AbstractContextManager[Any]]) -> Output:
    torch.manual_seed(seed)
    with autocast():
        return model(batch)


def _compared(output: Output) -> list[tuple[str, Tensor]]:
    found = [(name, getattr(output, name)) for name in COMPARED]
    return [(name, value) for name, value in found if value is not None]


def _as_leaves(output: Output) -> Output:
    return replace(output, **{name: value.detach().requires_grad_() for name, value in _compared(output)})


def _detached(loss: Loss) -> Loss:
    return replace(loss, total=loss.total.detach())
