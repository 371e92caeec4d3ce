"""Training against the worst small change of the input: the fast gradient method on embedded words.

Miyato, Dai and Goodfellow 2017, "Adversarial Training Methods for Semi-Supervised Text Classification", equation 5: the
vectors of a document are moved by r = e g / |g|, g being the gradient of the loss, and the loss there counts as well.
Here e is a share of the length of the document's vectors, so that it means the same for every width and length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from encodery.batch import Layout, States
from encodery.model import Model


class Adversary:
    """Listens to what the frontend gives, and moves it."""

    def __init__(self, model: Model, size: float) -> None:
        self.model = model
        self.size = size
        self._given: States | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within this context the vectors of the frontend keep their gradient."""

        def keep(_: Any, __: Any, given: States) -> States:
            given.vectors.retain_grad()
            self._given = given
            return given

        handle = self.model.frontend.register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Within this context the vectors of the frontend are moved to where the loss grew fastest."""
        assert self._given is not None and self._given.vectors.grad is not None, "after a backward pass that was heard"
        given = self._given
        assert given.vectors.grad is not None
        shift = worst_shift(given.vectors.detach(), given.vectors.grad, given.layout, self.size)
        self._given = None

        def move(_: Any, __: Any, found: States) -> States:
            return replace(found, vectors=found.vectors + shift.to(found.vectors.dtype))

        handle = self.model.frontend.register_forward_hook(move)
        try:
            yield
        finally:
            handle.remove()


def worst_shift(vectors_PD: Tensor, gradient_PD: Tensor, layout: Layout, size: float) -> Tensor:
    """r (P, D): along the gradient, for each document `size` times as long as its vectors; 0 at padding."""
    document = layout.document.clamp(min=0)
    real = (layout.document >= 0).float()

    def lengths(x_PD: Tensor) -> Tensor:
        squares_P = x_PD.float().square().sum(dim=1) * real
        return squares_P.new_zeros(layout.documents).index_add(0, document, squares_P).sqrt()

    scale_N = size * lengths(vectors_PD) / lengths(gradient_PD).clamp(min=torch.finfo(torch.float32).tiny ** 0.5)
    return gradient_PD.float() * (scale_N[document] * real)[:, None]
