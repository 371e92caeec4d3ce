"""Noise: how much of it there is, what it leaves alone, and that it can be undone to the last token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encodery.objectives.noise import (
    corrupted_spans,
    filled,
    infilled,
    kept_tokens,
    permuted_sentences,
    put_back,
    rotated,
    undone,
    units_of,
    with_sentinels,
    without_sentinels,
)

HOLE = 4
SENTINELS = np.array([1, 2, 3])


@st.composite
def documents(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Ids above the special ones, where words begin, and a generator."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.integers(0, 60))
    return rng.integers(10, 30, size), rng.random(size) < draw(st.sampled_from([0.2, 0.6, 1.0])), rng


@settings(max_examples=150, deadline=None)
@given(documents(), st.sampled_from([0.0, 0.15, 0.6, 1.0]))
def test_all_noise_can_be_undone(given_: tuple, share: float) -> None:
    ids, starts, rng = given_
    kept = kept_tokens(starts, share, rng)
    assert np.array_equal(put_back(kept, ids[kept], ids[~kept]), ids)

    found = infilled(ids, starts, HOLE, share=share, mean=3.0, rng=rng)
    assert found.ids.size <= ids.size
    assert np.array_equal(filled(found.ids, HOLE, found.taken), ids)
    shown = found.ids != HOLE
    assert np.array_equal(found.ids[shown], ids[found.index[shown]])
    assert (np.diff(found.index) >= 0).all()

    for order in (permuted_sentences(starts, rng), rotated(ids.size, rng)):
        assert np.array_equal(np.sort(order), np.arange(ids.size))
        assert np.array_equal(undone(order, ids[order]), ids)

    gone = corrupted_spans(ids.size, share=min(share, 0.9), mean=3.0, rng=rng)
    source, target = with_sentinels(ids, gone, SENTINELS)
    assert np.array_equal(without_sentinels(source, target, SENTINELS), ids)
    assert target[-1] in SENTINELS and source.size <= ids.size


def test_words_are_deleted_whole_at_their_share_and_one_stays() -> None:
    rng = np.random.default_rng(0)
    starts = rng.random(20_000) < 0.4
    kept = kept_tokens(starts, 0.6, rng)
    assert kept.mean() == pytest.approx(0.4, abs=0.03)
    word = units_of(starts)
    assert np.array_equal(np.unique(word[kept]), np.setdiff1d(word, word[~kept]))  # no word in part
    for size in (1, 2, 7):
        for _ in range(20):
            assert kept_tokens(np.ones(size, bool), 0.999, rng).sum() == 1


def test_infilling_takes_whole_words_at_its_share_with_poisson_lengths() -> None:
    rng = np.random.default_rng(1)
    starts = rng.random(6000) < 0.5
    ids = rng.integers(10, 99, 6000)
    found = infilled(ids, starts, HOLE, share=0.3, mean=3.0, rng=rng)
    words = units_of(starts)
    taken = sum(run.size for run in found.taken)
    assert taken == pytest.approx(0.3 * 6000, abs=40)
    shown = found.index[found.ids != HOLE]
    assert not np.intersect1d(words[shown], np.setdiff1d(words, words[shown])).size
    assert np.unique(words[shown]).size + np.setdiff1d(words, words[shown]).size == words[-1] + 1
    runs = [run for run in found.taken if run.size]
    # A hole of length 0 is as often as Poisson(3) says; lengths are in words of two tokens on average. Long runs are
    # a little rarer: they meet others more often.
    assert 0.02 < 1 - len(runs) / len(found.taken) < 0.12
    assert 4.5 < np.mean([run.size for run in runs]) < 7.0


def test_sentences_move_as_wholes() -> None:
    starts = np.zeros(30, bool)
    starts[[0, 4, 11, 12, 25]] = True
    sentence = units_of(starts)
    seen = set()
    for seed in range(60):
        moved = sentence[permuted_sentences(starts, np.random.default_rng(seed))]
        assert np.count_nonzero(np.diff(moved)) == 4  # five runs, each in one piece
        seen.add(tuple(dict.fromkeys(moved.tolist())))
    assert len(seen) > 30


def test_spans_as_t5_draws_them() -> None:
    """15 % of the tokens in spans of 3 on average, exactly: 77 tokens and 26 spans of 512."""
    for seed in range(20):
        gone = corrupted_spans(512, share=0.15, mean=3.0, rng=np.random.default_rng(seed))
        assert gone.sum() == 77 and not gone[0]
        assert np.count_nonzero(np.diff(gone.astype(int)) == 1) == 26
    ends = [corrupted_spans(20, share=0.15, mean=3.0, rng=np.random.default_rng(seed))[-1] for seed in range(20)]
    assert all(ends)  # the last piece is always a span, as in T5's own code


def test_source_and_target_of_sentinels_by_hand() -> None:
    """Figure 2 of the paper: "Thank you <X> me to your party <Y> week", "<X> for inviting <Y> last <Z>"."""
    ids = np.arange(10, 20)
    gone = np.array([0, 0, 1, 1, 0, 0, 0, 0, 1, 0], bool)
    source, target = with_sentinels(ids, gone, SENTINELS)
    assert source.tolist() == [10, 11, 1, 14, 15, 16, 17, 2, 19]
    assert target.tolist() == [1, 12, 13, 2, 18, 3]
    # A single sentinel does as well: order tells its uses apart.
    source, target = with_sentinels(ids, gone, SENTINELS[:1])
    assert source.tolist() == [10, 11, 1, 14, 15, 16, 17, 1, 19] and target.tolist() == [1, 12, 13, 1, 18, 1]
    assert np.array_equal(without_sentinels(source, target, SENTINELS[:1]), ids)


def test_holes_that_do_not_fit_their_runs_are_seen() -> None:
    with pytest.raises(AssertionError, match="2 holes, and 1 runs"):
        filled(np.array([4, 9, 4]), 4, [np.array([1])])
