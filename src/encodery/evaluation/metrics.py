"""What predictions are worth: the metrics of labels, several labels and numbers, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from encodery.errors import DataError, TrainingError
from encodery.evaluation.calibration import BINS, equal_mass_bins
from encodery.evaluation.intervals import RESAMPLES, Metric, from_resamples, resampled_sums

SMALLEST_PROBABILITY = 1e-15  # a certain mistake costs -log(1e-15) = 34.5 nats instead of infinity
Array = NDArray[Any]


@dataclass(frozen=True)
class Meaning:
    """How a metric is called, which way is better, and what it says, for people."""

    title: str
    better: Literal["higher", "lower"]
    says: str


MEANINGS: dict[str, Meaning] = {
    "accuracy": Meaning("accuracy", "higher", "share of rows whose label is right"),
    "f1_macro": Meaning("macro F1", "higher", "mean over the labels of F1: every label counts the same"),
    "f1_micro": Meaning("micro F1", "higher", "F1 over all decisions together"),
    "f1_weighted": Meaning("weighted F1", "higher", "mean of F1 over the labels, weighted by their rows"),
    "mcc": Meaning("MCC", "higher", "Matthews correlation: 0 is chance, 1 is perfect"),
    "auroc": Meaning("AUROC", "higher", "chance that a row of the label scores above a row without it"),
    "log_loss": Meaning("log loss", "lower", "mean surprise about the true label, in nats"),
    "ece": Meaning("calibration error", "lower", "mean gap between confidence and share right, 15 equal-mass bins"),
    "brier": Meaning("Brier score", "lower", "squared distance between the probabilities and the truth"),
    "exact_match": Meaning("exact match", "higher", "share of rows whose whole set of labels is right"),
    "map": Meaning("mean average precision", "higher", "area under precision and recall, mean over the labels"),
    "mse": Meaning("mean squared error", "lower", "mean of the squared error"),
    "mae": Meaning("mean absolute error", "lower", "mean size of the error, in the unit of the label"),
    "pearson": Meaning("Pearson r", "higher", "linear correlation of predicted and true"),
    "spearman": Meaning("Spearman rho", "higher", "correlation of the ranks of predicted and true"),
    "r2": Meaning("R²", "higher", "share of the variance explained: 0 is guessing the mean"),
    "spread_loss": Meaning("spread loss", "lower", "how near other texts of a batch come to each text, in nats"),
    "mrr_10": Meaning("MRR@10", "higher", "1 / rank of the first right text, 0 below rank 10, mean over the queries"),
    "ndcg_10": Meaning("nDCG@10", "higher", "gain of the first 10 texts, discounted by rank, share of the best order"),
    "recall_10": Meaning("recall@10", "higher", "share of the right texts that are among the first 10"),
    "success_1": Meaning("success@1", "higher", "share of the queries whose first text is right"),
    "success_10": Meaning("success@10", "higher", "share of the queries with a right text among the first 10"),
    "mean_average_precision": Meaning("MAP", "higher", "precision at the ranks of the right texts, mean over them"),
    "bleu": Meaning("BLEU", "higher", "runs of 1 to 4 words shared with the references, 0 to 100 (sacreBLEU)"),
    "chrf": Meaning("chrF", "higher", "F of runs of 1 to 6 characters shared with the references, 0 to 100"),
    "rouge_1": Meaning("ROUGE-1", "higher", "F of the words shared with the nearest reference"),
    "rouge_2": Meaning("ROUGE-2", "higher", "F of the pairs of words shared with the nearest reference"),
    "rouge_l": Meaning("ROUGE-L", "higher", "F of the longest sequence of words shared with the nearest reference"),
    "written_exactly": Meaning("written exactly", "higher", "share of texts that are one of the references"),
    "next_accuracy": Meaning("next-token accuracy", "higher", "share of tokens guessed from those before them"),
    "perplexity": Meaning("perplexity", "lower", "between how many tokens it is torn: e to the mean surprise in nats"),
    "bits_per_byte": Meaning(
        "bits per byte", "lower", "surprise in bits for each byte of UTF-8, ends of texts counted"
    ),
    "answer_f1": Meaning(
        "F1 of answers", "higher", "shared words with the right answer, mean over the questions (SQuAD)"
    ),
    "answer_exact": Meaning("exact match", "higher", "share of questions answered word by word (SQuAD 2.0)"),
    "answerable_f1": Meaning("F1, answerable", "higher", "F1 of the questions that have an answer"),
    "answerable_exact": Meaning("exact match, answerable", "higher", "of the questions that have an answer"),
    "unanswerable_accuracy": Meaning(
        "unanswerable right", "higher", "share left unanswered of those without an answer"
    ),
    "answered_rightly": Meaning("answerability right", "higher", "share answered or left as they should be"),
    "answer_best_f1": Meaning("F1, best threshold", "higher", "with the threshold chosen on these rows: an upper end"),
    "choice_accuracy": Meaning("accuracy", "higher", "share of rows whose right option scores highest"),
    "quadratic_kappa": Meaning("quadratic kappa", "higher", "agreement beyond chance, far misses count more (Cohen)"),
    "rank_mae": Meaning("mean ranks off", "lower", "mean distance in ranks between the answer and the label"),
    "within_one": Meaning("at most one off", "higher", "share of rows at most one rank from the label"),
    "span_f1": Meaning("span F1", "higher", "F1 of spans, found whole and with their label, as CoNLL counts them"),
    "span_precision": Meaning("span precision", "higher", "share of the spans it gave that are right"),
    "span_recall": Meaning("span recall", "higher", "share of the true spans that it found"),
    "span_f1_macro": Meaning("macro span F1", "higher", "mean over the labels of span F1: every label counts the same"),
    "tag_accuracy": Meaning("tag accuracy", "higher", "share of words (or characters) whose tag is right"),
    "text_accuracy": Meaning("whole texts", "higher", "share of texts whose tags are all right"),
    "intent_accuracy": Meaning("intent accuracy", "higher", "share of texts whose class is right"),
    "frame_accuracy": Meaning("whole frames", "higher", "share of texts whose class and tags are all right"),
    "validation_loss": Meaning("validation loss", "lower", "mean loss on held-out rows, in nats"),
    "masked_loss": Meaning("masked-word loss", "lower", "mean surprise about a masked token, in nats"),
    "masked_accuracy": Meaning("masked-word accuracy", "higher", "share of masked tokens guessed exactly"),
    "told_auroc": Meaning(
        "AUROC of replaced words",
        "higher",
        "chance that a replaced word looks more replaced than one that stands as written: 0.5 is guessing",
    ),
    "told_loss": Meaning("loss of replaced words", "lower", "mean surprise whether a word was replaced, in nats"),
    "replaced_found": Meaning("replaced words found", "higher", "share of the replaced words that are told"),
    "generator_loss": Meaning(
        "generator's loss", "lower", "mean surprise of the generator about a masked token, in nats"
    ),
    "generator_accuracy": Meaning("generator's accuracy", "higher", "share of masked tokens that it guesses exactly"),
    "order_accuracy": Meaning(
        "order accuracy", "higher", "share of the pairs told right to follow each other or not: 0.5 is guessing"
    ),
    "order_loss": Meaning("order loss", "lower", "mean surprise whether the second text follows, in nats"),
    "written_loss": Meaning(
        "writing loss", "lower", "mean surprise of the decoder about a token to be written, in nats"
    ),
    "written_accuracy": Meaning("writing accuracy", "higher", "share of the tokens that the decoder writes exactly"),
    "vector_gain": Meaning(
        "gain by the vector",
        "higher",
        "nats a token by which a text surprises the decoder less with its own vector than with another's: 0 is no use",
    ),
    "hidden_loss": Meaning("loss of hidden parts", "lower", "mean loss of what is hidden or between the blocks"),
    "hidden_accuracy": Meaning("hidden words", "higher", "share of the hidden tokens that the encoder guesses exactly"),
    "hidden_cosine": Meaning(
        "cosine to the teacher", "higher", "of the last vectors of each token, mapped to its width"
    ),
    "vector_cosine": Meaning(
        "cosine of vectors", "higher", "of each text's vector to the teacher's, mapped to its width"
    ),
    "attention_loss": Meaning("distance of attention", "lower", "KL to the teacher's attention in nats: 0 is the same"),
}


def score_labels(
    probabilities_NC: Array,
    truth_N: Array,
    labels: Sequence[str],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> dict[str, Metric]:
    """Score one label a row: `probabilities_NC` (N, C) in the order of `labels`, `truth_N` (N,) numbers.

    F1 means leave out labels that neither occur nor are predicted (as scikit-learn does when labels are not
    listed). AUROC: for two labels, of the second; for more, one against the rest, mean over the labels that
    occur. ECE: 15 equal-mass bins of the top probability, made once from all rows. Brier: for two labels (p -
    y)^2, for more the sum over the labels. Intervals: 1,000 resamples of rows; AUROC to first order (see
    `_auroc`).

    Raises DataError (shapes, unknown labels), TrainingError (probabilities that are not finite).
    """
    probabilities_NC = _checked(probabilities_NC, (len(truth_N), len(labels)))
    truth_N = np.asarray(truth_N, dtype=np.int64)
    rows, kinds = probabilities_NC.shape
    if rows and (truth_N.min() < 0 or truth_N.max() >= kinds):
        wrong = int(truth_N[(truth_N < 0) | (truth_N >= kinds)][0])
        raise DataError(
            f"label number {wrong} among the true labels",
            expected=f"0 to {kinds - 1}",
            fix="rows whose label was not seen in training cannot be scored; leave them out and say so",
        )
    predicted_N = probabilities_NC.argmax(axis=1)
    right_N = predicted_N == truth_N
    surprise_N = -np.log(np.maximum(probabilities_NC[np.arange(rows), truth_N], SMALLEST_PROBABILITY))
    distance_N = np.square(probabilities_NC - np.eye(kinds)[truth_N]).sum(axis=1) / (2 if kinds == 2 else 1)
    auroc, auroc_N, auroc_note = _auroc_of_labels(probabilities_NC, truth_N)
    bin_N = equal_mass_bins(probabilities_NC.max(axis=1), BINS)
    gap_NB = np.eye(BINS)[bin_N] * (right_N - probabilities_NC.max(axis=1))[:, None]
    features = np.column_stack([surprise_N, distance_N, auroc_N, gap_NB])
    hit_N = np.where(right_N, truth_N, kinds)  # the extra kind holds the wrong rows
    sums, (true_RC, guessed_RC, hit_RC) = resampled_sums(
        features, rng, resamples, [(truth_N, kinds), (predicted_N, kinds), (hit_N, kinds + 1)]
    )
    hit_RC = hit_RC[:, :kinds]
    f1_RC, seen_RC = _f1(hit_RC, true_RC, guessed_RC)
    left_out = int((~seen_RC[0]).sum())
    note = f"{left_out} labels without rows or predictions left out" if left_out else ""
    accuracy_R = hit_RC.sum(axis=1) / rows
    one_class = "" if len(np.unique(truth_N)) > 1 else "only one label among the true ones"
    mcc = Metric(None, note=one_class) if one_class else from_resamples(_mcc(hit_RC, true_RC, guessed_RC))
    return {
        "accuracy": from_resamples(accuracy_R),
        "f1_macro": from_resamples(_mean_where(f1_RC, seen_RC), note=note),
        "f1_micro": from_resamples(accuracy_R, note="equals accuracy when every row has one label"),
        "f1_weighted": from_resamples((f1_RC * true_RC).sum(axis=1) / rows),
        "mcc": mcc,
        "auroc": from_resamples(auroc + sums[:, 2], note=auroc_note, bounds=(0, 1)),
        "log_loss": from_resamples(sums[:, 0] / rows),
        "ece": from_resamples(np.abs(sums[:, 3:]).sum(axis=1) / rows, bounds=(0, 1), recentre=True),
        "brier": from_resamples(sums[:, 1] / rows),
    }


def score_multilabel(
    probabilities_NC: Array,
    truth_NC: Array,
    labels: Sequence[str],
    *,
    rng: np.random.Generator,
    threshold: float = 0.5,
    resamples: int = RESAMPLES,
) -> dict[str, Metric]:
    """Score any number of labels a row: `truth_NC` (N, C) of 0 and 1, predicted from `threshold` up.

    Labels without a true row have no average precision and no AUROC and are left out of both means, said in
    the note.
    """
    truth_NC = np.asarray(truth_NC).astype(bool)
    probabilities_NC = _checked(probabilities_NC, (len(truth_NC), len(labels)))
    if truth_NC.shape != probabilities_NC.shape:
        raise DataError(
            f"true labels of shape {truth_NC.shape}", expected=f"{probabilities_NC.shape}: a column a label"
        )
    rows, kinds = truth_NC.shape
    guessed_NC = probabilities_NC >= threshold
    aurocs = [_auroc(probabilities_NC[:, label], truth_NC[:, label]) for label in range(kinds)]
    precisions = [_average_precision(probabilities_NC[:, label], truth_NC[:, label]) for label in range(kinds)]
    auroc, auroc_N, auroc_note = _mean_of_linear(aurocs, rows)
    precision, precision_N, precision_note = _mean_of_linear(precisions, rows)
    exact_N = (guessed_NC == truth_NC).all(axis=1)
    features = np.column_stack([exact_N, auroc_N, precision_N, guessed_NC & truth_NC, truth_NC, guessed_NC])
    sums, _ = resampled_sums(features, rng, resamples)
    hit_RC, true_RC, guessed_RC = np.split(sums[:, 3:], 3, axis=1)
    f1_RC, seen_RC = _f1(hit_RC, true_RC, guessed_RC)
    micro_R, _ = _f1(hit_RC.sum(axis=1), true_RC.sum(axis=1), guessed_RC.sum(axis=1))
    left_out = int((~seen_RC[0]).sum())
    return {
        "f1_micro": from_resamples(micro_R),
        "f1_macro": from_resamples(
            _mean_where(f1_RC, seen_RC),
            note=f"{left_out} labels without rows or predictions left out" if left_out else "",
        ),
        "exact_match": from_resamples(sums[:, 0] / rows),
        "map": from_resamples(precision + sums[:, 2], note=precision_note, bounds=(0, 1)),
        "auroc": from_resamples(auroc + sums[:, 1], note=auroc_note, bounds=(0, 1)),
    }


def score_numbers(
    predicted_N: Array, truth_N: Array, *, rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, Metric]:
    """Score predicted numbers (N,) against true ones (N,). Correlations of a constant are not defined (None).

    Spearman's interval keeps the ranks of the whole sample fixed, which differs from ranking anew by O(1/N).
    """
    from scipy.stats import rankdata

    truth_N = np.asarray(truth_N, dtype=np.float64).reshape(-1)
    predicted_N = _checked(predicted_N, truth_N.shape)
    error_N = predicted_N - truth_N
    middle = truth_N.mean() if len(truth_N) else 0.0  # centred: sums of squares lose no digits
    x_N, y_N = predicted_N - middle, truth_N - middle
    u_N, v_N = rankdata(x_N) - (len(x_N) + 1) / 2, rankdata(y_N) - (len(y_N) + 1) / 2
    features = [error_N**2, np.abs(error_N)]
    features += [x_N, y_N, x_N**2, y_N**2, x_N * y_N, u_N, v_N, u_N**2, v_N**2, u_N * v_N]
    sums, _ = resampled_sums(np.column_stack(features), rng, resamples)
    means = sums / len(truth_N)
    spread_R = means[:, 5] - means[:, 3] ** 2
    constant = "the true numbers are all the same" if np.ptp(truth_N) == 0 else ""
    flat = constant or ("the predicted numbers are all the same" if np.ptp(predicted_N) == 0 else "")
    with np.errstate(divide="ignore", invalid="ignore"):
        r2_R = np.where(spread_R > 0, 1 - means[:, 0] / spread_R, np.nan)
    return {
        "mse": from_resamples(means[:, 0]),
        "mae": from_resamples(means[:, 1]),
        "pearson": Metric(None, note=flat) if flat else from_resamples(_correlation(means[:, 2:7])),
        "spearman": Metric(None, note=flat) if flat else from_resamples(_correlation(means[:, 7:12])),
        "r2": Metric(None, note=constant) if constant else from_resamples(r2_R),
    }


def _checked(values: Array, shape: tuple[int, ...]) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 2 and len(shape) == 1 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != shape:
        raise DataError(f"predictions of shape {values.shape}", expected=f"{shape}: a row for every true label")
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        raise TrainingError(
            f"the prediction for row {row + 1} is not a finite number",
            expected="finite predictions",
            fix="the weights have diverged: train again with a smaller learning rate",
        )
    return values


def _f1(hit: Array, true: Array, guessed: Array) -> tuple[Array, Array]:
    """F1 = 2 hit / (true + guessed), 0 where it has no rows, and where it has rows at all."""
    seen = (true + guessed) > 0
    return 2 * hit / np.where(seen, true + guessed, 1), seen


def _mean_where(values_RC: Array, seen_RC: Array) -> Array:
    return (values_RC * seen_RC).sum(axis=1) / np.maximum(seen_RC.sum(axis=1), 1)


def _mcc(hit_RC: Array, true_RC: Array, guessed_RC: Array) -> Array:
    """Matthews correlation for any number of labels (Gorodkin 2004); 0 where all rows get one label."""
    rows = true_RC.sum(axis=1)
    covariance = hit_RC.sum(axis=1) * rows - (true_RC * guessed_RC).sum(axis=1)
    spread = (rows**2 - (true_RC**2).sum(axis=1)) * (rows**2 - (guessed_RC**2).sum(axis=1))
    return np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)


def _correlation(means_R5: Array) -> Array:
    x, y, xx, yy, xy = means_R5.T
    spread = (xx - x**2) * (yy - y**2)
    return np.where(spread > 0, (xy - x * y) / np.sqrt(np.where(spread > 0, spread, 1)), np.nan)


Linear = tuple[float, Array]  # a value, and what one more copy of each row would add to it


def _auroc(score_N: Array, is_N: Array) -> Linear | None:
    """AUROC with what each row adds to it, from placement values (DeLong, DeLong and Clarke-Pearson 1988).

    A resample that holds row n w_n times has, to first order, AUROC + sum_n w_n add_n (the adds sum to 0).
    This makes the bootstrap a matrix product and keeps it defined when a resample misses a label. None if one
    is absent.
    """
    from scipy.stats import rankdata

    is_N = np.asarray(is_N, dtype=bool)
    inside, outside = int(is_N.sum()), int((~is_N).sum())
    if inside == 0 or outside == 0:
        return None
    rank_N = rankdata(score_N)
    above = (rank_N[is_N] - rankdata(score_N[is_N])) / outside
    below = 1 - (rank_N[~is_N] - rankdata(score_N[~is_N])) / inside
    value = float(above.mean())
    add_N = np.empty(len(score_N))
    add_N[is_N], add_N[~is_N] = (above - value) / inside, (below - value) / outside
    return value, add_N


def _average_precision(score_N: Array, is_N: Array) -> Linear | None:
    """Average precision (ties at one threshold) and its derivative by the weight of each row."""
    inside = int(is_N.sum())
    if inside == 0:
        return None
    order = np.argsort(-score_N, kind="stable")
    score, is_true = score_N[order], is_N[order].astype(np.float64)
    last = np.searchsorted(-score, -score, side="right") - 1  # the end of the group of equal scores
    first = np.searchsorted(-score, -score, side="left")
    taken = last + 1.0
    precision = np.cumsum(is_true)[last] / taken
    value = float((is_true * precision).sum() / inside)
    # Row j enters the precision of every true row i scored no higher: suffix sums from its group's start.
    tail = np.cumsum((is_true / taken)[::-1])[::-1][first]
    tail_precision = np.cumsum((is_true * precision / taken)[::-1])[::-1][first]
    add = (is_true * (precision - value) + is_true * tail - tail_precision) / inside
    add_N = np.empty(len(score_N))
    add_N[order] = add - add.mean()
    return value, add_N


def _mean_of_linear(parts: Sequence[Linear | None], rows: int) -> tuple[float, Array, str]:
    """Mean of the defined parts, its adds and a note about those left out."""
    known = [part for part in parts if part is not None]
    if not known:
        return float("nan"), np.zeros(rows), "needs rows with the label and rows without it"
    add_N = np.mean([add for _, add in known], axis=0)
    missing = len(parts) - len(known)
    note = f"{missing} labels that do not vary among the true ones left out" if missing else ""
    return float(np.mean([value for value, _ in known])), add_N, note


def _auroc_of_labels(probabilities_NC: Array, truth_N: Array) -> tuple[float, Array, str]:
    kinds = probabilities_NC.shape[1]
    wanted = [1] if kinds == 2 else range(kinds)
    parts = [_auroc(probabilities_NC[:, kind], truth_N == kind) for kind in wanted]
    value, add_N, note = _mean_of_linear(parts, len(truth_N))
    if not np.isfinite(value):
        note = "only one label among the true ones"
    return value, add_N, note
