"""Fit the linear n-gram answer on the training rows: a convex problem, solved at once instead of by steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encodery.batch import Batch
from encodery.evaluation.calibration import fit_temperature, surprise
from encodery.heads.lexical import LexicalScores
from encodery.objectives.supervised import Supervised

Array = NDArray[Any]
PLAIN, CONTRAST, NAIVE = "plain", "contrast", "contrast drawn to naive Bayes"

# More documents than these change the answer hardly at all, and their features lie in memory.
FITTED_DOCUMENTS = 200_000
STRENGTHS = (10.0, 30.0)  # C of the logistic regression: the larger, the less it is held back
PAIR_STRENGTHS = (1.0, *STRENGTHS)  # how two texts belong together is told by fewer features than what one is about
PENALTY = 1.0  # of the ridge regression
# With more classes than these only the plain way is tried: each class costs two fits for every other one.
CONTRASTED_CLASSES = 20
NAIVE_SHARE = 0.75  # how far the weights are drawn to those of naive Bayes (1 - beta in Wang and Manning 2012)


def fit_ngrams(
    scores: LexicalScores,
    objective: Supervised,
    known: Iterable[Batch],
    held: Iterable[Batch] | None,
    heed_stop: Callable[[], None] = lambda: None,
) -> str:
    """Set rarity, weights and bias of `scores` from the labelled batches `known`; returns in words what was done.

    Three answers are tried, and the one least surprised by the validation batches `held` (after a temperature) is
    taken: logistic regression on the rarities ("plain", also taken without `held`); on the rarities times the
    log ratio of an n-gram's frequencies inside and outside a class ("contrast"); and the same with its weights drawn
    to their mean, which is naive Bayes ("Baselines and Bigrams", Wang and Manning 2012, equations 4 to 8). More than
    20 classes get the plain one. Numbers get ridge regression on the rarities. Classes are told apart one against
    the rest.
    """
    batches = list(_first(known, FITTED_DOCUMENTS))
    scores.count(batches)
    seen = np.flatnonzero(scores.rarity.numpy())
    rows, labels = _matrix(scores, batches, seen)
    if objective.config.kind == "regress":
        from sklearn.linear_model import Ridge

        model = Ridge(alpha=PENALTY).fit(rows, (labels - objective.center) / objective.scale)
        _set(scores, seen, model.coef_[:, None], np.array([model.intercept_]))
        return "ridge regression"
    strengths = PAIR_STRENGTHS if scores.sides else STRENGTHS
    answers = _classifiers(rows, labels, objective, strengths, heed_stop)
    if held is None:
        way, weight, bias = next(answers)
    else:
        held_rows, truth = _matrix(scores, list(held), seen)
        usable = truth >= 0 if truth.ndim == 1 else np.ones(len(truth), dtype=bool)
        # One answer at a time, and the best so far: with many classes each is large.
        way, weight, bias = min(answers, key=lambda answer: _surprise(held_rows @ answer[1] + answer[2], truth, usable))
    _set(scores, seen, weight, bias)
    return f"logistic regression, {way}"


def _first(batches: Iterable[Batch], documents: int) -> Iterable[Batch]:
    seen = 0
    for batch in batches:
        yield batch
        seen += batch.layout.documents
        if documents <= seen:
            return


def _matrix(scores: LexicalScores, batches: list[Batch], seen: Array) -> tuple[Any, Array]:
    """The features `seen` of every document, sparse (N, seen), and the labels."""
    from scipy.sparse import csr_matrix

    found = [[part.numpy() for part in scores.features(batch)] for batch in batches]
    before = [0, *accumulate(batch.layout.documents for batch in batches)]
    documents = np.concatenate([document + first for (document, _, _), first in zip(found, before)])
    features, values = (np.concatenate([each[part] for each in found]) for part in (1, 2))
    of_seen = values > 0
    columns = np.searchsorted(seen, features[of_seen])
    shape = (before[-1], len(seen))
    rows = csr_matrix((values[of_seen].astype(np.float64), (documents[of_seen], columns)), shape=shape)
    return rows, np.concatenate([batch.truth["label"].numpy() for batch in batches])


def _classifiers(
    rows: Any, labels: Array, objective: Supervised, strengths: Sequence[float], heed_stop: Callable[[], None]
) -> Iterator[tuple[str, Array, Array]]:
    """(how it was found, weights (features, C), biases (C,)), one after the other, the plainest first."""
    classes = len(objective.labels)
    weights = None if objective.weights is None else objective.weights.numpy().astype(np.float64)
    of_class = labels if labels.ndim == 2 else np.eye(classes)[labels]
    importance = None if weights is None or labels.ndim == 2 else weights[labels]
    # Two classes are one question, its answer shared between them.
    asked = [1] if labels.ndim == 1 and classes == 2 else list(range(classes))
    truths = [of_class[:, label] > 0.5 for label in asked]

    def joined(columns: list[tuple[Array, float]]) -> tuple[Array, Array]:
        weight, bias = np.stack([w for w, _ in columns], axis=1), np.array([b for _, b in columns])
        if len(asked) == classes:
            return weight, bias
        return np.hstack([-weight, weight]) / 2, np.hstack([-bias, bias]) / 2

    for strength in strengths:
        plain, contrast, naive = [], [], []
        for truth in truths:
            heed_stop()
            plain.append(_fit(rows, truth, importance, strength))
            if classes > CONTRASTED_CLASSES:
                continue
            ratio = _log_ratio(rows, truth)
            w, b = _fit(rows.multiply(ratio).tocsr(), truth, importance, strength)
            contrast.append((w * ratio, b))
            drawn = NAIVE_SHARE * np.abs(w).mean() + (1 - NAIVE_SHARE) * w
            naive.append((drawn * ratio, b * (1 - NAIVE_SHARE)))
        for way, columns in ((PLAIN, plain), (CONTRAST, contrast), (NAIVE, naive)):
            if columns:
                yield f"{way}, C = {strength:g}", *joined(columns)


def _fit(rows: Any, truth: Array, importance: Array | None, strength: float) -> tuple[Array, float]:
    from sklearn.linear_model import LogisticRegression

    if truth.all() or not truth.any():  # a label that all documents have, or none
        return np.zeros(rows.shape[1]), 10.0 if truth.all() else -10.0
    model = LogisticRegression(C=strength, solver="liblinear", intercept_scaling=10)
    model.fit(rows, truth, sample_weight=importance)
    return np.ravel(model.coef_), float(np.ravel(model.intercept_)[0])


def _log_ratio(rows: Any, truth: Array) -> Array:
    """log of a feature's share inside the class over its share outside, each count plus 1."""
    present = rows.astype(bool).astype(np.float64)
    inside = truth.astype(np.float64) @ present
    everywhere = np.asarray(present.sum(axis=0)).ravel()
    p, q = 1.0 + inside, 1.0 + everywhere - inside
    return np.log(p / p.sum()) - np.log(q / q.sum())


def _surprise(logits: Array, truth: Array, usable: Array) -> float:
    logits, truth = logits[usable], truth[usable]
    return surprise(logits / fit_temperature(logits, truth), truth)


def _set(scores: LexicalScores, seen: Array, weight: Array, bias: Array) -> None:
    with torch.no_grad():
        scores.weight.zero_()
        scores.weight[torch.from_numpy(seen)] = torch.from_numpy(weight).float()
        scores.bias.copy_(torch.from_numpy(bias))
