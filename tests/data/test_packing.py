"""Packing: every sample once, a constant budget, hardly any padding, few shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encodery.batch import Sample
from encodery.data.packing import longest_row, pack, plan_batches


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    """Lengths, a budget that is a multiple of the longest row, and the longest length there may be."""
    most = draw(st.sampled_from([4, 20, 64, 65, 130, 512, 700]))
    lengths = draw(st.lists(st.integers(1, most), max_size=300))
    budget = longest_row(most) * draw(st.integers(1, 6))
    return np.array(lengths, dtype=np.int64), budget, most


@settings(max_examples=150, deadline=None)
@given(problems())
def test_every_sample_is_placed_once_and_no_row_overflows(problem: tuple[np.ndarray, int, int]) -> None:
    """Row 2: nothing is dropped; every batch has the same number of positions."""
    lengths, budget, most = problem
    plans = plan_batches(lengths, budget, most)
    placed = [number for plan in plans for row in plan.rows for number in row]
    assert sorted(placed) == list(range(lengths.size))
    for plan in plans:
        assert budget % plan.length == 0
        assert 0 < len(plan.rows) <= budget // plan.length
        assert all(lengths[row].sum() <= plan.length for row in plan.rows)
        assert any(plan.rows)
    again = plan_batches(lengths.copy(), budget, most)
    assert [(plan.length, plan.rows) for plan in again] == [(plan.length, plan.rows) for plan in plans]


def draws() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "sentences, mean 36": np.minimum(rng.geometric(1 / 34, 8192) + 2, 512),
        "news": rng.integers(30, 81, 8192),
        "reviews": np.minimum(rng.lognormal(4.5, 0.7, 8192).astype(int) + 3, 512),
        "short questions": rng.integers(6, 18, 8192),
        "windows of long documents": np.concatenate([np.full(2000, 500), rng.integers(10, 500, 3000)]),
    }


@pytest.mark.parametrize("name", list(draws()))
@pytest.mark.parametrize("budget", [2048, 8192])
def test_padding_stays_under_three_percent_on_real_lengths(name: str, budget: int) -> None:
    """Row 2: and few shapes, because each new one costs compilation."""
    lengths = draws()[name]
    plans = plan_batches(lengths, budget, 512)
    # The last batch of all is partly empty whatever is done.
    positions = (len(plans) - 1) * budget
    assert 1 - lengths.sum() / positions < 0.03
    assert len({plan.length for plan in plans}) <= 4


def test_short_documents_live_in_short_rows() -> None:
    """Attention costs grow with the row."""
    plans = plan_batches(np.random.default_rng(1).integers(3, 9, 5000), 2048, 512)
    assert {plan.length for plan in plans} == {64}


def samples_of(lengths: list[int]) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(
            ids=rng.integers(10, 99, size),
            starts_word=rng.random(size) < 0.5,
            segment=rng.integers(0, 2, size),
            uid=100 + number,
            part=number % 3,
        )
        for number, size in enumerate(lengths)
    ]


def test_a_batch_holds_its_samples_and_padding_only() -> None:
    samples = samples_of([5, 60, 3, 64, 17, 1, 33])
    (plan,) = plan_batches(np.array([sample.ids.size for sample in samples]), 256, 64)
    batch = pack(samples, plan, 256, pad_id=7)
    layout = batch.layout
    assert layout.positions == 256 and layout.documents == 7
    by_uid = {sample.uid: sample for sample in samples}
    covered = np.zeros(256, bool)
    for number in range(7):
        start, size = int(layout.starts[number]), int(layout.lengths[number])
        here = slice(start, start + size)
        sample = by_uid.pop(int(batch.uids[number]))
        assert int(batch.parts[number]) == sample.part
        for name in ("ids", "segment", "starts_word"):
            assert np.array_equal(batch.values[name][here].numpy(), getattr(sample, name))
        assert (layout.document[here] == number).all()
        assert layout.position[here].tolist() == list(range(size))
        assert start // layout.length == (start + size - 1) // layout.length
        covered[here] = True
    assert not by_uid
    assert (layout.document.numpy()[~covered] == -1).all()
    assert (batch.values["ids"].numpy()[~covered] == 7).all()
    assert layout.real_tokens == covered.sum()


def test_nothing_to_pack_gives_no_batch() -> None:
    assert plan_batches(np.zeros(0, np.int64), 512, 512) == []
