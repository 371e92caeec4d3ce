"""Who may look at whom inside a document, as a rule on two positions: full, causal, sliding, dilated, block, random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

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
    def plain_window(self) -> bool:
        """Whether neighbouring blocks are all that a query sees."""
        return self.name == "window" and not self.global_tokens

    @property
    def grain(self) -> int:
        """Positions of the blocks in which a local pattern is computed. A query sees no further than the neighbours of
        its own block, apart from random blocks and global tokens."""
        if self.name in ("window", "dilated"):
            return max(16, 1 << (self.radius - 1).bit_length())
        return self.block

    @property
    def worth_from(self) -> int:
        """Positions of a row from which a local pattern is computed in blocks; in shorter ones whole scores are faster.
        Each block meets up to three neighbours and the random ones, and to gather these costs about as much again as
        the products (bench/speed/CURVES.md); a plain window needs no gathering."""
        if self.plain_window:
            return 4 * self.grain
        beside = 1 if self.name == "block" else 3
        return 4 * (beside + self.random_blocks) * self.grain

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
        if self.name == "causal":
            return distance <= 0
        if self.name in ("window", "random"):
            seen = abs(distance) <= self.radius
        elif self.name == "dilated":
            seen = (abs(distance) <= self.radius * self.dilation) & (distance % self.dilation == 0)
        elif self.name == "block":
            seen = query // self.block == key // self.block
        else:
            seen = distance == distance
        for number in range(self.random_blocks):
            seen = seen | (key // self.block == self.random_block(query // self.block, number, length))
        if self.global_tokens:
            seen = seen | (query < self.global_tokens) | (key < self.global_tokens)
        return seen

    def random_block(self, query_block: Tensor, number: int, length: Tensor | int) -> Tensor:
        """The block that is drawn as `number` for a block of queries."""
        return drawn(query_block, number) % ((length + (self.block - 1)) // self.block)


def drawn(query_block: Tensor, number: int) -> Tensor:
    """A number below 2^26 for a block of queries: a function of integers (of 64 bits), so that a document sees the same
    random blocks wherever it stands."""
    mixed = (query_block + 1) * 2654435761 + (number + 1) * 97531
    return (((mixed ^ (mixed >> 15)) * 40503) & 0x7FFFFFFF) >> 5
