"""What a simple model gets on the same rows: the majority answer, and TF-IDF with a linear model."""

from __future__ import annotations

import time
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from encodery.errors import DataError

Kind = Literal["class", "classes", "number"]
# Validation rows: texts, labels and, for pairs, the second texts.
Held = tuple[Sequence[str], Sequence[Any]] | tuple[Sequence[str], Sequence[Any], Sequence[str] | None]
STRENGTHS = (1.0, 3.0, 10.0)  # C of the logistic regression: the larger, the less it is held back
WITHOUT_VALIDATION = 10.0
UNSPACED_LANGUAGES = {"zh", "ja", "th", "lo", "km", "my", "bo", "yue", "wuu"}
UNSPACED_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


@dataclass(frozen=True)
class Baseline:
    """A baseline's answers to the test rows, and what they cost.

    `probabilities` is (N, C) in the order of `labels`, for `number` None; `predicted` is (N,) label numbers,
    (N, C) of 0 and 1 for `classes`, or (N,) numbers.
    """

    name: str
    labels: list[str]
    predicted: NDArray[Any]
    probabilities: NDArray[np.float64] | None
    parameters: int
    seconds: float
    note: str = ""


def majority(
    train_labels: Sequence[Any], test_rows: int, *, kind: Kind = "class", labels: Sequence[str] | None = None
) -> Baseline:
    """Answer every row alike: the shares of the training labels as probabilities (numbers: their mean)."""
    started = time.perf_counter()
    _need(len(train_labels), "training labels")
    if kind == "number":
        guess = np.full(test_rows, float(np.mean([float(label) for label in train_labels])))
        return Baseline("mean", [], guess, None, 1, time.perf_counter() - started, "always the training mean")
    names = _label_names(train_labels, kind, labels)
    counts = Counter(name for label in train_labels for name in _as_set(label))
    share_C = np.array([counts[name] / len(train_labels) for name in names])
    probabilities = np.tile(share_C, (test_rows, 1))
    predicted = (probabilities >= 0.5).astype(np.int64) if kind == "classes" else probabilities.argmax(axis=1)
    always = f"always '{names[int(share_C.argmax())]}'"
    note = "labels that half of the rows have" if kind == "classes" else always
    return Baseline("majority", names, predicted, probabilities, len(names), time.perf_counter() - started, note)


def tfidf_logistic(
    train_texts: Sequence[str],
    train_labels: Sequence[Any],
    test_texts: Sequence[str],
    *,
    kind: Kind = "class",
    labels: Sequence[str] | None = None,
    train_pairs: Sequence[str] | None = None,
    test_pairs: Sequence[str] | None = None,
    validation: Held | None = None,
    language: str | None = None,
) -> Baseline:
    """TF-IDF (sublinear) with logistic regression, one against the rest for `classes`, ridge for `number`.

    Words 1-2 where the script has spaces, characters 1-3 where the text is mostly without (Chinese, Japanese,
    Thai...), decided from the training text unless `language` ("zh") says so; n-grams of one text only are
    left out from 1,000 texts up. C is picked from 1, 3, 10 on `validation` = (texts, labels[, pairs])
    and the model is not refitted on it; without validation C is 10. A pair is the features of both texts,
    their product and their absolute difference, side by side. With one label in training it answers with that
    label. Deterministic. Raises DataError when texts and labels differ in number.
    """
    started = time.perf_counter()
    _need(len(train_texts), "training texts")
    for other, what in ((train_labels, "labels"), (train_pairs, "second texts")):
        if other is not None and len(other) != len(train_texts):
            raise DataError(f"{len(train_texts)} training texts but {len(other)} {what}", expected="as many of each")
    validation_pairs = validation[2] if validation is not None and len(validation) > 2 else None
    others = [test_pairs, *([validation_pairs] if validation is not None and len(validation[0]) else [])]
    if any((other is None) != (train_pairs is None) for other in others):
        raise DataError("second texts in some splits only", expected="pairs in every split, or in none")
    names = [] if kind == "number" else _label_names(train_labels, kind, labels)
    features = TextFeatures(train_texts, train_pairs, language)
    train_NF = features.of(train_texts, train_pairs)
    truth = _targets(train_labels, kind, names)
    held_out = None
    if validation is not None and len(validation[0]):
        held_out = features.of(validation[0], validation_pairs), _targets(validation[1], kind, names)
    fit = {"class": _fit_class, "classes": _fit_classes, "number": _fit_number}[kind]
    answer, parameters, note = fit(train_NF, truth, held_out, features.of(test_texts, test_pairs), len(names))
    if kind == "number":
        predicted, probabilities, name = answer, None, "TF-IDF + ridge regression"
    else:
        probabilities, name = answer, "TF-IDF + logistic regression"
        predicted = (answer >= 0.5).astype(np.int64) if kind == "classes" else answer.argmax(axis=1)
    note = f"{features.says}, {note}"
    return Baseline(name, names, predicted, probabilities, parameters, time.perf_counter() - started, note)


