"""Embeddings that are computed, fitted to vectors that are known: what gives each kind the same good start."""

from __future__ import annotations

from typing import Any

import numpy as np


def least_squares(
    design: Any, wanted: np.ndarray, weight: np.ndarray, *, rounds: int = 20, ridge: float = 0.1
) -> np.ndarray:
    """The table T (R, E) for which `design @ T` (V, E) comes near `wanted`, tokens weighted by `weight` (V,). `design`
    is a sparse matrix of scipy, (V, R).

    Conjugate gradients on the normal equations, all columns side by side (Hestenes and Stiefel 1952); `ridge` times the
    mean of their diagonal keeps rows small that few tokens use. Twenty rounds are far from exact and as good a start.
    """
    share = (weight / weight.mean()).astype(np.float32)
    design = design.astype(np.float32)
    across = design.T.tocsr()
    diagonal = np.asarray(across.multiply(across) @ share).ravel()
    small = ridge * float(diagonal.mean())
    table = np.zeros((design.shape[1], wanted.shape[1]), np.float32)
    left = across @ (share[:, None] * wanted.astype(np.float32))
    towards, size = left.copy(), (left * left).sum(axis=0)
    for _ in range(rounds):
        image = across @ (share[:, None] * (design @ towards)) + small * towards
        step = size / np.maximum((towards * image).sum(axis=0), 1e-20)
        table += step * towards
        left -= step * image
        before, size = size, (left * left).sum(axis=0)
        towards = left + (size / np.maximum(before, 1e-20)) * towards
    return table


def linear_map(inputs: np.ndarray, wanted: np.ndarray, weight: np.ndarray, *, ridge: float) -> np.ndarray:
    """The matrix M (F, E) for which `inputs @ M` comes nearest to `wanted` (n, E), rows weighted by `weight` (n,).

    Ridge regression, the penalty `ridge` times the mean square of a column of `inputs`.
    """
    share = (weight / weight.sum())[:, None]
    x, y = inputs.astype(np.float64), wanted.astype(np.float64)
    square = (share * x).T @ x
    square += (ridge * np.trace(square) / len(square) + 1e-12) * np.eye(len(square))
    return np.linalg.solve(square, (share * x).T @ y)


def whitening(inputs: np.ndarray, weight: np.ndarray, *, ridge: float) -> np.ndarray:
    """The symmetric matrix W (F, F) for which the columns of `inputs @ W` are uncorrelated and of spread 1, as far as
    they are larger than `ridge` times the mean variance; rows count by `weight` (n,), and have mean 0."""
    share = (weight / weight.sum())[:, None]
    x = inputs.astype(np.float64)
    variance, directions = np.linalg.eigh((share * x).T @ x)
    variance = np.maximum(variance, 0.0) + ridge * variance.mean() + 1e-12
    return (directions / np.sqrt(variance)) @ directions.T


def carried_over(known: np.ndarray, there: np.ndarray, beside: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Vectors for all tokens in the space of `known` (V, E), whose rows count where `there` (V,) is true.

    A linear map from other vectors of all tokens, `beside` (V, F), learned where both are known: two spaces that were
    made from the same language differ by little more (Mikolov et al. 2013, "Exploiting Similarities among Languages for
    Machine Translation", section 4). What it gives has the spread of the known rows.
    """
    x, y = beside[there].astype(np.float64), known[there].astype(np.float64)
    center = np.average(y, axis=0, weights=weight[there])
    matrix = linear_map(x, y - center, weight[there], ridge=1e-2)
    guessed = beside.astype(np.float64) @ matrix
    spread = float((y - center).std()) / max(float((x @ matrix).std()), 1e-12)
    return np.where(there[:, None], known, guessed * spread + center).astype(np.float32)
