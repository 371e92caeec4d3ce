"""Positions as distances: what a score gains or loses by how far the key stands from the query."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class DistanceBias(nn.Module):
    """Distances `key - query` (...) -> numbers to add to the scores, (H, ...)."""

    def square(self, length: int, device: torch.device) -> Tensor:
        """For a document, or a row of documents, of `length` tokens: (H, T, T), queries by keys."""
        place = torch.arange(length, device=device)
        every = self(torch.arange(1 - length, length, device=device))
        return every[:, place[None, :] - place[:, None] + (length - 1)]


class OnceBias:
    """A distance bias during one forward pass: what several blocks ask for is made once."""

    def __init__(self, bias: DistanceBias) -> None:
        self.bias = bias
        self._squares: dict[int, Tensor] = {}

    def __call__(self, distance: Tensor) -> Tensor:
        return self.bias(distance)

    def square(self, length: int, device: torch.device) -> Tensor:
        if length not in self._squares:
            self._squares[length] = self.bias.square(length, device)
        return self._squares[length]


class Alibi(DistanceBias):
    """A fixed loss that grows with the distance, to both sides (ALiBi, Press et al. 2022, section 3).

    -slope * |distance|, slopes 2^(-8/H), 2^(-16/H), ... for H heads; for other numbers than powers of two the slopes of
    the next smaller power and every second one of the next larger, as in the authors' code.
    """

    slopes: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        power = 1 << (heads.bit_length() - 1)
        slopes = [2 ** (-8 * (number + 1) / power) for number in range(power)]
        slopes += [2 ** (-4 * (number + 1) / power) for number in range(0, 2 * (heads - power), 2)]
        self.register_buffer("slopes", torch.tensor(slopes), persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        return -self.slopes.view(-1, *[1] * distance.dim()) * distance.abs()


class RelativeBuckets(DistanceBias):
    """A learned number for each head and bucket of distances (T5, Raffel et al. 2020, section 2.1)."""

    def __init__(self, heads: int, buckets: int, reach: int) -> None:
        super().__init__()
        self.buckets, self.reach = buckets, reach
        self.table = nn.Embedding(buckets, heads)

    def forward(self, distance: Tensor) -> Tensor:
        return self.table(t5_bucket(distance, self.buckets, self.reach)).movedim(-1, 0)


def t5_bucket(distance: Tensor, buckets: int, reach: int) -> Tensor:
    """Half of the buckets for keys behind the query. Of each half, one half for exact distances, the other for
    logarithmically growing ranges up to `reach`."""
    half = buckets // 2
    exact = half // 2
    size = distance.abs()
    growing = exact + (torch.log(size.clamp_min(1).float() / exact) / math.log(reach / exact) * (half - exact)).long()
    return torch.where(size < exact, size, growing.clamp_max(half - 1)) + half * (distance > 0)


def deberta_bucket(distance: Tensor, buckets: int, reach: int) -> Tensor:
    """Distances -> -buckets to buckets - 1: exact up to half of them, then growing ranges up to `reach`
    (DeBERTa-v3's log buckets). With `buckets` as large as `reach` all stay exact."""
    if reach <= buckets:
        return distance.clamp(-buckets, buckets - 1)
    middle = buckets // 2
    size = torch.where(distance.abs() < middle, middle - 1, distance.abs())
    # The logarithm of the reach in float32 as well: at the edge of a bucket the last bit decides.
    whole = torch.log(torch.tensor((reach - 1) / middle, device=distance.device))
    growing = torch.ceil(torch.log(size / middle) / whole * (middle - 1)) + middle
    return torch.where(size <= middle, distance, (growing * distance.sign()).long()).clamp(-buckets, buckets - 1)


class LogBuckets(nn.Module):
    """Distances -> the numbers of their vectors among `Distances`, 0 to 2 * buckets - 1."""

    def __init__(self, buckets: int, reach: int) -> None:
        super().__init__()
        self.buckets, self.reach = buckets, reach

    def forward(self, distance: Tensor) -> Tensor:
        return deberta_bucket(distance, self.buckets, self.reach) + self.buckets


class Distances(nn.Module):
    """One learned vector for each bucket of distances, shared by all blocks (DeBERTa, He et al. 2021, section 3.1)."""

    def __init__(self, width: int, buckets: int, *, norm: nn.Module) -> None:
        super().__init__()
        self.table = nn.Embedding(2 * buckets, width)
        self.norm = norm

    def forward(self) -> Tensor:
        """Vectors of all distances: (2 * buckets, D)."""
        return self.norm(self.table.weight)


def disentangled_scores(
    q: Tensor, k: Tensor, distance_keys: Tensor | None, distance_queries: Tensor | None, bucket_QT: Tensor
) -> Tensor:
    """What the positions add to the product of the contents, not yet scaled (He et al. 2021, equation 4).

    `q` (..., H, Q, K) and `k` (..., H, T, K); `distance_keys` and `distance_queries` (H, 2R, K) are the vectors of the
    distances, seen as keys and as queries; `bucket_QT` numbers the distance `query - key` of each pair, from 0.
    """
    found = torch.zeros((), dtype=q.dtype, device=q.device)
    if distance_keys is not None:
        by_query = q @ distance_keys.transpose(-1, -2)  # (..., H, Q, 2R)
        found = found + _picked(by_query, bucket_QT)
    if distance_queries is not None:
        by_key = k @ distance_queries.transpose(-1, -2)  # (..., H, T, 2R)
        found = found + _picked(by_key, bucket_QT.T).transpose(-1, -2)
    return found


def _picked(table: Tensor, index: Tensor) -> Tensor:
    """(..., A, 2R) and (A, B) -> (..., A, B)."""
    return torch.gather(table, -1, index.expand(*table.shape[:-2], *index.shape))


class AdditiveScore(nn.Module):
    """`v . tanh(q + k)`: a query meets a key in a small network (Bahdanau et al. 2015, appendix A.1.2); its two
    matrices are those of queries and keys. (..., H, Q, K) and (..., H, T, K) -> (..., H, Q, T)."""

    def __init__(self, heads: int, key_width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.ones(heads, key_width))

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        together = torch.tanh(q[..., :, None, :] + k[..., None, :, :])
        return torch.einsum("...hqtk,hk->...hqt", together, self.vector.to(together.dtype))
