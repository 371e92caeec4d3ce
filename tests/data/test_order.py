"""The shuffled order is a permutation, differs by key, and any stretch of it can be computed alone."""

from __future__ import annotations

import numpy as np
import pytest

from encodery.data.order import shuffled


def test_it_is_a_permutation_of_every_size() -> None:
    for size in range(1, 301):
        found = shuffled(np.arange(size), size, (1, 0))
        assert np.array_equal(np.sort(found), np.arange(size)), size


@pytest.mark.parametrize("size", [4095, 4096, 4097, 65_537, 1_000_003])
def test_it_is_a_permutation_of_large_sizes(size: int) -> None:
    assert np.array_equal(np.bincount(shuffled(np.arange(size), size, (7,)), minlength=size), np.ones(size))


def test_orders_differ_by_key_and_are_mixed() -> None:
    places = np.arange(10_000)
    orders = [shuffled(places, 10_000, key) for key in ((1, 0), (1, 1), (2, 0), (1, 0, -1))]
    for number, order in enumerate(orders):
        assert abs(np.corrcoef(places, order)[0, 1]) < 0.05
        assert (order == places).mean() < 0.01
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
        for other in orders[number + 1 :]:
            assert (order == other).mean() < 0.01


def test_a_stretch_of_a_billion_rows_costs_nothing() -> None:
    size = 1_000_000_007
    stretch = shuffled(np.arange(size - 1000, size), size, (3, 5))
    assert np.array_equal(stretch, shuffled(np.arange(size - 1000, size)[::-1].copy(), size, (3, 5))[::-1])
    assert np.unique(stretch).size == 1000 and stretch.min() >= 0 and stretch.max() < size


def test_the_order_of_a_key_never_changes() -> None:
    """A run resumed by a later version must see the same order."""
    assert shuffled(np.arange(10), 10, (1, 0)).tolist() == [0, 1, 2, 6, 4, 5, 3, 7, 9, 8]
