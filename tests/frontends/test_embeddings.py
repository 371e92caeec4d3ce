"""Tables of embeddings: hashed ones against the formula, rows that stand still while the others learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from encodery.frontends.embeddings import HashedTable, LearnedTable, StillTable
from encodery.frontends.hashing import mixed, rows_of

IDS = torch.tensor([3, 0, 7, 7, 19, 5])


def drawn(table: torch.nn.Module) -> torch.nn.Module:
    table.initialise(0.1, torch.Generator().manual_seed(1))  # type: ignore[operator]
    return table


def test_mixing_is_splitmix64() -> None:
    """The finaliser, against Python's whole numbers without limit."""

    def plainly(x: int) -> int:
        mask = (1 << 64) - 1
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    given = [0, 1, 2, 12345, (1 << 62) + 17, -1, -(1 << 63)]
    found = mixed(torch.tensor(given)).tolist()
    assert [number % (1 << 64) for number in found] == [plainly(number % (1 << 64)) for number in given]


def test_rows_are_spread_evenly_and_hash_functions_are_independent() -> None:
    rows = rows_of(torch.arange(40_000)[:, None] * 2 + torch.arange(2), 100)
    counts = torch.bincount(rows[:, 0], minlength=100).double()
    assert counts.numel() == 100 and float((counts - 400).square().sum() / 400) < 160  # chi square, 99 degrees
    # Two tokens that meet in the first table meet in the second as rarely as any others.
    first = rows[rows[:, 0] == 7, 1]
    assert torch.bincount(first, minlength=100).max() < 20


def test_a_hashed_vector_is_the_weighted_sum_of_its_rows() -> None:
    table = drawn(HashedTable(20, 6, rows=8, hashes=3, weights=11))
    assert isinstance(table, HashedTable)
    found = table(IDS)
    for place, token in enumerate(IDS.tolist()):
        rows = [int(rows_of(torch.tensor(token * 3 + number), 8)) for number in range(3)]
        weights = table.importance[token % 11]
        expected = sum(weight * table.table[row] for weight, row in zip(weights, rows))
        torch.testing.assert_close(found[place], expected)
    torch.testing.assert_close(table.matrix()[IDS], found)
    many = drawn(HashedTable(2000, 16, rows=500, hashes=3, weights=2000))
    assert float(many.matrix().detach().std()) == pytest.approx(0.1, rel=0.1)  # type: ignore[operator]


def test_the_memory_of_hashed_tables_does_not_grow_with_the_vocabulary() -> None:
    sizes = [
        sum(p.numel() for p in HashedTable(vocabulary, 6, rows=8, hashes=2, weights=16).state_dict().values())
        for vocabulary in (10, 100_000)
    ]
    assert sizes == [8 * 6 + 16 * 2] * 2


def test_a_hashed_table_starts_near_given_vectors() -> None:
    rng = np.random.default_rng(0)
    wanted = (rng.normal(size=(300, 4)) @ rng.normal(size=(4, 16))).astype(np.float32)
    table = drawn(HashedTable(300, 16, rows=400, hashes=2, weights=300))
    weight = np.ones(300)
    weight[:50] = 10.0
    table.start(wanted, weight)  # type: ignore[operator]
    with torch.no_grad():
        error = (table.matrix().numpy() - wanted) ** 2  # type: ignore[operator]
    assert error.sum() < 0.6 * (wanted**2).sum()
    assert error[:50].mean() < 0.2 * (wanted**2).mean()


def test_rows_of_a_file_stand_still_and_the_others_learn() -> None:
    table = StillTable(20, 6, rows=3)
    drawn(table)
    given = np.arange(18, dtype=np.float32).reshape(3, 6)
    table.hold([7, 3, 19], given)
    before = table.matrix().detach().clone()
    np.testing.assert_array_equal(before[[7, 3, 19]], given)
    torch.testing.assert_close(table(IDS), before[IDS])
    optimizer = torch.optim.AdamW(table.parameters(), lr=0.1)
    table(torch.arange(20)).square().sum().backward()
    optimizer.step()
    after = table.matrix().detach()
    moved = (after != before).any(dim=1)
    assert (~moved).nonzero()[:, 0].tolist() == [3, 7, 19]
    assert sum(p.numel() for p in table.parameters()) == 17 * 6
    table.start(np.full((20, 6), 5, np.float32), np.ones(20))
    assert (table.matrix()[moved] == 5).all() and torch.equal(table.matrix()[[3, 7, 19]], before[[3, 7, 19]])


def test_a_table_of_which_no_row_stands_still_is_a_learned_one() -> None:
    still, learned = StillTable(20, 6, rows=0), LearnedTable(20, 6)
    drawn(still), drawn(learned)
    assert torch.equal(still(IDS), learned(IDS)) and torch.equal(still.matrix(), learned.matrix())
