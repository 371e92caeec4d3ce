"""Numbers scattered evenly: the hash functions of hashed embeddings and of runs of characters."""

from __future__ import annotations

from torch import Tensor

_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)
GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)


def mixed(numbers: Tensor) -> Tensor:
    """Each number (..., int64) to another one that looks random, two to the same never: the finaliser of splitmix64
    (Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators", figure 15)."""
    # Products wrap around; shifts of negative numbers would drag the sign along, so it is masked away.
    x = (numbers ^ ((numbers >> 30) & ((1 << 34) - 1))) * _FIRST
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _SECOND
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def rows_of(numbers: Tensor, rows: int) -> Tensor:
    """A row of 0 to `rows` - 1 for each number, as if drawn at random."""
    return mixed(numbers) % rows
