"""Late interaction: vectors of positions, and how well those of one text are found in another (MaxSim)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.batch import Batch, Layout, Output, States
from encodery.bricks.layers import initialise
from encodery.bricks.pooling import sum_by_owner
from encodery.bricks.products import Linear
from encodery.heads.vector_options import TokenReadoutConfig

NUMBERS_AT_ONCE = 1 << 25
"""Similarities of positions that are held at a time when no gradient is asked for."""


class LearnedScale(nn.Module):
    """A number that similarities are multiplied with, kept as its logarithm and at most 100 (Radford et al. 2021, CLIP,
    section 2.5)."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(start).log())

    def forward(self) -> Tensor:
        return self.log.exp().clamp(max=100.0)


class TokenReadout(nn.Module):
    """States -> a vector of length 1 for each position, (P, K), through a linear layer without bias (Khattab and
    Zaharia 2020, section 3.2). All positions count, those of special tokens too."""

    def __init__(self, config: TokenReadoutConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.project = Linear(width, config.outputs, bias=False)
        self.scale = None if config.scale is None else LearnedScale(config.scale)

    def initialise(self, generator: torch.Generator) -> None:
        initialise(self, std=0.02, depth=1, generator=generator)

    def forward(self, states: States, batch: Batch) -> Output:
        del batch
        tokens_PK = F.normalize(self.project(states.vectors).float(), dim=-1)
        scale = None if self.scale is None else self.scale()
        return Output(tokens=tokens_PK, scale=scale, balance=states.balance)


@dataclass(frozen=True)
class Ragged:
    """The vectors of N texts behind each other: `vectors` (T, K), `owner` (T,) the text of each, ascending from 0."""

    vectors: Tensor
    owner: Tensor
    texts: int

    @classmethod
    def of(cls, tokens_PK: Tensor, layout: Layout) -> Ragged:
        """Those of a batch, padding left out."""
        places = torch.nonzero(layout.document >= 0)[:, 0]
        return cls(tokens_PK[places], layout.document[places], layout.documents)

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """The texts of several, in order."""
        before, owners = 0, []
        for part in parts:
            owners.append(part.owner + before)
            before += part.texts
        return cls(torch.cat([part.vectors for part in parts]), torch.cat(owners), before)

    @property
    def lengths(self) -> Tensor:
        """Vectors of each text, (N,)."""
        return torch.bincount(self.owner, minlength=self.texts)

    def taken(self, chosen: Tensor) -> Ragged:
        """The texts of these numbers, in this order; each may come more than once."""
        lengths = self.lengths
        starts = lengths.cumsum(0) - lengths
        wanted = lengths[chosen]
        owner = torch.repeat_interleave(torch.arange(chosen.numel(), device=chosen.device), wanted)
        inside = torch.arange(owner.numel(), device=chosen.device) - (wanted.cumsum(0) - wanted)[owner]
        return Ragged(self.vectors[starts[chosen][owner] + inside], owner, chosen.numel())

    def padded(self) -> tuple[Tensor, Tensor]:
        """(N, longest, K), zeros behind each text, and which of them are real, (N, longest)."""
        lengths = self.lengths
        inside = torch.arange(self.owner.numel(), device=self.owner.device) - (lengths.cumsum(0) - lengths)[self.owner]
        longest = int(lengths.max()) if self.texts else 0
        real = torch.arange(longest, device=self.owner.device) < lengths[:, None]
        laid = self.vectors.new_zeros(self.texts, longest, self.vectors.shape[1])
        return laid.index_put((self.owner, inside), self.vectors), real


def maxsim(queries: Ragged, documents: Ragged) -> Tensor:
    """Each query against each document, (queries, documents) float32: the mean over the query's positions of the
    largest product with any position of the document.

    Khattab and Zaharia 2020 (ColBERT), equation 3, sum these up; the mean ranks the documents of a query the same and
    stays between -1 and 1 for vectors of length 1, whatever the length of the query.
    """
    order = torch.argsort(documents.lengths, stable=True)
    lengths = documents.lengths[order].tolist()
    positions = max(1, queries.owner.numel())
    columns, begin = [], 0
    while begin < documents.texts:
        # Texts of like length beside each other: little of what is multiplied is padding.
        end = begin + 1
        while end < documents.texts and (end + 1 - begin) * lengths[end] * positions <= NUMBERS_AT_ONCE:
            end += 1
        columns.append(_largest(queries, documents.taken(order[begin:end])))
        begin = end
    if not columns:
        return queries.vectors.new_zeros(queries.texts, 0, dtype=torch.float32)
    back = torch.argsort(order)
    found = sum_by_owner(torch.cat(columns, 1), queries.owner, queries.texts)
    return found[:, back] / queries.lengths[:, None]


def _largest(queries: Ragged, documents: Ragged) -> Tensor:
    """The largest product of each position of the queries with those of each document, (T, documents)."""
    laid, real = documents.padded()
    with torch.autocast(laid.device.type, enabled=False):
        products = queries.vectors.float() @ laid.flatten(0, 1).float().t()
    products = products.view(-1, *real.shape).masked_fill(~real, -torch.inf)
    return products.max(-1).values


def paired_maxsim(queries: Ragged, documents: Ragged) -> Tensor:
    """Each query against the document of its own number, (N,) float32."""
    left, seen = queries.padded()
    right, real = documents.padded()
    with torch.autocast(left.device.type, enabled=False):
        products = torch.bmm(left.float(), right.float().transpose(1, 2)).masked_fill(~real[:, None], -torch.inf)
    largest = products.max(-1).values.masked_fill(~seen, 0.0)
    return largest.sum(1) / queries.lengths
