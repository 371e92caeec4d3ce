"""Intervals: do they hold the true value as often as they say?"""

import numpy as np
import pytest

from encodery.errors import DataError
from encodery.evaluation.intervals import Metric, difference, from_resamples, paired_difference, resampled_sums
from encodery.evaluation.metrics import score_labels, score_numbers


def test_accuracy_interval_covers_the_true_accuracy_about_95_times_in_100():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        truth = rng.integers(0, 2, 200)
        guess = np.where(rng.random(200) < 0.8, truth, 1 - truth)
        metric = score_labels(np.eye(2)[guess], truth, ["a", "b"], rng=rng, resamples=300)["accuracy"]
        held += metric.low <= 0.8 <= metric.high
    assert 0.90 <= held / 300 <= 0.985  # 95 % +- 3 standard errors, and the bootstrap is a little narrow


def test_correlation_interval_covers():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        truth = rng.normal(size=200)
        guess = 0.6 * truth + 0.8 * rng.normal(size=200)
        metric = score_numbers(guess, truth, rng=rng, resamples=300)["pearson"]
        held += metric.low <= 0.6 <= metric.high
    assert 0.89 <= held / 200 <= 0.99


def test_interval_width_is_that_of_the_binomial():
    rng = np.random.default_rng(2)
    right = np.zeros(2000)
    right[:1600] = 1
    sums, _ = resampled_sums(right[:, None], rng, 4000)
    metric = from_resamples(sums[:, 0] / 2000)
    half = 1.96 * np.sqrt(0.8 * 0.2 / 2000)
    assert metric.value == pytest.approx(0.8)
    assert metric.low == pytest.approx(0.8 - half, abs=0.002)
    assert metric.high == pytest.approx(0.8 + half, abs=0.002)


def test_codes_are_counted_in_the_same_resamples_as_features():
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 3, 50)
    sums, (counts,) = resampled_sums(np.eye(3)[codes], rng, 40, [(codes, 3)])
    np.testing.assert_array_equal(sums, counts)
    np.testing.assert_array_equal(counts[0], np.bincount(codes, minlength=3))
    np.testing.assert_array_equal(counts.sum(axis=1), 50)


def test_many_rows_are_drawn_in_parts_of_bounded_memory(monkeypatch):
    monkeypatch.setattr("encodery.evaluation.intervals.DRAWS_AT_ONCE", 70)
    sums, _ = resampled_sums(np.ones((30, 1)), np.random.default_rng(0), 11)
    np.testing.assert_array_equal(sums, np.full((12, 1), 30.0))


def test_paired_difference_sees_a_small_steady_gain_that_separate_intervals_miss():
    rng = np.random.default_rng(4)
    b = (rng.random(1000) < 0.8).astype(float)
    a = b.copy()
    a[np.flatnonzero(b == 0)[:15]] = 1  # right wherever b is, and on 15 rows more
    gain = paired_difference(a, b, rng)
    assert gain.value == pytest.approx(0.015)
    assert gain.excludes_zero
    assert not paired_difference(b, b, rng).excludes_zero
    assert not paired_difference(rng.random(500) < 0.8, rng.random(500) < 0.8, rng).excludes_zero
    with pytest.raises(DataError):
        paired_difference(a, b[:-1], rng)


def test_any_two_metrics_of_the_same_rows_differ_by_as_much_as_their_rows_do():
    truth = np.random.default_rng(5).normal(size=800)
    near, far = (truth + np.random.default_rng(6).normal(size=800) * noise for noise in (0.5, 0.53))
    found = [
        score_numbers(guess, truth, rng=np.random.default_rng(1), resamples=400)["spearman"] for guess in (near, far)
    ]
    gain = difference(*found)
    assert gain is not None and gain.value == pytest.approx(found[0].value - found[1].value)
    # The same noise, a little smaller: every sample of the rows shows it, though the intervals overlap.
    assert gain.excludes_zero and found[0].low < found[1].high
    right = [(np.random.default_rng(seed).random(500) < 0.8).astype(int) for seed in (7, 8)]
    accuracies = [
        score_labels(np.eye(2)[one], np.ones(500, int), ["a", "b"], rng=np.random.default_rng(2), resamples=400)[
            "accuracy"
        ]
        for one in right
    ]
    gain = difference(*accuracies)
    by_rows = paired_difference(*right, np.random.default_rng(2), resamples=400)
    assert (gain.value, gain.low, gain.high) == pytest.approx((by_rows.value, by_rows.low, by_rows.high))
    assert difference(Metric(0.5), found[0]) is None
    assert difference(from_resamples(np.array([1.0, 2.0])), found[0]) is None
    assert "resampled" not in found[0].to_dict() and Metric.from_dict(found[0].to_dict()) == found[0]


def test_a_metric_reads_well_and_survives_a_round_trip():
    metric = Metric(0.9149, 0.9071, 0.9226)
    assert str(metric) == "0.915 (0.907 to 0.923)"
    assert str(Metric(0.5)) == "0.500"
    assert str(Metric(None, note="one label")) == "not defined (one label)"
    assert Metric.from_dict(metric.to_dict()) == metric
    assert from_resamples(np.array([np.nan, 1.0])).value is None
