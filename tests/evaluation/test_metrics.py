"""Metrics against scikit-learn and against figures worked out by hand."""

import time

import numpy as np
import pytest
from sklearn import metrics as reference

from encodery.errors import DataError, TrainingError
from encodery.evaluation.metrics import MEANINGS, score_labels, score_multilabel, score_numbers


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def made_labels(rng, rows=400, kinds=4, sharpness=2.0):
    truth = rng.integers(0, kinds, rows)
    logits = rng.normal(size=(rows, kinds)) + sharpness * np.eye(kinds)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, truth


@pytest.mark.parametrize("kinds", [2, 4])
def test_label_metrics_equal_scikit_learn(rng, kinds):
    probabilities, truth = made_labels(rng, kinds=kinds, sharpness=1.0)
    guess = probabilities.argmax(axis=1)
    found = score_labels(probabilities, truth, [str(k) for k in range(kinds)], rng=rng, resamples=50)
    auroc_input = probabilities[:, 1] if kinds == 2 else probabilities
    brier = np.square(probabilities - np.eye(kinds)[truth]).sum(axis=1).mean() / (2 if kinds == 2 else 1)
    expected = {
        "accuracy": reference.accuracy_score(truth, guess),
        "f1_macro": reference.f1_score(truth, guess, average="macro"),
        "f1_micro": reference.f1_score(truth, guess, average="micro"),
        "f1_weighted": reference.f1_score(truth, guess, average="weighted"),
        "mcc": reference.matthews_corrcoef(truth, guess),
        "auroc": reference.roc_auc_score(truth, auroc_input, multi_class="ovr"),
        "log_loss": reference.log_loss(truth, probabilities),
        "brier": brier,
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-9), name
    assert set(found) == set(expected) | {"ece"}
    assert set(found) <= set(MEANINGS)
    for name, metric in found.items():
        assert metric.low <= metric.value <= metric.high, name


def test_auroc_and_average_precision_with_ties_equal_scikit_learn(rng):
    truth = rng.random((300, 3)) < 0.3
    scores = np.round(np.clip(truth * 0.2 + rng.random(truth.shape) * 0.7, 0, 1), 1)  # eleven values: many ties
    found = score_multilabel(scores, truth, ["a", "b", "c"], rng=rng, resamples=20)
    assert found["auroc"].value == pytest.approx(reference.roc_auc_score(truth, scores), abs=1e-9)
    assert found["map"].value == pytest.approx(reference.average_precision_score(truth, scores), abs=1e-9)


def test_several_labels_equal_scikit_learn(rng):
    truth = rng.random((300, 5)) < 0.3
    scores = np.clip(truth * 0.3 + rng.random(truth.shape) * 0.6, 0, 1)
    guess = scores >= 0.5
    found = score_multilabel(scores, truth, list("abcde"), rng=rng, resamples=20)
    assert found["f1_micro"].value == pytest.approx(reference.f1_score(truth, guess, average="micro"))
    assert found["f1_macro"].value == pytest.approx(reference.f1_score(truth, guess, average="macro"))
    assert found["exact_match"].value == pytest.approx(reference.accuracy_score(truth, guess))


def test_first_order_intervals_are_those_of_the_plain_bootstrap(rng):
    """AUROC and average precision use a linear form of the bootstrap: it must end where the slow one does."""
    truth = rng.random((500, 2)) < 0.25
    scores = np.clip(truth * 0.25 + rng.random(truth.shape) * 0.6, 0, 1)
    found = score_multilabel(scores, truth, ["a", "b"], rng=rng, resamples=2000)
    slow = []
    for _ in range(400):
        rows = rng.integers(0, 500, 500)
        slow.append(
            [
                reference.average_precision_score(truth[rows], scores[rows]),
                reference.roc_auc_score(truth[rows], scores[rows]),
            ]
        )
    low, high = np.percentile(slow, [2.5, 97.5], axis=0)
    for place, name in enumerate(["map", "auroc"]):
        assert found[name].low == pytest.approx(low[place], abs=0.015), name
        assert found[name].high == pytest.approx(high[place], abs=0.015), name


