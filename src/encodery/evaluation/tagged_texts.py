"""What tags are worth: accuracy of units, spans as CoNLL counts them, a table of labels; intervals over texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encodery.data.tags import SchemeName, Span, spans_of, strict_spans
from encodery.errors import DataError
from encodery.evaluation.intervals import RESAMPLES, Metric, from_resamples, resampled_sums

Array = NDArray[Any]
Tags = Sequence[Sequence[str]]


@dataclass(frozen=True)
class SpanCounts:
    """Per text and label: spans found exactly, spans predicted, true spans, (N, C) each; `labels` are the C."""

    labels: tuple[str, ...]
    hit: Array
    predicted: Array
    true: Array

    @property
    def features(self) -> Array:
        """(N, 3 C)."""
        return np.concatenate([self.hit, self.predicted, self.true], axis=1)


def count_spans(predicted: Tags, truth: Tags, *, strict: SchemeName | None = None) -> SpanCounts:
    """Count spans as conlleval does: one is right when its first unit, its last unit and its label are. With `strict`,
    only spans written as this scheme wants count, on both sides (seqeval's strict mode)."""
    _same_sizes(predicted, truth)

    def read(tags: Sequence[str]) -> list[Span]:
        return spans_of(tags) if strict is None else strict_spans(tags, strict)

    pairs = [(set(read(said)), set(read(true))) for said, true in zip(predicted, truth)]
    labels = tuple(sorted({span.label for said, true in pairs for span in said | true}))
    number = {label: place for place, label in enumerate(labels)}
    counts = np.zeros((3, len(pairs), len(labels)), dtype=np.int64)
    for row, (said, true) in enumerate(pairs):
        for kind, spans in enumerate((said & true, said, true)):
            for span in spans:
                counts[kind, row, number[span.label]] += 1
    return SpanCounts(labels, *counts)


def score_tags(
    predicted: Tags,
    truth: Tags,
    scheme: SchemeName,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> dict[str, Metric]:
    """Share of units (and of whole texts) whose tags are right; where tags mark spans, precision, recall and F1 of
    spans over all labels together (micro), and F1 as the mean over the labels. Intervals come from resampled texts.

    Raises DataError where texts or units differ in number.
    """
    _same_sizes(predicted, truth)
    right_N, units_N = right_units(predicted, truth)
    whole_N = right_N == units_N
    parts = [np.column_stack([right_N, units_N, whole_N])]
    spans = None if scheme == "none" else count_spans(predicted, truth)
    if spans is not None:
        parts.append(spans.features)
    sums, _ = resampled_sums(np.concatenate(parts, axis=1), rng, resamples)
    found = {
        "tag_accuracy": from_resamples(_share(sums[:, 0], sums[:, 1])),
        "text_accuracy": from_resamples(sums[:, 2] / len(truth)),
    }
    if spans is None:
        return found
    hit_RC, predicted_RC, true_RC = np.split(sums[:, 3:], 3, axis=1)
    hit, said, true = hit_RC.sum(1), predicted_RC.sum(1), true_RC.sum(1)
    nothing = "" if true[0] else "no true spans"
    of_labels = _share(2 * hit_RC, predicted_RC + true_RC)
    return {
        "span_f1": from_resamples(_share(2 * hit, said + true), note=nothing),
        "span_precision": from_resamples(_share(hit, said)),
        "span_recall": from_resamples(_share(hit, true), note=nothing),
        "span_f1_macro": from_resamples(_mean_of_known(of_labels)),
        **found,
    }


def span_table(counts: SpanCounts, *, rng: np.random.Generator, resamples: int = RESAMPLES) -> list[dict[str, Any]]:
    """A line for each label: precision, recall and F1 of its spans, how many there are, and the interval of F1."""
    if not counts.labels:
        return []
    sums, _ = resampled_sums(counts.features, rng, resamples)
    return _table(counts.labels, *np.split(sums, 3, axis=1))


def tag_table(
    predicted: Tags, truth: Tags, *, rng: np.random.Generator, resamples: int = RESAMPLES
) -> list[dict[str, Any]]:
    """The same for tags that stand for themselves, unit by unit."""
    _same_sizes(predicted, truth)
    labels = tuple(sorted({tag for rows in (predicted, truth) for tags in rows for tag in tags}))
    number = {label: place for place, label in enumerate(labels)}
    counts = np.zeros((3, len(truth), len(labels)), dtype=np.int64)
    for row, (said, true) in enumerate(zip(predicted, truth)):
        for one, other in zip(said, true):
            counts[1, row, number[one]] += 1
            counts[2, row, number[other]] += 1
            counts[0, row, number[one]] += one == other
    return span_table(SpanCounts(labels, *counts), rng=rng, resamples=resamples)


def _table(labels: Sequence[str], hit_RC: Array, said_RC: Array, true_RC: Array) -> list[dict[str, Any]]:
    precision, recall = _share(hit_RC, said_RC), _share(hit_RC, true_RC)
    f1 = _share(2 * hit_RC, said_RC + true_RC)
    rows: list[dict[str, Any]] = []
    for place, label in enumerate(labels):
        metric = from_resamples(f1[:, place])
        rows.append(
            {
                "label": label,
                "precision": _known(precision[0, place]),
                "recall": _known(recall[0, place]),
                "f1": metric.value,
                "f1_low": metric.low,
                "f1_high": metric.high,
                "support": int(true_RC[0, place]),
                "predicted": int(said_RC[0, place]),
            }
        )
    return sorted(rows, key=lambda row: (-row["support"], row["label"]))


def right_units(predicted: Tags, truth: Tags) -> tuple[Array, Array]:
    """(units with the right tag, units) of each text, (N,) each."""
    right = [sum(one == other for one, other in zip(said, true)) for said, true in zip(predicted, truth)]
    return np.array(right, dtype=np.int64), np.array([len(true) for true in truth], dtype=np.int64)


def each_text(predicted: Tags, truth: Tags, scheme: SchemeName) -> NDArray[np.float64]:
    """One number a text (N,) whose mean is the main metric, for differences of two models on the same texts.

    Accuracy of units: the right ones of a text, by the mean number of units. F1 of spans is a ratio of sums; to first
    order a text changes it by (2 hit - F1 (predicted + true)) / (mean of predicted + true).
    """
    if scheme == "none":
        right_N, units_N = right_units(predicted, truth)
        return right_N / max(units_N.mean(), 1e-12)
    counts = count_spans(predicted, truth)
    hit_N, both_N = counts.hit.sum(1), (counts.predicted + counts.true).sum(1)
    if not both_N.sum():
        return np.zeros(len(truth))
    value = 2 * hit_N.sum() / both_N.sum()
    return value + (2 * hit_N - value * both_N) / both_N.mean()


def _share(part: Array, whole: Array) -> NDArray[np.float64]:
    """part / whole; 0 where nothing was predicted or is there, as conlleval has it, NaN where neither is."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)


def _mean_of_known(values_RC: Array) -> NDArray[np.float64]:
    known = np.isfinite(values_RC)
    total = np.where(known, values_RC, 0.0).sum(axis=1)
    return _share(total, known.sum(axis=1))


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _same_sizes(predicted: Tags, truth: Tags) -> None:
    if len(predicted) != len(truth):
        raise DataError(f"{len(predicted)} tagged texts but {len(truth)} true ones", expected="as many of each")
    for number, (said, true) in enumerate(zip(predicted, truth)):
        if len(said) != len(true):
            raise DataError(f"text {number + 1}: {len(said)} tags but {len(true)} true ones", expected="one a unit")
