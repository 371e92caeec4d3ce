"""Samples: special tokens, pairs, and long documents that are split or cut, never silently."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encodery.data.samples import LengthCounts, SampleMaker, split_pieces

CLS, SEP = 1, 2


def text(size: int, begin: int = 10) -> tuple[np.ndarray, np.ndarray]:
    ids = np.arange(begin, begin + size, dtype=np.int64)
    return ids, ids % 3 == 0


@settings(max_examples=200, deadline=None)
@given(size=st.integers(0, 3000), longest=st.integers(4, 300))
def test_a_long_document_is_split_and_nothing_of_it_is_lost(size: int, longest: int) -> None:
    """Rows 2 and 19: windows cover every token once."""
    counts = LengthCounts()
    ids, starts = text(size)
    samples = SampleMaker(CLS, SEP, longest).single(ids, starts, 7, counts)
    assert [sample.part for sample in samples] == list(range(len(samples)))
    assert all(sample.uid == 7 and sample.ids.size <= longest for sample in samples)
    assert all(sample.ids[0] == CLS and sample.ids[-1] == SEP and not sample.segment.any() for sample in samples)
    assert np.array_equal(np.concatenate([sample.ids[1:-1] for sample in samples]), ids)
    assert np.array_equal(np.concatenate([sample.starts_word[1:-1] for sample in samples]), starts)
    assert all(sample.ids.size == longest for sample in samples[:-2])
    assert len(samples) == max(1, -(-size // (longest - 2)))
    assert (counts.rows, counts.windows, counts.kept_tokens) == (1, len(samples), size)
    assert counts.split_rows == int(longest - 2 < size)
    assert counts.cut_rows == counts.cut_tokens == 0


@settings(max_examples=100, deadline=None)
@given(size=st.integers(0, 300), longest=st.integers(4, 100))
def test_cutting_is_counted(size: int, longest: int) -> None:
    """Row 19: never silently."""
    counts = LengthCounts()
    (sample,) = SampleMaker(CLS, SEP, longest, "cut").single(*text(size), 0, counts)
    kept = min(size, longest - 2)
    assert np.array_equal(sample.ids[1:-1], text(size)[0][:kept])
    assert (counts.kept_tokens, counts.cut_tokens, counts.cut_rows) == (kept, size - kept, int(kept < size))


@settings(max_examples=200, deadline=None)
@given(a=st.integers(0, 60), b=st.integers(0, 60), longest=st.integers(4, 70))
def test_a_long_pair_loses_the_end_of_its_longer_text(a: int, b: int, longest: int) -> None:
    counts = LengthCounts()
    first, second = text(a), text(b, 500)
    (sample,) = SampleMaker(CLS, SEP, longest).pair(first, second, 3, counts)
    kept_a, kept_b = a, b
    while longest - 3 < kept_a + kept_b:  # token by token from the longer one
        if kept_a < kept_b:
            kept_b -= 1
        else:
            kept_a -= 1
    found_a = int((sample.segment == 0).sum()) - 2
    found_b = int((sample.segment == 1).sum()) - 1
    assert found_a + found_b == kept_a + kept_b and abs(found_a - kept_a) <= 1  # ties go either way
    assert {found_a, found_b} == {kept_a, kept_b}
    expected = [CLS, *first[0][:found_a], SEP, *second[0][:found_b], SEP]
    assert sample.ids.tolist() == expected and sample.ids.size <= longest
    assert sample.segment.tolist() == [0] * (found_a + 2) + [1] * (found_b + 1)
    assert sample.starts_word[0] and sample.starts_word[-1] and sample.starts_word[found_a + 1]
    lost = a + b - kept_a - kept_b
    assert (counts.cut_tokens, counts.cut_rows, counts.windows) == (lost, int(lost > 0), 1)


@pytest.mark.parametrize("size", [10_000, 510, 511])
def test_a_document_longer_than_a_whole_batch_works(size: int) -> None:
    counts = LengthCounts()
    samples = SampleMaker(CLS, SEP, 512).single(*text(size), 0, counts)
    assert sum(sample.ids.size - 2 for sample in samples) == size


@pytest.mark.parametrize(
    ("total", "pieces"),
    [
        (101, [(0, 51), (51, 101)]),
        (112, [(0, 100), (100, 112)]),
        (200, [(0, 100), (100, 200)]),
        (205, [(0, 100), (100, 153), (153, 205)]),
        (350, [(0, 100), (100, 200), (200, 300), (300, 350)]),
    ],
)
def test_windows_are_full_but_for_the_rest_and_no_rest_is_tiny(total: int, pieces: list[tuple[int, int]]) -> None:
    """Full windows fill rows without padding; a dozen tokens at the end would be answered without their context."""
    assert split_pieces(total, 100) == pieces
