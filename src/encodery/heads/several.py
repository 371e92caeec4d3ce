"""Several readouts over one encoder: each reads the view of the batch that its own objective has prepared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from encodery.batch import Batch, Output
from encodery.heads.passes import Encode, OwnPass, answered, parameters_of
from encodery.heads.readouts import WordReadout


@dataclass(frozen=True)
class SeveralOutput(Output):
    """The answers of the parts, in their order."""

    answers: tuple[Output, ...] = ()


class SeveralReadout(OwnPass):
    """Batch with `views`, one for each part -> SeveralOutput. The encoder reads every view: as many passes as parts."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def initialise(self, generator: torch.Generator) -> None:
        for part in self.parts:
            part.initialise(generator)  # type: ignore[operator]

    @property
    def passes(self) -> int:
        """One for each part."""
        return len(self.parts)

    def costs(self, length: int, share: float) -> list[tuple[str, int, float]]:
        rows: list[tuple[str, int, float]] = []
        for part in self.parts:
            if isinstance(part, OwnPass):
                rows += part.costs(length, share)
            elif isinstance(part, WordReadout):
                rows.append(("readout (words)", parameters_of(part), part.flops(share)))
            else:
                rows.append(("readout", parameters_of(part), 2.0 * parameters_of(part) / max(1, length)))
        return rows

    def run(self, encode: Encode, batch: Batch) -> SeveralOutput:
        assert len(batch.views) == len(self.parts), "as many views of a batch as readouts"
        answers = tuple(answered(part, encode, view) for part, view in zip(self.parts, batch.views))
        found = [answer.balance for answer in answers if answer.balance is not None]
        return SeveralOutput(balance=torch.stack(found).mean() if found else None, answers=answers)
