"""The patterns of attention as masks over a batch: whatever the rule, never beyond one document."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from encodery.batch import Layout
from encodery.encoders.pattern_rules import Pattern
from encodery.encoders.visible_tree import visible_pairs


def allowed_pairs(layout: Layout, pattern: Pattern) -> Tensor:
    """True where a query may look at a key: (B, T, T) bool, queries by keys.

    Documents that share a row never see each other. Every position sees at least itself, padding included, so
    that no row of the softmax is empty (an empty row would give NaN).
    """
    document_BT = layout.document.view(layout.rows, layout.length)
    same = document_BT[:, :, None] == document_BT[:, None, :]
    if layout.branch is not None:
        same = same & visible_pairs(layout)
    if pattern.name == "full":
        return same
    position_BT = layout.position.view(layout.rows, layout.length)
    length_BT = document_lengths(layout).view(layout.rows, layout.length)
    allowed = pattern.allows(position_BT[:, :, None], position_BT[:, None, :], length_BT[:, :, None])
    place = torch.arange(layout.length, device=same.device)
    return same & (allowed | (place[:, None] == place))


def document_lengths(layout: Layout) -> Tensor:
    """For each position the length of its document, 1 for padding: (P,)."""
    return torch.cat([layout.lengths, layout.lengths.new_ones(1)])[layout.document]


def attention_bias(layout: Layout, pattern: Pattern, dtype: torch.dtype) -> Tensor:
    """The pattern as numbers to add to the scores: 0 where allowed, -inf elsewhere, (B, 1, T, T)."""
    return kept_bias(layout, (pattern, dtype), lambda: allowed_pairs(layout, pattern), dtype)


def pair_bias(layout: Layout, start: int, length: int, pattern: Pattern, dtype: torch.dtype) -> Tensor | None:
    """The same for the document of `length` tokens at the flat position `start` alone, (1, 1, length, length); None
    where all is allowed."""
    if layout.branch is not None:
        span = slice(start, start + length)
        return kept_bias(layout, ("tree", start, dtype), lambda: visible_pairs(layout, span), dtype)
    if pattern.name == "full":
        return None

    def allowed() -> Tensor:
        place = torch.arange(length, device=layout.document.device)
        return pattern.allows(place[None, :, None], place[None, None, :], length)

    return kept_bias(layout, (pattern, dtype, length), allowed, dtype)


def block_bias(layout: Layout, pattern: Pattern, dtype: torch.dtype) -> Tensor:
    """The same for queries in blocks of `pattern.grain` positions, each beside the keys of its own block and its two
    neighbours: (blocks, 1, block, 3 * block)."""
    size = pattern.grain

    def with_neighbours(x_P: Tensor, beyond: int) -> tuple[Tensor, Tensor]:
        padded = F.pad(x_P, (size, size), value=beyond).view(-1, size)
        return padded[1:-1, :, None], torch.cat([padded[:-2], padded[1:-1], padded[2:]], dim=1)[:, None, :]

    def allowed() -> Tensor:
        own, near = with_neighbours(layout.document, -2)
        place, places = with_neighbours(layout.position, 0)
        return (own == near) & pattern.allows(place, places, 0)

    return kept_bias(layout, (pattern, dtype, "blocks"), allowed, dtype)


def kept_bias(layout: Layout, key: object, allowed: Callable[[], Tensor], dtype: torch.dtype) -> Tensor:
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
