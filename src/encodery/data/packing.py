"""Samples -> Batch: fill rows of constant length with whole documents, so that hardly any padding is left."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from encodery.batch import Batch, Layout, Sample, layout_of
from encodery.errors import DataError

ROW_LENGTHS = (64, 128, 256, 512)
"""The shortest row is the first of these that leaves less padding than WASTE; longer ones are powers of two."""
SHORTEST_ROW = 16
"""Of a few short texts that are answered alone."""
WASTE = 0.03
ROW_WASTE = 0.06
"""A shortest row with a larger empty part is not used."""
GROUP_BATCHES = 16
"""So many batches are packed together: enough to fill rows well, few enough to stay mixed."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """One batch to be: `rows` of `length` positions, each a list of sample numbers."""

    length: int
    rows: list[list[int]]


def longest_row(max_length: int) -> int:
    """The row that holds the longest sample: a power of two. A token budget is a multiple of it."""
    return max(SHORTEST_ROW, 1 << (max_length - 1).bit_length())


def rounded_budget(tokens: int, max_length: int) -> int:
    """A token budget of at least `tokens`: a multiple of the longest row."""
    row = longest_row(max_length)
    return -(-tokens // row) * row


def plan_batches(lengths: np.ndarray, budget: int, max_length: int) -> list[BatchPlan]:
    """Place every sample once into batches of `budget` positions.

    Attention costs grow with the row, so short documents should live in short rows; but a row little longer than
    its documents cannot be filled. The shortest row length is therefore the first that wastes little. Few row
    lengths mean few shapes, and each new shape costs compilation. `budget` must be a multiple of `longest_row`.
    """
    longest = longest_row(max_length)
    assert budget % longest == 0, f"budget {budget} is not a multiple of the longest row {longest}"
    real = int(lengths.sum())
    best: list[BatchPlan] = []
    shortest_rows = [size for size in ROW_LENGTHS if size <= max(longest, budget) and budget % size == 0]
    for shortest in shortest_rows or [longest]:
        sizes = [shortest]
        while sizes[-1] < longest:
            sizes.append(2 * sizes[-1])
        plans = _plan(lengths, budget, sizes)
        if not best or len(plans) < len(best):
            best = plans
        # The last batch may be partly empty whatever the row length, so it does not count as waste.
        if (len(plans) - 1) * budget * (1 - WASTE) <= real:
            break
    return best


def plan_rows_together(rows: Sequence[int], lengths: np.ndarray, budget: int) -> list[BatchPlan]:
    """Place samples so that those of one row of the data (`rows` (samples,), neighbours) come in one batch: they are
    packed as one, side by side.

    Raises DataError when the budget is no multiple of the power of two that holds the longest row.
    """
    edges = np.flatnonzero(np.diff(np.asarray(rows), prepend=-1, append=-1))
    totals = np.add.reduceat(lengths, edges[:-1])
    longest = longest_row(int(totals.max()))
    if budget % longest:
        raise DataError(
            f"the texts of one row take {int(totals.max()):,} positions together, a batch has {budget:,}",
            expected=f"training.batch_tokens of {longest:,} or a multiple of it, or shorter texts",
            fix="change training.batch_tokens, lower encoder.max_length, or give fewer texts a row",
        )
    plans = plan_batches(totals, budget, int(totals.max()))
    members = [list(range(begin, end)) for begin, end in pairwise(edges.tolist())]
    return [
        BatchPlan(plan.length, [[one for number in row for one in members[number]] for row in plan.rows])
        for plan in plans
    ]


def _plan(lengths: np.ndarray, budget: int, sizes: list[int]) -> list[BatchPlan]:
    """Plan in groups of consecutive samples, so that a batch holds what stands near each other in a shuffled order
    and not what has the same length. What a group leaves in an incomplete batch goes to the next group."""
    plans: list[BatchPlan] = []
    waiting: list[int] = []
    tokens = 0
    for number, length in enumerate(lengths.tolist()):
        waiting.append(number)
        tokens += length
        if tokens >= GROUP_BATCHES * budget:
            *complete, last = _plan_group(lengths, waiting, budget, sizes)
            plans += complete
            waiting = sorted(number for row in last.rows for number in row)
            tokens = int(lengths[waiting].sum())
    return plans + _plan_group(lengths, waiting, budget, sizes)


def _plan_group(lengths: np.ndarray, numbers: list[int], budget: int, sizes: list[int]) -> list[BatchPlan]:
    """Long rows take shorter samples into their gaps, and a batch that lacks long samples is completed with shorter
    ones. Of the shortest rows only the well filled ones are used: what they would waste on goes into rows twice as
    long, where more samples find together. So only the very last batch is partly empty."""
    shelf = _Shelf(lengths, numbers)
    plans: list[BatchPlan] = []
    for size, shorter in zip(reversed(sizes), [*reversed(sizes[:-1]), 0]):
        # A batch of this row length is begun as long as a sample needs rows this long.
        if shorter == 0 and budget % (2 * size) == 0:
            well_filled, enough = _well_filled(shelf, size, budget)
            plans += well_filled
            size = size if enough else 2 * size
        while shorter < shelf.longest:
            rows: list[list[int]] = []
            while len(rows) < budget // size and shelf.longest:
                rows.append(shelf.fill_row(size))
            plans.append(BatchPlan(size, rows))
    return plans


def _well_filled(shelf: _Shelf, size: int, budget: int) -> tuple[list[BatchPlan], bool]:
    """Whole batches of the rows that waste little; all other samples go back to the shelf. True when one more batch
    of such rows would hold these."""
    rows: list[list[int]] = []
    aside: list[int] = []
    while shelf.longest:
        row = shelf.fill_row(size)
        if shelf.length_of(row) >= (1 - ROW_WASTE) * size:
            rows.append(row)
        else:
            aside.append(row[0])
            shelf.put_back(row[1:])
    whole = budget // size
    plans = [BatchPlan(size, rows[start : start + whole]) for start in range(0, len(rows) - whole + 1, whole)]
    rest = rows[len(plans) * whole :]
    shelf.put_back([number for row in rest for number in row] + aside)
    return plans, len(rest) + len(aside) <= whole


class _Shelf:
    """Sample numbers sorted by length; gives out the longest ones that fit, in order of arrival."""

    def __init__(self, lengths: np.ndarray, numbers: list[int]) -> None:
        self._lengths = lengths
        self._by_length: dict[int, list[int]] = {}
        for number in numbers:
            assert lengths[number] > 0, "a sample has no tokens"
            self._by_length.setdefault(int(lengths[number]), []).append(number)
        for heap in self._by_length.values():
            heapq.heapify(heap)
        self._known = sorted(self._by_length)

    @property
    def longest(self) -> int:
        return self._known[-1] if self._known else 0

    def length_of(self, row: list[int]) -> int:
        return int(self._lengths[row].sum())

    def fill_row(self, size: int) -> list[int]:
        """Best fit: the longest sample that still fits, unless two shorter ones leave nothing of the row empty."""
        row: list[int] = []
        room = size
        while (length := self._best_for(room, first=not row)) > 0:
            row.append(self._take(length))
            room -= length
        return row

    def put_back(self, numbers: list[int]) -> None:
        for number in numbers:
            length = int(self._lengths[number])
            if length not in self._by_length:
                self._by_length[length] = []
                bisect.insort(self._known, length)
            heapq.heappush(self._by_length[length], number)

    def _best_for(self, room: int, *, first: bool) -> int:
        fitting = bisect.bisect_right(self._known, room)
        if not fitting:
            return 0
        longest = self._known[fitting - 1]
        if first or longest == room:
            return longest
        for length in reversed(self._known[:fitting]):
            other = room - length
            if other > length:
                break
            if other in self._by_length and (other != length or len(self._by_length[length]) > 1):
                return length
        return longest

    def _take(self, length: int) -> int:
        samples = self._by_length[length]
        number = heapq.heappop(samples)
        if not samples:
            del self._by_length[length]
            del self._known[bisect.bisect_left(self._known, length)]
        return number


def _laid(parts: Sequence[np.ndarray | None], layout: Layout) -> np.ndarray:
    """What each document says of its tokens, at their positions; 0 elsewhere."""
    found = np.zeros(layout.positions, dtype=np.int64)
    for part, start in zip(parts, layout.starts.tolist()):
        if part is not None:
            found[start : start + part.size] = part
    return found


def pack(samples: Sequence[Sample], plan: BatchPlan, budget: int, pad_id: int) -> Batch:
    """Lay the planned samples into one Batch of exactly `budget` positions; rows that lack samples stay empty."""
    rows = [*plan.rows, *([[]] * (budget // plan.length - len(plan.rows)))]
    layout = layout_of([[samples[number].ids.size for number in row] for row in rows], plan.length)
    placed = [samples[number] for row in rows for number in row]
    ids = np.full(budget, pad_id, dtype=np.int64)
    segment = np.zeros(budget, dtype=np.int64)
    starts_word = np.zeros(budget, dtype=bool)
    for sample, start in zip(placed, layout.starts.tolist()):
        end = start + sample.ids.size
        ids[start:end] = sample.ids
        segment[start:end] = sample.segment
        starts_word[start:end] = sample.starts_word
    values = {"ids": ids, "segment": segment, "starts_word": starts_word}
    if any(sample.entity is not None for sample in placed):
        values["entity"] = _laid([sample.entity for sample in placed], layout)
    for name in dict.fromkeys(name for sample in placed for name in sample.beside):
        values[name] = _laid([sample.beside.get(name) for sample in placed], layout)
    trees = [sample.tree for sample in placed]
    if any(tree is not None for tree in trees):
        # Documents without a tree keep the positions that they have.
        position = layout.position.numpy().copy()
        for tree, start in zip(trees, layout.starts.tolist()):
            if tree is not None:
                position[start : start + tree.position.size] = tree.position
        branch = _laid([None if tree is None else tree.branch for tree in trees], layout)
        mention = _laid([None if tree is None else tree.mention for tree in trees], layout)
        tensors = map(torch.from_numpy, (position, branch, mention))
        layout = replace(layout, **dict(zip(("position", "branch", "mention"), tensors)))
    return Batch(
        values={name: torch.from_numpy(value) for name, value in values.items()},
        layout=layout,
        uids=np.array([sample.uid for sample in placed], dtype=np.int64),
        parts=np.array([sample.part for sample in placed], dtype=np.int64),
    )
