"""The gradients of one batch: of its loss, and where a recipe asks for it of how firm the answers are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from encodery.batch import Batch, Output
from encodery.model import Model
from encodery.objectives.masked import Loss
from encodery.training.adversary import Adversary


class Scored(Protocol):
    """An objective: what it asks here is the loss of an output."""

    def loss(self, output: Output, batch: Batch) -> Loss: ...


@runtime_checkable
class Comparable(Protocol):
    """An objective that can tell how far two answers to the same rows are apart."""

    def disagreement(self, one: Output, other: Output, batch: Batch) -> Tensor:
        """Summed over the rows."""
        ...


def add_gradients(
    model: Model,
    objective: Scored,
    batch: Batch,
    *,
    autocast: Callable[[], AbstractContextManager[Any]],
    expert_balance: float = 0.0,
    consistency: float = 0.0,
    adversary: Adversary | None = None,
) -> Loss:
    """Add the gradients of a batch to those of the model; its loss, without a graph.

    With `consistency` the batch goes through the model twice, under different dropout, and the two answers should
    agree: R-Drop (Liang et al. 2021, equation 4), the loss being the mean of both. With an `adversary` the loss where
    the words are moved against the model counts as much as the loss where they stand.
    """

    def passed() -> tuple[Output, Loss, Tensor]:
        with autocast():
            output = model(batch)
            loss = objective.loss(output, batch)
        wanted = loss.total
        if output.balance is not None:
            wanted = wanted + expert_balance * loss.count * output.balance
        return output, loss, wanted

    share = 1.0 if adversary is None else 0.5
    with nullcontext() if adversary is None else adversary.listening():
        output, loss, wanted = passed()
        if consistency:
            assert isinstance(objective, Comparable), "only answers that can be compared"
            other, _, again = passed()
            wanted = (wanted + again) / 2 + consistency * objective.disagreement(output, other, batch)
        (share * wanted).backward()
    if adversary is not None:
        with adversary.moving():
            (share * passed()[2]).backward()
    return replace(loss, total=loss.total.detach())
