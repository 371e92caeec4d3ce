"""Readouts that look at a batch in a way of their own: how they ask the model for vectors, what is kept of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor, nn

from encodery.batch import Batch, Output, States
from encodery.encoders.watch import Watch
from encodery.heads.readouts import WordReadout


class Encode(Protocol):
    """A model up to its readout: Batch -> States."""

    def __call__(
        self, batch: Batch, at: Tensor | None = None, *, watch: Watch | None = None, words: Tensor | None = None
    ) -> States:
        """Vectors in context (P, D), or with `at` (M,) of these positions alone (M, D). `words` (P, E) are vectors to
        enter the encoder with instead of those that the frontend has for the ids."""
        ...


def answered(readout: nn.Module, encode: Encode, batch: Batch) -> Output:
    """What a readout of any kind says of a batch."""
    if isinstance(readout, OwnPass):
        return readout.run(encode, batch)
    # The flat positions of the masked words, `truth["at"]` (M,), are all that a word readout asks for.
    at = batch.truth["at"] if isinstance(readout, WordReadout) else None
    return readout(encode(batch, at), batch)


class OwnPass(nn.Module, ABC):
    """A readout that decides itself what the encoder reads, and how often. Parts of it may serve learning alone."""

    @abstractmethod
    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights from the generator."""

    @abstractmethod
    def run(self, encode: Encode, batch: Batch) -> Output:
        """The answer for a batch; `encode` gives vectors of it, or of another batch that was made from it."""

    @abstractmethod
    def costs(self, length: int, share: float) -> list[tuple[str, int, float]]:
        """Name, parameters and forward FLOPs per token of each part, for documents of `length` tokens, when words are
        asked for at a `share` of the positions."""

    @property
    def passes(self) -> int:
        """How often the encoder reads a batch."""
        return 1


def parameters_of(*parts: nn.Module | None) -> int:
    """How many numbers the parts learn."""
    return sum(parameter.numel() for part in parts if part is not None for parameter in part.parameters())
