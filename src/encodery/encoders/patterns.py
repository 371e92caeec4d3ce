"""Who may look at whom: full, causal, sliding, dilated, block and random patterns, always inside one document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from encodery.batch import Layout

PatternName = Literal["full", "causal", "window", "dilated", "block", "random"]


@dataclass(frozen=True)
class Pattern:
    """A rule on the positions of a query and a key inside a document.

    full     every key
    causal   the query itself and what stands before it
    window   at most `radius` tokens to either side (Longformer, Beltagy et al. 2020, section 3.1)
    dilated  at most `radius` steps of `dilation` tokens to either side, only these (the same, figure 2c)
    block    the query's own block of `block` tokens
    random   `window`, and whole blocks: for each block of queries `random_blocks` of its document, drawn once for all
             (BigBird, Zaheer et al. 2020, section 2)

    The first `global_tokens` of a document see all of it and are seen by all of it.
    """

    name: PatternName = "full"
    radius: int = 0
    dilation: int = 1
    block: int = 0
    random_blocks: int = 0
    global_tokens: int = 0

    @property
    def local(self) -> bool:
        """Whether a query sees only some of the keys however long the document is."""
        return self.name not in ("full", "causal")

    @property
    def grain(self) -> int:
        """Positions of the blocks in which a local pattern is computed. A query sees no further than the neighbours of
        its own block, apart from random blocks and global tokens."""
        if self.name in ("window", "dilated"):
            return max(16, 1 << (self.radius - 1).bit_length())
        return self.block

    def seen(self, length: int) -> float:
        """How many keys a query sees in a document of `length` tokens, on average and without the edges."""
        if self.name == "full":
            return length
        if self.name == "causal":
            return length / 2
        own = self.block if self.name == "block" else 2 * self.radius + 1
        return min(length, own + self.random_blocks * self.block + self.global_tokens)

    def allows(self, query: Tensor, key: Tensor, length: Tensor | int) -> Tensor:
        """Whether the token at position `query` may look at the one at `key`, in a document of `length` tokens. The
        three are broadcast against each other."""
        distance = key - query
        seen = torch.ones_like(distance, dtype=torch.bool)
        if self.name == "causal":
            return distance <= 0
        if self.name in ("window", "random"):
            seen = distance.abs() <= self.radius
        elif self.name == "dilated":
            seen = (distance.abs() <= self.radius * self.dilation) & (distance % self.dilation == 0)
        elif self.name == "block":
            seen = query // self.block == key // self.block
        for number in range(self.random_blocks):
            seen = seen | (key // self.block == self.random_block(query // self.block, number, length))
        if self.global_tokens:
            seen = seen | (query < self.global_tokens) | (key < self.global_tokens)
        return seen

    def random_block(self, query_block: Tensor, number: int, length: Tensor | int) -> Tensor:
        """The block that is drawn as `number` for a block of queries: a function of integers, so that a document sees
        the same wherever it stands."""
        blocks = (length + (self.block - 1)) // self.block
        mixed = (query_block + 1) * 2654435761 + (number + 1) * 97531
        mixed = ((mixed ^ (mixed >> 15)) * 40503) & 0x7FFFFFFF
        return (mixed >> 5) % blocks


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
    length_BT = document_lengths(layout).view(layout.rows, layout.length)
    allowed = pattern.allows(position_BT[:, :, None], position_BT[:, None, :], length_BT[:, :, None])
    return same & (allowed | torch.eye(layout.length, dtype=torch.bool, device=same.device))


def document_lengths(layout: Layout) -> Tensor:
    """For each position the length of its document, 1 for padding: (P,)."""
    return torch.cat([layout.lengths, layout.lengths.new_ones(1)])[layout.document]


def attention_bias(layout: Layout, pattern: Pattern, dtype: torch.dtype) -> Tensor:
    """The pattern as numbers to add to the scores: 0 where allowed, -inf elsewhere, (B, 1, T, T)."""
    return kept_bias(layout, (pattern, dtype), lambda: allowed_pairs(layout, pattern), dtype)


def pair_bias(layout: Layout, length: int, pattern: Pattern, dtype: torch.dtype) -> Tensor | None:
    """The same for one document of `length` tokens alone, (1, 1, length, length); None where all is allowed."""
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
