"""Labels that have an order: how far off an answer is, and whether high ones are told from low ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from encodery.evaluation.intervals import RESAMPLES, Metric, from_resamples, resampled_sums
from encodery.evaluation.metrics import score_labels, score_numbers

Array = NDArray[Any]


def likeliest_rank(probabilities_NC: Array) -> Array:
    """(N,) the rank that is answered: the median, which has the least expected distance in ranks from the label."""
    return (np.cumsum(probabilities_NC, axis=1) < 0.5 - 1e-9).sum(axis=1).clip(0, probabilities_NC.shape[1] - 1)


def score_ranks(
    probabilities_NC: Array, truth_N: Array, *, rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, Metric]:
    """Accuracy, mean absolute error in ranks, the share at most one rank off, quadratic weighted kappa, Spearman's
    correlation of the expected rank, and log loss; the answer is the median rank (`likeliest_rank`).

    Kappa (Cohen 1968, weights (i - j)^2) is not defined when all labels and all answers are one. Raises DataError and
    TrainingError as `score_labels`.
    """
    kinds = probabilities_NC.shape[1]
    labels = [str(rank) for rank in range(kinds)]
    # It checks the shapes, and that every number is finite.
    surprise = score_labels(probabilities_NC, truth_N, labels, rng=rng, resamples=resamples)["log_loss"]
    truth_N = np.asarray(truth_N, dtype=np.int64)
    given_N = likeliest_rank(probabilities_NC)
    away_N = np.abs(given_N - truth_N)
    features = np.column_stack([away_N == 0, away_N, away_N <= 1, away_N**2])
    sums, (true_RC, given_RC) = resampled_sums(features, rng, resamples, [(truth_N, kinds), (given_N, kinds)])
    rows = len(truth_N)
    ranks = np.arange(kinds, dtype=np.float64)
    # What the squared distance would be by chance: E(i - j)^2 with i and j drawn alone.
    by_chance = (true_RC @ ranks**2 + given_RC @ ranks**2) * rows - 2 * (true_RC @ ranks) * (given_RC @ ranks)
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa_R = np.where(by_chance > 0, 1 - rows * sums[:, 3] / by_chance, np.nan)
    expected = probabilities_NC @ ranks
    spearman = score_numbers(expected, truth_N.astype(np.float64), rng=rng, resamples=resamples)["spearman"]
    return {
        "quadratic_kappa": from_resamples(kappa_R, note="" if kappa_R[0] == kappa_R[0] else "only one label"),
        "accuracy": from_resamples(sums[:, 0] / rows),
        "rank_mae": from_resamples(sums[:, 1] / rows),
        "within_one": from_resamples(sums[:, 2] / rows),
        "spearman": spearman,
        "log_loss": surprise,
    }


def each_rank_error(probabilities_NC: Array, truth_N: Array) -> Array:
    """(N,) how many ranks each answer is off."""
    return np.abs(likeliest_rank(probabilities_NC) - np.asarray(truth_N)).astype(np.float64)
