"""Multiple choice against the right options: accuracy, and what the place of an option or its words alone give."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encodery.errors import DataError
from encodery.evaluation.baselines import TextFeatures
from encodery.evaluation.intervals import RESAMPLES, Metric, from_resamples, resampled_sums
from encodery.evaluation.metrics import SMALLEST_PROBABILITY

Array = NDArray[Any]


def shares(scores: Array) -> Array:
    """Softmax over the options of one row."""
    shares = np.exp(np.asarray(scores, dtype=np.float64) - np.max(scores))
    return shares / shares.sum()


def each_right(scores: Sequence[Array], right: Sequence[int]) -> Array:
    """(N,) 1 where the right option scores above all others; a tie with k others counts 1 / (k + 1)."""
    found = np.zeros(len(right))
    for row, (options, number) in enumerate(zip(scores, right)):
        best = options >= np.max(options)
        found[row] = best[number] / best.sum()
    return found


def score_choices(
    scores: Sequence[Array], right: Sequence[int], *, rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, Metric]:
    """Accuracy and log loss of ragged scores, an array for each row, with intervals over the rows; beside them what
    guessing would get. Raises DataError when there are no rows, or not as many scores as rows."""
    if len(scores) != len(right):
        raise DataError(f"scores of {len(scores)} rows, {len(right)} right options", expected="as many of each")
    hit = each_right(scores, right)
    surprise = [-np.log(max(shares(one)[number], SMALLEST_PROBABILITY)) for one, number in zip(scores, right)]
    sums, _ = resampled_sums(np.column_stack([hit, surprise]), rng, resamples)
    chance = float(np.mean([1 / len(one) for one in scores]))
    return {
        "choice_accuracy": from_resamples(sums[:, 0] / len(right), note=f"guessing gets {chance:.3f}"),
        "log_loss": from_resamples(sums[:, 1] / len(right)),
    }


@dataclass(frozen=True)
class RuleChoices:
    """The scores that a simple rule gives to the options of each row, and what it cost."""

    name: str
    scores: list[Array]
    seconds: float
    note: str = ""


def majority_place(train_right: Sequence[int], options: Sequence[int]) -> RuleChoices:
    """The place where the right option stands most often in training, of those places that a row has. `options` say how
    many options each scored row has."""
    counts = Counter(train_right)
    scores = [np.array([float(counts[place]) for place in range(size)]) for size in options]
    note = f"most often option {counts.most_common(1)[0][0] + 1}" if counts else "no training rows"
    return RuleChoices("majority place", scores, 0.0, note)


def word_overlap(
    train_texts: Sequence[str], train_options: Sequence[Sequence[str]], texts: Sequence[str],
    options: Sequence[Sequence[str]],
) -> RuleChoices:  # fmt: skip
    """The option whose TF-IDF vector has the largest cosine with that of the text; the weights of the n-grams are those
    of the training texts and options."""
    began = time.perf_counter()
    flat = [option for row in train_options for option in row]
    features = TextFeatures([*train_texts, *flat], None, None)
    if not len(texts):
        return RuleChoices("TF-IDF overlap", [], time.perf_counter() - began, features.says)
    lengths = [len(row) for row in options]
    text_NF = features.of(texts, None)
    option_MF = features.of([option for row in options for option in row], None)
    owner = np.repeat(np.arange(len(texts)), lengths)
    # Both have length 1, so the products are cosines.
    cosine = np.asarray(text_NF[owner].multiply(option_MF).sum(axis=1)).reshape(-1)
    scores = np.split(cosine, np.cumsum(lengths)[:-1])
    return RuleChoices("TF-IDF overlap", scores, time.perf_counter() - began, features.says)
