"""Sources and targets -> rows of constant lengths on both sides, with the same documents in row r of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from encodery.data.packing import GROUP_BATCHES, ROW_LENGTHS, BatchPlan

WASTE = 0.04
"""The shortest rows that leave less padding than this on both sides are used."""
GRAIN = 2
"""The length of the shorter side is a multiple of this: the two lengths have nearly the ratio of the data."""
CLOSED = 0.02
"""A row that is this empty needs no further look for what would fill it better."""
PAIRED = 40
"""Kinds among which two are looked for that fill the rest of a row together."""
PROBED = 2000
"""Pairs on which the lengths of rows are settled."""


@dataclass(frozen=True, slots=True)
class PairPlan(BatchPlan):
    """A batch of pairs to be: rows of `length` positions for sources beside rows of `target_length` for targets."""

    target_length: int


@dataclass(frozen=True)
class PairShape:
    """The rows of a run: `rows` of `source` and `target` positions; for longer pairs half as many rows that are twice
    as long on both sides, and so on, `doublings` times."""

    rows: int
    source: int
    target: int
    doublings: int

    @property
    def budgets(self) -> tuple[int, int]:
        """Positions of a batch for sources and for targets."""
        return self.rows * self.source, self.rows * self.target


def settled_shape(lengths_N2: np.ndarray, budget: int, most: tuple[int, int]) -> PairShape:
    """The rows for pairs of these lengths (sources, targets): about `budget` positions a batch on both sides together,
    with room for a pair that is `most` long.

    The longer side gets a row length of packing.py, the other one in the ratio of all tokens. Attention costs grow with
    the row, so the first lengths that waste little are taken.
    """
    probe = lengths_N2[np.linspace(0, len(lengths_N2) - 1, min(PROBED, len(lengths_N2))).astype(int)]
    total = lengths_N2.sum(axis=0)
    long_side = int(total[1] > total[0])
    ratio = total[1 - long_side] / max(1, total[long_side])
    best: tuple[float, PairShape] | None = None
    for length in ROW_LENGTHS:
        sides = [0, 0]
        sides[long_side] = length
        sides[1 - long_side] = max(GRAIN, round(length * ratio / GRAIN) * GRAIN)
        shape = _shape((sides[0], sides[1]), budget, most)
        if best is not None and sum(sides) << shape.doublings > max(budget, sum(most) * 2):
            break
        waste = _waste(probe, shape)
        if best is None or waste < best[0]:
            best = (waste, shape)
        if waste <= WASTE:
            break
    assert best is not None
    return best[1]


def _shape(sides: tuple[int, int], budget: int, most: tuple[int, int]) -> PairShape:
    doublings = 0
    while sides[0] << doublings < most[0] or sides[1] << doublings < most[1]:
        doublings += 1
    step = 1 << doublings
    return PairShape(max(1, round(budget / sum(sides) / step)) * step, *sides, doublings)


def _waste(lengths_N2: np.ndarray, shape: PairShape) -> float:
    """The larger of the shares of padding on the two sides, in the rows of the shortest length."""
    fits = (lengths_N2 <= (shape.source, shape.target)).all(axis=1)
    if not fits.any():
        return 1.0
    shelf = PairShelf(lengths_N2, np.flatnonzero(fits))
    rows = [shelf.fill_row((shape.source, shape.target)) for _ in iter(lambda: bool(shelf.left), False)]
    full = rows[: max(1, len(rows) - 2)]  # the last ones hold what was left over
    used = lengths_N2[[number for row in full for number in row]].sum(axis=0)
    return float(max(1 - used / (len(full) * np.array([shape.source, shape.target]))))


def plan_pairs(lengths_N2: np.ndarray, shape: PairShape) -> list[PairPlan]:
    """Place every pair once. Pairs that stand near each other in the given (shuffled) order come into the same batch;
    what a group leaves in an incomplete batch goes to the next group."""
    plans: list[PairPlan] = []
    waiting: list[int] = []
    filled = np.zeros(2, dtype=np.int64)
    enough = GROUP_BATCHES * np.array(shape.budgets)
    for number, both in enumerate(lengths_N2):
        waiting.append(number)
        filled += both
        if (filled >= enough).any():
            *complete, last = _plan_group(lengths_N2, waiting, shape)
            plans += complete
            waiting = sorted(number for row in last.rows for number in row)
            filled = lengths_N2[waiting].sum(axis=0)
    return plans + (_plan_group(lengths_N2, waiting, shape) if waiting else [])


def _plan_group(lengths_N2: np.ndarray, numbers: list[int], shape: PairShape) -> list[PairPlan]:
    """Long rows first, with shorter pairs in their gaps; then the shortest rows, in batches that mix them."""
    shelf = PairShelf(lengths_N2, np.array(numbers))
    plans: list[PairPlan] = []
    for doubling in range(shape.doublings, 0, -1):
        source, target = shape.source << doubling, shape.target << doubling
        shorter = (source >> 1, target >> 1)
        while shelf.has_longer_than(shorter):
            rows = _rows(shelf, (source, target), shape.rows >> doubling, shorter)
            plans.append(PairPlan(source, rows, target))
    rows = _rows(shelf, (shape.source, shape.target), len(numbers))
    # Rows were filled from long pairs to short ones; the last one, which may be nearly empty, stays the last.
    order = [*np.random.default_rng(len(rows)).permutation(max(0, len(rows) - 1)).tolist(), len(rows) - 1]
    mixed = [rows[place] for place in order if rows]
    for start in range(0, len(mixed), shape.rows):
        plans.append(PairPlan(shape.source, mixed[start : start + shape.rows], shape.target))
    return plans


def _rows(shelf: PairShelf, room: tuple[int, int], most: int, beyond: tuple[int, int] | None = None) -> list[list[int]]:
    rows: list[list[int]] = []
    while len(rows) < most and shelf.left:
        rows.append(shelf.fill_row(room, beyond))
    return rows


class PairShelf:
    """Pairs by their two lengths; gives out those that leave the least of a row empty on the emptier side."""

    def __init__(self, lengths_N2: np.ndarray, numbers: np.ndarray) -> None:
        kinds, kind = np.unique(lengths_N2[numbers], axis=0, return_inverse=True)
        assert (kinds > 0).all(), "a source or a target has no tokens"
        self._kinds = kinds.astype(np.int64)
        order = np.argsort(kind.reshape(-1), kind="stable")[::-1]
        self._numbers = np.split(numbers[order], np.cumsum(np.bincount(kind.reshape(-1))[::-1])[:-1])[::-1]
        self._stock = [list(part) for part in self._numbers]  # the first to arrive is given out first
        self._count = np.array([len(part) for part in self._stock])
        self.left = int(self._count.sum())

    def has_longer_than(self, room: tuple[int, int]) -> bool:
        """Whether a pair is left that is longer on one of the sides."""
        return bool(((self._kinds > room).any(axis=1) & (self._count > 0)).any())

    def fill_row(self, room: tuple[int, int], beyond: tuple[int, int] | None = None) -> list[int]:
        """Best fit on both sides: of the pairs that fit, the one that leaves the least room on the side with more of
        it, and as even as can be. A row begins with a pair that is `beyond` shorter rows, while there are some."""
        row: list[int] = []
        left = np.array(room, dtype=np.int64)
        while True:
            fits = (self._count > 0) & (self._kinds <= left).all(axis=1)
            if beyond is not None and not row:
                longer = fits & (self._kinds > beyond).any(axis=1)
                fits = longer if longer.any() else fits
            fitting = np.flatnonzero(fits)
            if not fitting.size:
                return row
            kind = self._best(fitting, left, np.array(room))
            row.append(int(self._stock[kind].pop()))
            self._count[kind] -= 1
            self.left -= 1
            left -= self._kinds[kind]

    def _best(self, fitting: np.ndarray, left: np.ndarray, room: np.ndarray) -> int:
        """The kind to take of those that fit. Where two more may fill the row better than one, the first of the two."""
        kinds = self._kinds[fitting]
        alone = _emptiness((left - kinds) / room)
        best = int(np.argmin(alone))
        if alone[best] <= CLOSED or (left > 2 * kinds.max(axis=0)).any():
            return int(fitting[best])
        some = np.unique(np.linspace(0, len(fitting) - 1, PAIRED).astype(int))
        two = kinds[some][:, None] + kinds[some][None]
        together = np.where((two <= left).all(axis=2), _emptiness((left - two) / room), np.inf)
        once = self._count[fitting[some]] < 2
        together[once, once] = np.inf
        first, _ = np.unravel_index(np.argmin(together), together.shape)
        return int(fitting[some[first]] if together.min() < alone[best] else fitting[best])


def _emptiness(rest: np.ndarray) -> np.ndarray:
    """What is left of a row, (..., 2) shares -> (...): mostly of the emptier side, and how uneven the sides are."""
    return rest.max(axis=-1) + 0.5 * abs(rest[..., 0] - rest[..., 1])
