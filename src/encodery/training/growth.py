"""Runs that begin small: with few blocks, and few batches a step, while there is little yet that needs more."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from encodery.config import Config
from encodery.encoders.options import TransformerConfig

COMPARE_BLOCKS = ("distil", "several")
"""Objectives that look at each block of the encoder, or may."""


class GrowthConfig(Config):
    """What is small when a run begins, and when everything has its full size."""

    shorthand: ClassVar[str] = "blocks"
    blocks: Annotated[int, Field(ge=1, le=1000)] | Literal["auto"] | None = None
    """So many blocks of a Transformer work at first. Their number doubles until all do, and those that join begin as
    copies of the ones below them (stacking, Gong et al. 2019); auto: 1, where an encoder begins from fresh weights and
    can grow; None: all from the beginning."""
    batches: int | None = Field(default=None, ge=1)
    """So many batches make a step at first; it becomes evenly more, up to training.accumulate (Smith et al. 2018);
    None: as many from the beginning."""
    until: float = Field(default=0.5, gt=0, le=0.9)
    """The share of the run at which nothing grows any more."""


class Growth:
    """How large everything is when a share `progress` (0 to 1) of the run is done."""

    def __init__(self, config: GrowthConfig, *, depth: int, batches: int) -> None:
        self.config = config
        self.batches = batches
        first = config.blocks if isinstance(config.blocks, int) else depth
        self.sizes = [first * 2**turn for turn in range(64) if first * 2**turn < depth] + [depth]

    def batches_at(self, progress: float) -> int:
        """How many batches make a step."""
        if self.config.batches is None:
            return self.batches
        more = (self.batches - self.config.batches + 1) * progress / self.config.until
        return min(self.batches, self.config.batches + math.floor(more))

    def blocks_at(self, progress: float) -> int:
        """How many blocks work: each number for an equal part of the time until all do."""
        turn = math.floor((len(self.sizes) - 1) * progress / self.config.until)
        return self.sizes[min(turn, len(self.sizes) - 1)]

    def __str__(self) -> str:
        """In words; empty when all blocks work from the beginning."""
        sizes = ", ".join(map(str, self.sizes))
        return f"blocks at work: {sizes}; all from {self.config.until:.0%} of the run on" if self.sizes[1:] else ""


def settled(config: GrowthConfig | None, encoder: object, *, fresh: bool) -> GrowthConfig:
    """With blocks: auto settled for an encoder of this config, which is `fresh` when it begins from fresh weights."""
    config = config or GrowthConfig()
    if config.blocks != "auto":
        return config
    return config.model_copy(update={"blocks": None if not fresh or _cannot_grow(encoder, 1) else 1})


def growth_problems(config: GrowthConfig, encoder: object, batches: int) -> list[str]:
    """Why a run of this encoder, with so many batches a step at its end, cannot grow so."""
    found: list[str] = []
    if config.blocks is None and config.batches is None:
        found.append("growth needs blocks, batches or both: what is small at first")
    if config.batches is not None and batches <= config.batches:
        found.append(f"growth.batches {config.batches} must be fewer than accumulate, which is {batches}")
    if isinstance(config.blocks, int):
        found += _cannot_grow(encoder, config.blocks)
    return found


def _cannot_grow(encoder: object, blocks: int) -> list[str]:
    if not isinstance(encoder, TransformerConfig):
        return ["growth.blocks is for encoder.kind: transformer"]
    found: list[str] = []
    if encoder.depth <= blocks:
        found.append(f"growth.blocks {blocks} must be fewer than encoder.depth, which is {encoder.depth}")
    for name in ("distinct_blocks", "halve_after", "fusion"):
        if getattr(encoder, name):
            found.append(f"growth.blocks does not go with encoder.{name}, which counts the blocks")
    return found
