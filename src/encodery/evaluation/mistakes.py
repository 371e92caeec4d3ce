"""Where a model is wrong: confusion matrix, the table of the labels, the rows it is most wrong about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def confusion_matrix(truth_N: Array, predicted_N: Array, kinds: int) -> NDArray[np.int64]:
    """Rows by true label (line) and predicted label (column): (C, C)."""
    cells = np.asarray(truth_N, dtype=np.int64) * kinds + np.asarray(predicted_N, dtype=np.int64)
    return np.bincount(cells, minlength=kinds * kinds).reshape(kinds, kinds)


def per_class_table(truth: Array, predicted: Array, labels: Sequence[str]) -> list[dict[str, Any]]:
    """`label`, `precision`, `recall`, `f1`, `support`, `predicted` for every label, in the order of `labels`.

    Takes label numbers (N,) or, for several labels a row, (N, C) of 0 and 1. A figure with nothing to divide
    by (no row predicted, no row there) is None.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.ndim == 1:
        truth, predicted = np.eye(len(labels))[truth], np.eye(len(labels))[predicted]
    hit, true, guessed = (truth * predicted).sum(axis=0), truth.sum(axis=0), predicted.sum(axis=0)
    return [
        {
            "label": str(label),
            "precision": float(hit[c] / guessed[c]) if guessed[c] else None,
            "recall": float(hit[c] / true[c]) if true[c] else None,
            "f1": float(2 * hit[c] / (true[c] + guessed[c])) if true[c] + guessed[c] else None,
            "support": int(true[c]),
            "predicted": int(guessed[c]),
        }
        for c, label in enumerate(labels)
    ]


def top_confusions(
    confusion: Sequence[Sequence[int]] | Array, labels: Sequence[str], top: int = 20
) -> list[dict[str, Any]]:
    """The most frequent mistakes: `true`, `predicted`, `count`, `share` of the true label's rows."""
    counts = np.array(confusion, dtype=np.int64)
    support = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:top]
    pairs = [(int(cell) // len(labels), int(cell) % len(labels)) for cell in order]
    return [
        {
            "true": str(labels[t]),
            "predicted": str(labels[p]),
            "count": int(counts[t, p]),
            "share": float(counts[t, p] / support[t]),
        }
        for t, p in pairs
        if counts[t, p] > 0
    ]


def most_wrong(
    probabilities_NC: Array,
    truth: Array,
    labels: Sequence[str],
    texts: Sequence[str],
    *,
    where: Sequence[str] | None = None,
    top: int = 20,
) -> list[dict[str, Any]]:
    """The wrong rows with the least probability on the truth: a hard row, or a label that is itself wrong.

    One label a row (`truth` (N,)): sorted by the probability of the true label. Several (`truth` (N, C)): by
    the worst single decision of the row. Each: `text`, `where`, `true`, `predicted`, `probability` (of the
    predicted label; for several labels, of the decision that is most wrong), `true_probability`.
    """
    probabilities_NC, truth = np.asarray(probabilities_NC, dtype=np.float64), np.asarray(truth)
    found = []
    if truth.ndim == 1:
        predicted_N = probabilities_NC.argmax(axis=1)
        on_truth_N = probabilities_NC[np.arange(len(truth)), truth]
        wrong = np.flatnonzero(predicted_N != truth)
        for row in wrong[np.argsort(on_truth_N[wrong], kind="stable")][:top].tolist():
            found.append(
                {
                    "true": str(labels[int(truth[row])]),
                    "predicted": str(labels[predicted_N[row]]),
                    "row": int(row),
                    "probability": float(probabilities_NC[row].max()),
                    "true_probability": float(on_truth_N[row]),
                }
            )
    else:
        on_truth_NC = np.where(truth.astype(bool), probabilities_NC, 1 - probabilities_NC)
        worst_N = on_truth_NC.argmin(axis=1)
        least_N = on_truth_NC.min(axis=1)
        wrong = np.flatnonzero(least_N < 0.5)
        for row in wrong[np.argsort(least_N[wrong], kind="stable")][:top].tolist():
            found.append(
                {
                    "true": _joined(labels, truth[row] > 0),
                    "predicted": _joined(labels, probabilities_NC[row] >= 0.5),
                    "row": int(row),
                    "probability": float(1 - least_N[row]),
                    "true_probability": float(least_N[row]),
                    "decision": str(labels[worst_N[row]]),
                }
            )
    for error in found:
        error["text"] = str(texts[error["row"]])
        error["where"] = str(where[error["row"]]) if where is not None else f"row {error['row'] + 1}"
    return found


def most_wrong_numbers(
    predicted_N: Array,
    truth_N: Array,
    texts: Sequence[str],
    *,
    where: Sequence[str] | None = None,
    top: int = 20,
) -> list[dict[str, Any]]:
    """The rows with the largest error: `text`, `where`, `true`, `predicted`, `error` (predicted - true)."""
    error_N = np.asarray(predicted_N, dtype=np.float64) - np.asarray(truth_N, dtype=np.float64)
    return [
        {
            "text": str(texts[row]),
            "where": str(where[row]) if where is not None else f"row {row + 1}",
            "row": int(row),
            "true": float(truth_N[row]),
            "predicted": float(predicted_N[row]),
            "error": float(error_N[row]),
        }
        for row in np.argsort(-np.abs(error_N), kind="stable")[:top].tolist()
    ]


def _joined(labels: Sequence[str], chosen_C: Array) -> str:
    return ", ".join(str(label) for label, is_chosen in zip(labels, chosen_C) if is_chosen) or "none"