def mostly_unspaced(texts: Sequence[str], language: str | None = None) -> bool:
    """True when most letters belong to scripts written without spaces between words (in 500 texts)."""
    if language:
        return language.lower().replace("_", "-").split("-")[0] in UNSPACED_LANGUAGES
    sample = texts[:: max(1, len(texts) // 500)][:500]
    letters = Counter(letter for text in sample for letter in text[:1000] if letter.isalpha())
    unspaced = sum(n for letter, n in letters.items() if unicodedata.name(letter, "").startswith(UNSPACED_SCRIPTS))
    return unspaced * 2 > sum(letters.values())


class TextFeatures:
    """Texts, or pairs of texts, as rows of TF-IDF."""

    def __init__(self, texts: Sequence[str], pairs: Sequence[str] | None, language: str | None) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        everything = [*texts, *(pairs or ())]
        by_character = mostly_unspaced(everything, language)
        analyzer, longest = ("char", 3) if by_character else ("word", 2)
        self.says = f"{'characters 1-3' if by_character else 'words 1-2'}"
        settings: dict[str, Any] = {"analyzer": analyzer, "ngram_range": (1, longest), "sublinear_tf": True}
        # Any run of word characters is a word: the library's default drops words of one letter, "I" and "5"
        # with them.
        settings |= {"token_pattern": r"(?u)\b\w+\b"} if analyzer == "word" else {}
        # What stands in one text only cannot be learned from, and is most of the n-grams. Few texts: keep
        # all.
        settings |= {"min_df": 2 if len(everything) >= 1000 else 1}
        try:
            self.vectorizer = TfidfVectorizer(**settings).fit(everything)
        except ValueError:  # not one word in all the texts: emoji or punctuation only
            self.says = "characters 1-3"
            settings |= {"analyzer": "char", "ngram_range": (1, 3), "min_df": 1}
            settings.pop("token_pattern", None)
            self.vectorizer = TfidfVectorizer(**settings).fit([*everything, "empty"])

    def of(self, texts: Sequence[str], pairs: Sequence[str] | None) -> Any:
        from scipy.sparse import csr_matrix, hstack

        first = self.vectorizer.transform(texts)
        if pairs is None:
            return first
        second = self.vectorizer.transform(pairs)
        return csr_matrix(hstack([first, second, first.multiply(second), abs(first - second)]))


def _fit_class(train: Any, truth: Any, held_out: Any, test: Any, kinds: int) -> tuple[NDArray[Any], int, str]:
    from sklearn.linear_model import LogisticRegression

    present = np.unique(truth)
    probabilities = np.zeros((test.shape[0], kinds))
    if len(present) == 1:
        probabilities[:, present[0]] = 1.0
        return probabilities, 0, "one label only in training"
    best: tuple[float, float, NDArray[Any], int] | None = None
    for strength in STRENGTHS if held_out is not None else (WITHOUT_VALIDATION,):
        model = LogisticRegression(C=strength, max_iter=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fit that stops at 1,000 steps is still a baseline
            model.fit(train, truth)
        right = -strength if held_out is None else float((model.predict(held_out[0]) == held_out[1]).mean())
        if best is None or right > best[0]:
            best = (
                right,
                strength,
                model.predict_proba(test),
                int(model.coef_.size + np.size(model.intercept_)),
            )
    assert best is not None
    probabilities[:, present] = best[2]
    return probabilities, best[3], f"C = {best[1]:g}"


def _fit_classes(train: Any, truth: Any, held_out: Any, test: Any, kinds: int) -> tuple[NDArray[Any], int, str]:
    """One logistic regression a label; one C for all of them, by micro F1 on the validation rows."""
    from sklearn.metrics import f1_score

    best: tuple[float, float, NDArray[Any], int] | None = None
    for strength in STRENGTHS if held_out is not None else (WITHOUT_VALIDATION,):
        inputs = [test] if held_out is None else [test, held_out[0]]
        columns = [_one_label(train, truth[:, label], inputs, strength) for label in range(kinds)]
        answers = [np.column_stack([found[0][i] for found in columns]) for i in range(len(inputs))]
        score = 0.0
        if held_out is not None:
            score = float(f1_score(held_out[1], answers[1] >= 0.5, average="micro", zero_division=0.0))  # type: ignore[arg-type]
        if best is None or score > best[0]:
            best = score, strength, answers[0], sum(found[1] for found in columns)
    assert best is not None
    return best[2], best[3], f"C = {best[1]:g}"


def _one_label(train: Any, truth_N: Any, inputs: list[Any], strength: float) -> tuple[list[NDArray[Any]], int]:
    from sklearn.linear_model import LogisticRegression

    if np.ptp(truth_N) == 0:  # a label that all rows or none have
        return [np.full(rows.shape[0], float(truth_N[0])) for rows in inputs], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=strength, max_iter=1000).fit(train, truth_N)
    return [model.predict_proba(rows)[:, 1] for rows in inputs], int(model.coef_.size + 1)


def _fit_number(train: Any, truth: Any, held_out: Any, test: Any, kinds: int) -> tuple[NDArray[Any], int, str]:
    from sklearn.linear_model import Ridge

    best: tuple[float, float, NDArray[Any], int] | None = None
    for penalty in (0.3, 1.0, 3.0) if held_out is not None else (1.0,):
        model = Ridge(alpha=penalty).fit(train, truth)
        error = 0.0 if held_out is None else float(np.square(model.predict(held_out[0]) - held_out[1]).mean())
        if best is None or error < best[0]:
            best = error, penalty, np.asarray(model.predict(test)), int(np.size(model.coef_) + 1)
    assert best is not None
    return best[2], best[3], f"penalty {best[1]:g}"


def _targets(labels: Sequence[Any], kind: Kind, names: list[str]) -> NDArray[Any]:
    if kind == "number":
        return np.array([float(label) for label in labels])
    number = {name: place for place, name in enumerate(names)}
    if kind == "class":  # a validation label that training has not: -1, never right
        return np.array([number.get(str(label), -1) for label in labels], dtype=np.int64)
    truth = np.zeros((len(labels), len(names)), dtype=np.int64)
    for row, label in enumerate(labels):
        for name in _as_set(label):
            if name in number:
                truth[row, number[name]] = 1
    return truth


def _label_names(train_labels: Sequence[Any], kind: Kind, labels: Sequence[str] | None) -> list[str]:
    seen = {name for label in train_labels for name in _as_set(label)}
    if labels is None:
        return sorted(seen)
    missing = sorted(seen - set(labels))
    if missing and kind == "class":
        raise DataError(f"the training label '{missing[0]}' is not in the list of labels", expected=", ".join(labels))
    return list(labels)


def _as_set(label: Any) -> set[str]:
    return {str(name) for name in label} if isinstance(label, (list, tuple, set)) else {str(label)}


def _need(rows: int, what: str) -> None:
    if rows == 0:
        raise DataError(f"no {what}", expected="at least one row")