def test_numbers_equal_hand_computation(rng):
    truth = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    guess = np.array([1.5, 1.5, 3.5, 3.5, 6.0])
    found = score_numbers(guess, truth, rng=rng, resamples=20)
    assert found["mse"].value == pytest.approx((0.25 * 4 + 1) / 5)
    assert found["mae"].value == pytest.approx((0.5 * 4 + 1) / 5)
    assert found["r2"].value == pytest.approx(1 - 2.0 / 10.0)
    assert found["pearson"].value == pytest.approx(np.corrcoef(guess, truth)[0, 1])
    # Ranks of the guesses: 1.5 1.5 3.5 3.5 5 against 1 2 3 4 5.
    assert found["spearman"].value == pytest.approx(np.corrcoef([1.5, 1.5, 3.5, 3.5, 5], truth)[0, 1])


def test_large_numbers_lose_no_digits(rng):
    truth = rng.normal(size=500)
    guess = truth + rng.normal(size=500)
    near, far = (score_numbers(guess + shift, truth + shift, rng=rng, resamples=20) for shift in (0, 1e7))
    assert far["pearson"].value == pytest.approx(near["pearson"].value, abs=1e-6)
    assert far["r2"].value == pytest.approx(near["r2"].value, abs=1e-6)


def test_a_label_absent_from_the_truth_is_left_out_with_a_note(rng):
    probabilities, truth = made_labels(rng, kinds=3)
    probabilities = np.column_stack([probabilities * 0.99, np.full(len(truth), 0.01)])
    found = score_labels(probabilities, truth, list("abcd"), rng=rng, resamples=20)
    expected = np.mean([reference.roc_auc_score(truth == k, probabilities[:, k]) for k in range(3)])
    assert found["auroc"].value == pytest.approx(expected)
    assert "1 labels" in found["auroc"].note
    assert "left out" in found["f1_macro"].note


def test_one_label_only_has_no_auroc_and_no_mcc_but_the_rest(rng):
    probabilities = np.tile([0.7, 0.3], (20, 1))
    found = score_labels(probabilities, np.zeros(20, dtype=int), ["a", "b"], rng=rng, resamples=20)
    assert found["auroc"].value is None
    assert found["mcc"].value is None
    assert "one label" in found["auroc"].note
    assert found["accuracy"].value == 1.0
    assert found["log_loss"].value == pytest.approx(-np.log(0.7))


def test_constant_numbers_have_no_correlation(rng):
    found = score_numbers(np.ones(10), np.arange(10.0), rng=rng, resamples=20)
    assert found["pearson"].value is None
    assert "predicted" in found["pearson"].note
    assert found["mse"].value == pytest.approx(np.square(1 - np.arange(10)).mean())
    assert score_numbers(np.arange(10.0), np.ones(10), rng=rng, resamples=20)["r2"].value is None


def test_a_certain_mistake_costs_a_finite_loss(rng):
    found = score_labels(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]), ["a", "b"], rng=rng, resamples=5)
    assert np.isfinite(found["log_loss"].value)
    assert found["log_loss"].value == pytest.approx(34.54 / 2, abs=0.01)


def test_wrong_input_is_named(rng):
    probabilities = np.full((3, 2), 0.5)
    with pytest.raises(DataError, match="label number 2"):
        score_labels(probabilities, np.array([0, 1, 2]), ["a", "b"], rng=rng)
    with pytest.raises(DataError, match="shape"):
        score_labels(probabilities, np.array([0, 1]), ["a", "b"], rng=rng)
    with pytest.raises(DataError, match="no rows"):
        score_labels(np.zeros((0, 2)), np.zeros(0, dtype=int), ["a", "b"], rng=rng)
    probabilities[1, 0] = np.nan
    with pytest.raises(TrainingError, match="row 2"):
        score_labels(probabilities, np.array([0, 1, 0]), ["a", "b"], rng=rng)


def test_the_same_generator_gives_the_same_intervals(rng):
    probabilities, truth = made_labels(rng)
    first, second = (score_labels(probabilities, truth, list("abcd"), rng=np.random.default_rng(3)) for _ in "12")
    assert first == second


def test_all_metrics_of_7600_rows_take_less_than_two_seconds(rng):
    probabilities, truth = made_labels(rng, rows=7600)
    spent = []
    for _ in range(3):
        started = time.process_time()
        score_labels(probabilities, truth, list("abcd"), rng=rng)
        spent.append(time.process_time() - started)
    assert min(spent) < 2.0
