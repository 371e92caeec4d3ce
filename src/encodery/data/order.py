"""A shuffled order of n rows that is computed, not stored: any stretch of it costs nothing to reach."""

from __future__ import annotations

import hashlib

import numpy as np

_ROUNDS = 4


def shuffled(indices: np.ndarray, size: int, key: tuple[int, ...]) -> np.ndarray:
    """Where the places `indices` of a shuffled order of `size` rows lead: a permutation of 0..size-1.

    The permutation is a Feistel network on the smallest even number of bits that holds `size`, walked until the
    result falls below `size` (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains"). Resuming in the
    middle of an epoch of a billion rows therefore takes no time and no memory.
    """
    half = max(1, (max(2, size) - 1).bit_length() + 1 >> 1)
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8 * _ROUNDS).digest()
    keys = np.frombuffer(digest, dtype=np.uint64)
    result = _feistel(indices.astype(np.uint64), half, keys)
    outside = size <= result
    while outside.any():
        result[outside] = _feistel(result[outside], half, keys)
        outside = size <= result
    return result.astype(np.int64)


def _feistel(values: np.ndarray, half: int, keys: np.ndarray) -> np.ndarray:
    mask = np.uint64((1 << half) - 1)
    left, right = values >> np.uint64(half), values & mask
    for key in keys:
        left, right = right, left ^ (mix64(right + key) & mask)
    return (left << np.uint64(half)) | right


def mix64(values: np.ndarray) -> np.ndarray:
    """A 64-bit finaliser (SplitMix64, Steele et al. 2014): every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
