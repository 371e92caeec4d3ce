"""Who may look at whom: full, causal and sliding-window patterns, always inside one document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
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
    """The pattern as numbers to add to the scores: 0 where allowed, -inf elsewhere, (B, 1, T, T).

    Made once a step and kept on the layout, since every layer with this pattern needs the same.
    """
    key = (pattern, dtype)
    bias = layout.masks.get(key)
    if bias is None:
        # A mask made while scoring may serve a training step later, so it must not be an inference tensor.
        with torch.inference_mode(False):
            allowed = allowed_pairs(layout, pattern)
            bias = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
            bias = bias.masked_fill_(~allowed, -torch.inf)[:, None]
        layout.masks[key] = bias
    return bias
