"""Tables that turn token ids into vectors: a row for each token, rows shared by hashing, rows that stand still."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from encodery.frontends.fitting import least_squares
from encodery.frontends.hashing import rows_of

# Gradients of all tables are dense. A step of AdamW takes 9 ms for 32,768 rows of 256 numbers and 17 ms for 131,072,
# one of SparseAdam for the 9,000 rows that a batch with a word readout touches 30 ms (one thread); it wins from half
# a million rows on.


class LearnedTable(nn.Embedding):
    """A learned vector for each token: (P,) -> (P, E)."""

    def initialise(self, std: float, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.weight.normal_(0.0, std, generator=generator)

    def matrix(self) -> Tensor:
        """The vectors of all tokens, (V, E)."""
        return self.weight

    @torch.no_grad()
    def start(self, wanted: np.ndarray, weight: np.ndarray) -> None:
        """Begin with the vectors `wanted` (V, E)."""
        del weight
        self.weight.copy_(torch.from_numpy(wanted))


class HashedTable(nn.Module):
    """A token's vector is a weighted sum of rows that it shares with others: (P,) -> (P, E).

    e(w) = sum_i p_i(w) T[h_i(w)]   (Svenstrup et al. 2017, "Hash Embeddings for Efficient Word Representations", eq. 1)

    `hashes` functions h_i choose among `rows` rows of the table T, and the token's own weights p(w) make it differ from
    the tokens it meets in one of them. The weights lie in `weights` rows, so the memory does not grow with V; beyond
    as many tokens two share theirs.
    """

    def __init__(self, vocab_size: int, width: int, *, rows: int, hashes: int, weights: int) -> None:
        super().__init__()
        self.vocab_size, self.hashes = vocab_size, hashes
        self.table = nn.Parameter(torch.empty(rows, width))
        self.importance = nn.Parameter(torch.empty(weights, hashes))

    def initialise(self, std: float, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.table.normal_(0.0, std / math.sqrt(self.hashes), generator=generator)
            self.importance.normal_(0.0, 1.0, generator=generator)

    def rows(self, ids_P: Tensor) -> Tensor:
        """The rows of the table that make each token, (P, hashes)."""
        number = torch.arange(self.hashes, device=ids_P.device)
        return rows_of(ids_P[:, None] * self.hashes + number, self.table.shape[0])

    def forward(self, ids_P: Tensor) -> Tensor:
        weight = F.embedding(ids_P % self.importance.shape[0], self.importance)
        return F.embedding_bag(self.rows(ids_P), self.table, per_sample_weights=weight, mode="sum")

    def matrix(self) -> Tensor:
        """The vectors of all tokens, (V, E), made anew."""
        return self(torch.arange(self.vocab_size, device=self.table.device))

    @torch.no_grad()
    def start(self, wanted: np.ndarray, weight: np.ndarray) -> None:
        """Begin near the vectors `wanted` (V, E), nearest for tokens of much `weight` (V,)."""
        ids = torch.arange(self.vocab_size)
        rows = self.rows(ids).reshape(-1).numpy()
        share = self.importance.cpu()[ids % self.importance.shape[0]].reshape(-1).numpy()
        begins = np.arange(0, rows.size + 1, self.hashes)
        design = sparse.csr_matrix((share, rows, begins), shape=(self.vocab_size, self.table.shape[0]))
        self.table.copy_(torch.from_numpy(least_squares(design, wanted, weight)))


class StillTable(nn.Module):
    """Vectors read from a file stand still, those of the other tokens are learned: (P,) -> (P, E).

    `still` (F, E) are the read rows and `words` (V - F, E) the learned ones; `place` (V,) says which row is whose:
    below F one of `still`, from F on one of `words`.
    """

    still: Tensor
    place: Tensor

    def __init__(self, vocab_size: int, width: int, *, rows: int) -> None:
        super().__init__()
        self.words = LearnedTable(vocab_size - rows, width)
        self.register_buffer("still", torch.zeros(rows, width))
        self.register_buffer("place", torch.arange(vocab_size))

    def initialise(self, std: float, generator: torch.Generator) -> None:
        self.words.initialise(std, generator)
        self.still.normal_(0.0, std, generator=generator)

    def forward(self, ids_P: Tensor) -> Tensor:
        rows = self.still.shape[0]
        place = self.place[ids_P]
        learned = F.embedding((place - rows).clamp_min(0), self.words.weight)
        if not rows:
            return learned
        read = F.embedding(place.clamp_max(rows - 1), self.still)
        return torch.where((place < rows)[:, None], read, learned)

    def matrix(self) -> Tensor:
        """The vectors of all tokens, (V, E)."""
        return torch.cat([self.still, self.words.weight])[self.place]

    @torch.no_grad()
    def hold(self, ids: Iterable[int], vectors: np.ndarray) -> None:
        """Let the tokens `ids` (F,) have the `vectors` (F, E) for good."""
        held = torch.as_tensor(list(ids))
        assert held.shape == self.still.shape[:1], "as many tokens as rows that stand still"
        self.still.copy_(torch.from_numpy(vectors))
        others = torch.ones(self.place.numel(), dtype=torch.bool)
        others[held] = False
        self.place[held] = torch.arange(held.numel())
        self.place[others] = torch.arange(held.numel(), self.place.numel())

    @torch.no_grad()
    def start(self, wanted: np.ndarray, weight: np.ndarray) -> None:
        """The learned rows begin with theirs of the vectors `wanted` (V, E)."""
        del weight
        place = self.place.cpu()
        self.words.weight.copy_(torch.from_numpy(wanted)[torch.argsort(place)[self.still.shape[0] :]])
