"""Calibration: constructed cases with a known error, and temperatures that are found again."""

import numpy as np
import pytest

from encodery.errors import DataError
from encodery.evaluation.calibration import (
    equal_mass_bins,
    expected_calibration_error,
    fit_mix,
    fit_temperature,
    probabilities_at,
    reliability_bins,
)
from encodery.evaluation.metrics import score_labels


def surprise(logits, truth):
    return -np.log(probabilities_at(logits)[np.arange(len(truth)), truth]).mean()


def drawn_from(logits, rng):
    """Labels drawn from softmax(logits): these logits are calibrated."""
    cumulative = probabilities_at(logits).cumsum(axis=1)
    return (rng.random(len(logits))[:, None] > cumulative[:, :-1]).sum(axis=1)


def test_known_errors():
    certain = np.tile([0.9, 0.1], (100, 1))
    truth = np.array([0] * 60 + [1] * 40)
    assert expected_calibration_error(certain, truth) == pytest.approx(0.3)  # 90 % sure, 60 % right
    assert expected_calibration_error(certain, np.array([0] * 90 + [1] * 10)) == pytest.approx(0.0)
    # Two groups, one too sure by 0.2 and one not sure enough by 0.2: they must not cancel.
    two = np.array([[0.6, 0.4]] * 50 + [[0.8, 0.2]] * 50)
    truth = np.array([0] * 40 + [1] * 10 + [0] * 30 + [1] * 20)
    assert expected_calibration_error(two, truth) == pytest.approx(0.2)


def test_the_metric_and_the_plot_agree():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(500, 3)) * 2
    truth = drawn_from(logits / 2, rng)
    probabilities = probabilities_at(logits)
    metric = score_labels(probabilities, truth, list("abc"), rng=rng, resamples=100)["ece"]
    assert metric.value == pytest.approx(expected_calibration_error(probabilities, truth))
    assert metric.low < metric.value < metric.high


def test_bins_hold_equal_shares_and_keep_ties_together():
    confidence = np.random.default_rng(1).random(1500)
    assert np.bincount(equal_mass_bins(confidence)).tolist() == pytest.approx([100] * 15, abs=1)
    assert len(np.unique(equal_mass_bins(np.full(40, 0.7)))) == 1
    points = reliability_bins(np.array([[0.6, 0.4], [0.9, 0.1]] * 20), np.zeros(40, dtype=int))
    assert [(point["count"], point["accuracy"]) for point in points] == [(20, 1.0), (20, 1.0)]
    assert [point["confidence"] for point in points] == pytest.approx([0.6, 0.9])


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found(true_temperature):
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(6000, 4)) * 2
    truth = drawn_from(logits, rng)
    found = fit_temperature(logits * true_temperature, truth)
    assert found == pytest.approx(true_temperature, rel=0.06)


def test_a_known_temperature_is_found_for_several_labels():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(4000, 3)) * 2
    truth = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(int)
    assert fit_temperature(logits * 2.5, truth) == pytest.approx(2.5, rel=0.06)


def test_never_worse_than_leaving_it_and_always_in_bounds():
    rng = np.random.default_rng(4)
    for rows in (1, 2, 5, 50):
        for size in (1e-6, 1.0, 1e4):
            logits = rng.normal(size=(rows, 3)) * size
            truth = rng.integers(0, 3, rows)
            found = fit_temperature(logits, truth)
            assert 0.0499 <= found <= 20.001
            with np.errstate(divide="ignore"):
                assert surprise(logits / found, truth) <= surprise(logits, truth) + 1e-9


def test_nothing_to_fit_leaves_one():
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=int)) == 1.0
    assert fit_temperature(np.array([[np.nan, 1.0]]), np.array([0])) == 1.0
    assert fit_temperature(np.zeros((5, 3)), np.zeros(5, dtype=int)) == 1.0
    with pytest.raises(DataError):
        fit_temperature(np.zeros((5, 3)), np.zeros(4, dtype=int))


def test_a_mix_trusts_the_answer_that_knows_more() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 600)
    knows = np.eye(3)[truth] * 2 + rng.normal(0, 0.7, (600, 3))
    guesses = rng.normal(0, 1, (600, 3))
    weights = fit_mix([guesses, knows], truth)
    assert weights[1] > 5 * weights[0]


def test_a_mix_is_never_worse_than_an_even_one() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 200)
    parts = [np.eye(2)[truth] * 6 + rng.normal(0, 4, (200, 2)), np.eye(2)[truth] + rng.normal(0, 1, (200, 2))]

    def surprise(weights: list[float]) -> float:
        mixed = probabilities_at(np.tensordot(weights, np.stack(parts), axes=1))
        return float(-np.log(mixed[np.arange(200), truth]).mean())

    assert surprise(fit_mix(parts, truth)) < surprise([0.5, 0.5])


def test_a_mix_of_numbers_is_least_squares() -> None:
    rng = np.random.default_rng(2)
    one, two = rng.normal(size=(300, 1)), rng.normal(size=(300, 1))
    weights = fit_mix([one, two], 0.25 * one[:, 0] + 0.75 * two[:, 0])
    assert weights == pytest.approx([0.25, 0.75], abs=1e-3)


def test_a_mix_without_rows_is_even() -> None:
    assert fit_mix([np.zeros((0, 2)), np.zeros((0, 2))], np.zeros(0, dtype=int)) == [0.5, 0.5]
