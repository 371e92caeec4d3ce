"""Least squares for shared rows, ridge regression, and vectors carried over from one space to another."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from encodery.frontends.fitting import carried_over, least_squares, linear_map, whitening


def test_least_squares_are_those_of_the_normal_equations() -> None:
    rng = np.random.default_rng(0)
    design = sparse.random(60, 20, density=0.15, random_state=1, format="csr")
    wanted, weight = rng.normal(size=(60, 5)), rng.uniform(0.1, 3, size=60)
    found = least_squares(design, wanted, weight, rounds=100, ridge=0.1)
    dense, share = design.toarray(), weight / weight.mean()
    square = dense.T @ (share[:, None] * dense)
    square += 0.1 * np.diag(square).mean() * np.eye(20)
    expected = np.linalg.solve(square, dense.T @ (share[:, None] * wanted))
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_rows_that_nobody_uses_stay_finite() -> None:
    design = sparse.csr_matrix((3, 4), dtype=np.float32)
    assert np.array_equal(least_squares(design, np.ones((3, 2)), np.ones(3)), np.zeros((4, 2)))


def test_a_linear_map_is_found_again() -> None:
    rng = np.random.default_rng(0)
    inputs, matrix = rng.normal(size=(200, 6)), rng.normal(size=(6, 3))
    found = linear_map(inputs, inputs @ matrix, rng.uniform(0.5, 2, size=200), ridge=1e-9)
    np.testing.assert_allclose(found, matrix, atol=1e-6)


def test_whitened_columns_are_uncorrelated_and_of_spread_1() -> None:
    rng = np.random.default_rng(0)
    inputs, weight = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)), rng.uniform(0.1, 2, size=500)
    inputs -= np.average(inputs, axis=0, weights=weight)
    white = inputs @ whitening(inputs, weight, ridge=0.0)
    np.testing.assert_allclose((white * weight[:, None]).T @ white / weight.sum(), np.eye(6), atol=1e-6)
    one = whitening(inputs[:, :1] * [1.0, 1.0], weight, ridge=0.1)
    assert np.isfinite(one).all()  # two columns that are one


def test_vectors_are_carried_over_into_a_space_that_is_turned() -> None:
    """What is known of most tokens in both spaces tells where the others are in the second."""
    rng = np.random.default_rng(0)
    beside = rng.normal(size=(300, 10)).astype(np.float32)
    turn, _ = np.linalg.qr(rng.normal(size=(10, 10)))
    true = (3 * beside @ turn + 1).astype(np.float32)
    there = np.arange(300) < 200
    weight = rng.uniform(0.0, 5.0, size=300)
    found = carried_over(np.where(there[:, None], true, 0.0), there, beside, weight + 1e-3)
    np.testing.assert_array_equal(found[there], true[there])
    alike = (found * true).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(true, axis=1)
    assert alike[~there].min() > 0.98
    assert found[~there].std() == pytest.approx(true.std(), rel=0.1)


def test_one_known_token_is_enough_to_go_on() -> None:
    known = np.zeros((5, 3), np.float32)
    known[2] = 1.0
    found = carried_over(known, np.arange(5) == 2, np.eye(5, 4, dtype=np.float32), np.ones(5))
    assert np.isfinite(found).all() and np.array_equal(found[2], known[2])
