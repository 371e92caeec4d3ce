"""The n-gram answer fitted at once: it solves what it should, for every kind of label, and says which way it chose."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from encodery.batch import Batch, layout_of
from encodery.heads.lexical import LexicalScores
from encodery.objectives.supervised import Supervised, SupervisedConfig
from encodery.training.ngrams import CONTRAST, NAIVE, PLAIN, fit_ngrams

WORDS, LENGTH = 60, 8


def batches(rows: int, label_of, seed: int, label_type: type = np.int64) -> list[Batch]:
    """Documents of drawn words, one a row of the layout, labelled by their words."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(rows // 20):
        words = rng.integers(0, WORDS, size=(20, LENGTH))
        labels = np.array([label_of(row) for row in words], dtype=label_type)
        layout = layout_of([[LENGTH]] * 20, LENGTH)
        found.append(Batch({"ids": torch.from_numpy(words.ravel())}, layout, {"label": torch.from_numpy(labels)}))
    return found


def answers(scores: LexicalScores, held: list[Batch]) -> tuple[np.ndarray, np.ndarray]:
    logits = np.concatenate([scores(batch).numpy() for batch in held])
    return logits, np.concatenate([batch.truth["label"].numpy() for batch in held])


def supervised(kind: str, labels: list[str], **more) -> Supervised:
    return Supervised(SupervisedConfig.model_validate({"kind": kind, "ngrams": 2, **more}), labels=labels)


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_that_words_tell_apart_are_learned(classes: int) -> None:
    """The class is the third of the vocabulary that most words come from."""
    label = lambda words: np.bincount(words * classes // WORDS, minlength=classes).argmax()  # noqa: E731
    scores = LexicalScores(classes, longest=2, buckets=1 << 14)
    held = batches(400, label, seed=2)
    fit_ngrams(scores, supervised("classify", [str(n) for n in range(classes)]), batches(2000, label, seed=1), held)
    logits, truth = answers(scores, held)
    assert (logits.argmax(axis=1) == truth).mean() > 0.8  # even counts are ties, and go to the first class
    assert not scores.weight.requires_grad


def test_each_of_many_labels_is_learned() -> None:
    label = lambda words: [7 in words, 8 in words]  # noqa: E731
    scores = LexicalScores(2, longest=1, buckets=1 << 14)
    held = batches(400, label, seed=2)
    fit_ngrams(scores, supervised("multilabel", ["seven", "eight"]), batches(2000, label, seed=1), held)
    logits, truth = answers(scores, held)
    assert ((logits > 0) == (truth > 0)).mean() > 0.98


def test_numbers_come_out_standardised() -> None:
    label = lambda words: 100.0 + 10.0 * (words < WORDS // 2).sum()  # noqa: E731
    objective = supervised("regress", [])
    objective.center, objective.scale = 140.0, 14.0
    scores = LexicalScores(1, longest=1, buckets=1 << 14)
    held = batches(400, label, seed=2, label_type=np.float64)
    fit_ngrams(scores, objective, batches(2000, label, seed=1, label_type=np.float64), held)
    logits, truth = answers(scores, held)
    assert np.corrcoef(logits[:, 0] * 14.0 + 140.0, truth)[0, 1] > 0.95
    assert np.abs(logits[:, 0] * 14.0 + 140.0 - truth).mean() < 5


def test_without_validation_rows_the_plain_way_is_taken_and_with_them_the_best() -> None:
    """A few telling words among much noise and few rows: ratios between the classes find them, rarities do not."""
    rng = np.random.default_rng(0)

    def known_and_held(rows: int) -> list[Batch]:
        found = []
        for _ in range(rows // 20):
            labels = rng.integers(0, 2, 20)
            words = rng.integers(100, 600, size=(20, 30))
            words[:, :2] = rng.integers(0, 20, size=(20, 2)) + 20 * labels[:, None]
            layout = layout_of([[30]] * 20, 30)
            found.append(Batch({"ids": torch.from_numpy(words.ravel())}, layout, {"label": torch.from_numpy(labels)}))
        return found

    objective = supervised("classify", ["no", "yes"])
    known, held = known_and_held(100), known_and_held(2000)
    plain, best = (LexicalScores(2, longest=1, buckets=1 << 14) for _ in range(2))
    assert fit_ngrams(plain, objective, known, None).startswith(f"logistic regression, {PLAIN}")
    assert any(way in fit_ngrams(best, objective, known, held) for way in (CONTRAST, NAIVE))
    right = [np.mean(logits.argmax(1) == truth) for logits, truth in (answers(best, held), answers(plain, held))]
    assert right[0] > right[1] + 0.02


def test_a_label_of_all_rows_or_none_is_answered_without_a_fit() -> None:
    label = lambda words: [True, False, 7 in words]  # noqa: E731
    scores = LexicalScores(3, longest=1, buckets=1 << 14)
    known = batches(400, label, seed=1)
    fit_ngrams(scores, supervised("multilabel", ["all", "none", "seven"]), known, known)
    logits, _ = answers(scores, known)
    assert (logits[:, 0] > 0).all() and (logits[:, 1] < 0).all()


def test_class_weights_count_here_too() -> None:
    """One row in ten is of the rare class; balanced weights make the answer say it more often."""
    rng = np.random.default_rng(0)
    label = lambda words: int((words < 12).sum() + rng.normal(0, 1) > 3.2)  # noqa: E731
    known = batches(2000, label, seed=1)
    counts = np.bincount(np.concatenate([batch.truth["label"].numpy() for batch in known]))
    said = []
    for weights in ("none", "balanced"):
        config = SupervisedConfig.model_validate({"ngrams": 1, "class_weights": weights})
        scores = LexicalScores(2, longest=1, buckets=1 << 14)
        fit_ngrams(scores, Supervised(config, labels=["no", "yes"], counts=counts), known, None)
        said.append(answers(scores, known)[0].argmax(axis=1).sum())
    assert said[0] < said[1]


def test_stopping_is_asked_for_between_labels() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    known = batches(100, lambda words: words[0] % 3, seed=1)
    with pytest.raises(KeyboardInterrupt):
        fit_ngrams(LexicalScores(3, longest=1, buckets=512), supervised("classify", list("abc")), known, None, stop)


def test_many_classes_are_told_apart_the_plain_way() -> None:
    """Sixty classes, each with a word of its own; two more fits for each would take minutes on real data."""
    known, held = (batches(1200, lambda words: words[0], seed=seed) for seed in (1, 2))
    scores = LexicalScores(WORDS, longest=1, buckets=1 << 14)
    objective = supervised("classify", [str(n) for n in range(WORDS)])
    assert PLAIN in fit_ngrams(scores, objective, known, held)
    logits, truth = answers(scores, held)
    assert (logits.argmax(axis=1) == truth).mean() > 3 / WORDS
