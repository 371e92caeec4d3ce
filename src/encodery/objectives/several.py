"""Several objectives in one run: each sees the same rows in its own way, and their losses are added by weight.

L = sum_i w_i L_i          each L_i a mean over what it counts (hidden words, tokens, documents)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal, Protocol

import numpy as np
import torch
from pydantic import Field, model_validator

from encodery.batch import Batch, Output
from encodery.data.fields import Field as DataField
from encodery.data.loader import Loader
from encodery.data.sources import DataConfig
from encodery.heads.options import PartReadoutConfig, SeveralReadoutConfig
from encodery.heads.several import SeveralOutput
from encodery.objectives.contrastive_options import ContrastConfig
from encodery.objectives.distil import DistilConfig
from encodery.objectives.masked import Loss, MaskedConfig
from encodery.objectives.order import OrderConfig, Ordered
from encodery.objectives.reconstruct import AutoencodeConfig
from encodery.objectives.replaced import ReplacedConfig
from encodery.objectives.texts_alone import TextsAlone

PartConfig = Annotated[
    MaskedConfig | ReplacedConfig | OrderConfig | AutoencodeConfig | DistilConfig | ContrastConfig,
    Field(discriminator="kind"),
]


class SeveralConfig(TextsAlone):
    """Which objectives are learned together, and what each weighs."""

    kind: Literal["several"] = "several"
    objectives: tuple[PartConfig, ...] = Field(min_length=2, max_length=8)
    """Each with its own options, and of a kind of its own. The model that is kept is that of the first one."""
    weights: tuple[Annotated[float, Field(gt=0, le=10000)], ...] | None = None
    """Of each objective's mean loss; 1 for all when left out. Look at the journal: losses differ in size."""

    @model_validator(mode="after")
    def _go_together(self) -> SeveralConfig:
        kinds = [part.kind for part in self.objectives]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"objectives {', '.join(kinds)}: each must be of another kind")
        if self.weights is not None and len(self.weights) != len(kinds):
            raise ValueError(f"{len(self.weights)} weights for {len(kinds)} objectives")
        if "order" in kinds and "contrast" in kinds:
            raise ValueError("order and contrast make batches in ways of their own: learn one of them at a time")
        if any(isinstance(part, ReplacedConfig) and part.sharing == "disentangled" for part in self.objectives):
            raise ValueError(
                "sharing: disentangled gives the encoder word vectors that the other objectives do not see; use tied"
            )
        return self

    @property
    def compose(self) -> str:  # type: ignore[override]
        """How samples are made: as the one objective asks that asks for more than the text."""
        return next((part.compose for part in self.objectives if part.compose != "joined"), "joined")

    def fields(self, data: DataConfig) -> tuple[DataField, ...]:
        """What the objectives need beside the text."""
        found = {one.name: one for part in self.objectives for one in part.fields(data)}
        return tuple(found.values())


class Part(Protocol):
    """An objective that can be one of several."""

    def readout(self) -> PartReadoutConfig: ...

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch: ...

    def loss(self, output: Output, batch: Batch) -> Loss: ...


class Several:
    """The objective: prepares a view of the batch for each part, has a readout for each, adds up their losses.

    `names` are for the journal: the numbers of part "order" stand there as "order.order_loss".
    """

    def __init__(self, parts: Sequence[Part], weights: Sequence[float], names: Sequence[str]) -> None:
        assert len(parts) == len(weights) == len(names), "a weight and a name for each part"
        self.parts = tuple(parts)
        self.weights = tuple(weights)
        self.names = tuple(names)

    def readout(self) -> SeveralReadoutConfig:
        return SeveralReadoutConfig(parts=tuple(part.readout() for part in self.parts))

    def loader(self, loader: Loader) -> Loader:
        """That of the part that has one of its own; at most one does."""
        for part in self.parts:
            if isinstance(part, Ordered):
                return part.loader(loader)
        return loader

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        """`views`, one for each part. Each part draws from a generator of its own, so that what one draws does not
        depend on which others there are."""
        seeds = rng.integers(0, 1 << 62, size=2)
        views = tuple(
            part.prepare(batch, np.random.default_rng([*seeds.tolist(), number]), progress)
            for number, part in enumerate(self.parts)
        )
        return replace(batch, views=views)

    def loss(self, output: Output, batch: Batch) -> Loss:
        """The weighted sum of the means, times the count of the first part: batches then weigh by what it counts."""
        assert isinstance(output, SeveralOutput)
        losses = self.each(output, batch)
        first = losses[0]
        mean = torch.zeros((), device=first.total.device)
        parts: dict[str, torch.Tensor] = {}
        for name, weight, loss in zip(self.names, self.weights, losses):
            own = loss.total / loss.count.clamp_min(1)
            mean = mean + weight * own
            parts[f"{name}.loss"] = own.detach()
            parts |= {f"{name}.{key}": value for key, value in loss.parts.items()}
        return Loss(mean * first.count, first.count, first.correct, parts)

    def each(self, output: SeveralOutput, batch: Batch) -> list[Loss]:
        """The loss of each part by itself."""
        answers = zip(self.parts, output.answers, batch.views, strict=True)
        return [part.loss(answer, view) for part, answer, view in answers]
