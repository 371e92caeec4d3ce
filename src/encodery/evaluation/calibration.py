"""Whether a probability of 0.8 is right 8 times in 10: reliability bins, and the temperature to mend it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encodery.errors import DataError

BINS = 15
COLDEST, HOTTEST = 0.05, 20.0
Array = NDArray[Any]


def equal_mass_bins(confidence_N: Array, bins: int = BINS) -> NDArray[np.int64]:
    """The bin number (N,) of every row: bins of about as many rows, equal confidences always together.

    Equal mass rather than equal width: a trained classifier puts most of its rows above 0.9, where ten bins
    of equal width would hold nearly all rows in one and a few noisy rows in the others.
    """
    confidence_N = np.asarray(confidence_N, dtype=np.float64)
    if len(confidence_N) == 0:
        return np.zeros(0, dtype=np.int64)
    edges = np.quantile(confidence_N, np.arange(1, bins) / bins)
    return np.searchsorted(edges, confidence_N, side="left").astype(np.int64)


def reliability_bins(probabilities_NC: Array, truth_N: Array, bins: int = BINS) -> list[dict[str, float]]:
    """The calibration plot's points, least confident first: `low`, `high`, `count`, `confidence`, `accuracy`.

    Bins are those of the calibration error: equal mass, of the probability of the predicted label.
    """
    probabilities_NC = np.asarray(probabilities_NC, dtype=np.float64)
    confidence_N = probabilities_NC.max(axis=1)
    right_N = probabilities_NC.argmax(axis=1) == np.asarray(truth_N)
    bin_N = equal_mass_bins(confidence_N, bins)
    points = []
    for number in np.unique(bin_N):
        here = bin_N == number
        points.append(
            {
                "low": float(confidence_N[here].min()),
                "high": float(confidence_N[here].max()),
                "count": int(here.sum()),
                "confidence": float(confidence_N[here].mean()),
                "accuracy": float(right_N[here].mean()),
            }
        )
    return points


def expected_calibration_error(probabilities_NC: Array, truth_N: Array, bins: int = BINS) -> float:
    """Mean over the rows of |share right - mean confidence| in their bin (Naeini et al. 2015)."""
    points = reliability_bins(probabilities_NC, truth_N, bins)
    rows = sum(point["count"] for point in points)
    return float(sum(point["count"] * abs(point["accuracy"] - point["confidence"]) for point in points) / max(rows, 1))


def fit_temperature(logits_NC: Array, truth_N: Array) -> float:
    """The temperature T in 0.05..20 whose softmax(logits / T) is least surprised by these validation rows.

    "On Calibration of Modern Neural Networks" (Guo et al. 2017), section 4.2. The loss is convex in 1 / T, so
    a bounded search finds its minimum; the answer is never worse than T = 1 on the rows given. `truth_N` (N,)
    holds label numbers; a (N, C) array of 0 and 1 means any number of labels a row, and sigmoid in place of
    softmax. No rows, or logits that are not finite, leave nothing to fit: T = 1.
    """
    from scipy.optimize import minimize_scalar

    logits_NC, truth = np.asarray(logits_NC, dtype=np.float64), np.asarray(truth_N)
    if len(logits_NC) != len(truth):
        raise DataError(f"{len(logits_NC)} rows of logits and {len(truth)} true labels", expected="as many of each")
    if logits_NC.size == 0 or not np.isfinite(logits_NC).all():
        return 1.0

    def loss(log_sharpness: float) -> float:
        return surprise(logits_NC * np.exp(log_sharpness), truth)

    found = minimize_scalar(
        loss, bounds=(-np.log(HOTTEST), -np.log(COLDEST)), method="bounded", options={"xatol": 1e-4}
    )
    best = min((loss(0.0), 0.0), (float(found.fun), float(found.x)))  # ties keep the model as it is
    return float(np.exp(-best[1]))


def fit_mix(parts: Sequence[Array], truth: Array) -> list[float]:
    """Weights, 0 to 20, with which the logits (N, C) of several answers are added to surprise these rows least.

    A temperature for each answer at once: the more trustworthy one weighs more. `truth` is as in
    `fit_temperature`, or (N,) floats on the scale of parts (N, 1), where the squared error is made small. Without
    rows every answer weighs the same, 1 / parts.
    """
    stacked = np.stack([np.asarray(part, dtype=np.float64) for part in parts])
    truth = np.asarray(truth)
    if stacked.size == 0 or not np.isfinite(stacked).all():
        return [1 / len(parts)] * len(parts)

    def loss(weights: NDArray[np.float64]) -> float:
        mixed = np.tensordot(weights, stacked, axes=1)
        if truth.dtype.kind == "f":
            return float(np.square(mixed[:, 0] - truth).mean())
        return surprise(mixed, truth)

    return least_weights(loss, len(parts))


def least_weights(loss: Callable[[NDArray[np.float64]], float], parts: int, **options: float) -> list[float]:
    """The weights of so many answers, 0 to 20, that make the loss least, found downhill from equal ones; these where
    nothing better is found."""
    from scipy.optimize import minimize

    even = np.full(parts, 1 / parts)
    found = minimize(loss, even, bounds=[(0.0, 20.0)] * parts, method="L-BFGS-B", options=options)
    return [float(weight) for weight in (found.x if found.fun < loss(even) else even)]


def probabilities_at(logits_NC: Array, temperature: float = 1.0) -> NDArray[np.float64]:
    """softmax(logits / temperature), (N, C) -> (N, C), without overflow."""
    scaled = np.asarray(logits_NC, dtype=np.float64) / temperature
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def surprise(logits_NC: Array, truth: Array) -> float:
    """Mean of -log p(truth), in nats: of the softmax, or for truth (N, C) of 0 and 1 of the sigmoids."""
    if truth.ndim == 2:
        return float((np.logaddexp(0, logits_NC) - truth * logits_NC).mean())
    top_N = logits_NC.max(axis=1)
    log_total_N = top_N + np.log(np.exp(logits_NC - top_N[:, None]).sum(axis=1))
    return float((log_total_N - logits_NC[np.arange(len(truth)), truth.astype(np.int64)]).mean())
