"""Who may look at whom: full, causal and sliding-window patterns, always inside one document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from encodery.batch import Layout

PatternName = Literal["full", "causal", "window"]


@dataclass(frozen=True)
class Pattern:
    """A rule on the distance `key position - query position` inside a document.

    `full` allows every distance, `causal` those up to 0, `window` those of at most `radius` to either side.
    """

    name: PatternName = "full"
    radius: int = 0

    @property
    def block(self) -> int:
        """For windows: a power of two no smaller than the radius, so that a block of so many positions sees no
        further than the blocks beside it."""
        return max(16, 1 << (self.radius - 1).bit_length())

    def allows(self, distance: Tensor) -> Tensor:
        if self.name == "causal":
            return distance <= 0
        if self.name == "window":
            return distance.abs() <= self.radius
        return torch.ones_like(distance, dtype=torch.bool)


def allowed_pairs(layout: Layout, pattern: Pattern) -> Tensor:
    """True where a query may look at a key: (B, T, T) bool, queries by keys.

    Documents that share a row never see each other. Every position sees at least itself, padding included, so
    that no row of the softmax is empty (an empty row would give NaN).
    """
    document_BT = layout.document.view(layout.rows, layout.length)
    same = document_BT[:, :, None] == document_BT[:, None, :]
    if pattern.name == "full":
        return same
    position_BT = layout.position.view(layout.rows, layout.length)
    distance = position_BT[:, None, :] - position_BT[:, :, None]
    return same & pattern.allows(distance)


def attention_bias(layout: Layout, pattern: Pattern, dtype: torch.dtype) -> Tensor:
    """The pattern as numbers to add to the scores: 0 where allowed, -inf elsewhere, (B, 1, T, T)."""
    return _kept(layout, (pattern, dtype), lambda: allowed_pairs(layout, pattern), dtype)


def pair_bias(layout: Layout, length: int, pattern: Pattern, dtype: torch.dtype) -> Tensor | None:
    """The same for one document of `length` tokens alone, (1, 1, length, length); None where all is allowed."""
    if pattern.name == "full":
        return None

    def allowed() -> Tensor:
        place = torch.arange(length, device=layout.document.device)
        return pattern.allows(place[None, None, :] - place[None, :, None])

    return _kept(layout, (pattern, dtype, length), allowed, dtype)


def block_bias(layout: Layout, pattern: Pattern, dtype: torch.dtype) -> Tensor:
    """The same for queries in blocks of `pattern.block` positions, each beside the keys of its own block and its two
    neighbours: (blocks, 1, block, 3 * block)."""
    size = pattern.block

    def with_neighbours(x_P: Tensor, beyond: int) -> tuple[Tensor, Tensor]:
        padded = F.pad(x_P, (size, size), value=beyond).view(-1, size)
        return padded[1:-1, :, None], torch.cat([padded[:-2], padded[1:-1], padded[2:]], dim=1)[:, None, :]

    def allowed() -> Tensor:
        own, near = with_neighbours(layout.document, -2)
        place, places = with_neighbours(layout.position, 0)
        return (own == near) & pattern.allows(places - place)

    return _kept(layout, (pattern, dtype, "blocks"), allowed, dtype)


def _kept(layout: Layout, key: object, allowed: Callable[[], Tensor], dtype: torch.dtype) -> Tensor:
    """Made once a step and kept on the layout, since every layer with this pattern needs the same."""
    bias = layout.masks.get(key)
    if bias is None:
        # A mask made while scoring may serve a training step later, so it must not be an inference tensor.
        with torch.inference_mode(False):
            pairs = allowed()
            bias = torch.zeros(pairs.shape, dtype=dtype, device=pairs.device)
            bias = bias.masked_fill_(~pairs, -torch.inf)[:, None]
        layout.masks[key] = bias
    return bias
