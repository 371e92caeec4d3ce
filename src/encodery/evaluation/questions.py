"""Answers to questions against those of people: exact match and F1 as SQuAD counts them, and what simple rules get."""

from __future__ import annotations

import re
import string
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encodery.data.vocabulary_pieces import is_unspaced
from encodery.errors import DataError
from encodery.evaluation.intervals import RESAMPLES, Metric, from_resamples, resampled_sums

Array = NDArray[Any]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORD = re.compile(r"\w+")
_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]*")
WINDOWS = (2, 3, 4, 5, 6, 8, 10, 14, 20, 30)
"""Sizes in words that the sliding window is tried with on validation rows."""


def answer_words(text: str) -> list[str]:
    """The words of an answer as SQuAD compares them: small letters, without the punctuation of ASCII, without a, an and
    the (Rajpurkar et al. 2016, the official script).

    Where a text has characters of a script without spaces each of these is a word, and all punctuation goes (as in
    CMRC 2018, Cui et al. 2019, and MLQA, Lewis et al. 2020).
    """
    text = text.lower()
    if not any(map(is_unspaced, text)):
        return _ARTICLES.sub(" ", text.translate(_PUNCTUATION)).split()
    found: list[str] = []
    for word in _WORD.findall(text):
        rest = ""
        for char in word:
            if is_unspaced(char):
                found += [rest, char] if rest else [char]
                rest = ""
            else:
                rest += char
        found += [rest] if rest else []
    return [word for word in found if word not in ("a", "an", "the")]


def exact_match(given: str, right: Sequence[str]) -> float:
    """1 if the words of the answer are those of one of the right ones; no answer is right where there is none."""
    words = answer_words(given)
    return float(any(words == answer_words(one) for one in _worded(right)))


def overlap_f1(given: str, right: Sequence[str]) -> float:
    """F1 of the words of an answer and those of the right one that it agrees with most (SQuAD). An answer without words
    agrees with nothing but one without words."""
    words = answer_words(given)
    best = 0.0
    for one in _worded(right):
        wanted = answer_words(one)
        if not words or not wanted:
            best = max(best, float(words == wanted))
            continue
        shared = sum((Counter(words) & Counter(wanted)).values())
        best = max(best, 2 * shared / (len(words) + len(wanted)))
    return best


def _worded(right: Sequence[str]) -> list[str]:
    """Right answers that have words; when none has, no answer is the right one (as in SQuAD 2.0)."""
    return [one for one in right if answer_words(one)] or [""]


@dataclass(frozen=True)
class Candidates:
    """What is held to be the best answer to each question (N,), and how sure that there is one: the higher, the surer.
    Below a threshold the answer is that there is none."""

    texts: list[str]
    scores: Array

    def above(self, threshold: float) -> list[str]:
        """The answers, "" where the score is not above the threshold."""
        return [text if threshold < score else "" for text, score in zip(self.texts, self.scores.tolist())]


def best_threshold(candidates: Candidates, right: Sequence[Sequence[str]]) -> tuple[float, float]:
    """The threshold with the highest mean F1 and that F1. It lies halfway between two scores; of equally good ones the
    lowest counts. Infinite where it is best to answer all (-inf) or none (inf)."""
    rows = len(candidates.texts)
    if not rows:
        return 0.0, 0.0
    answered = np.array([overlap_f1(text, one) for text, one in zip(candidates.texts, right)])
    silent = np.array([overlap_f1("", one) for one in right])
    order = np.argsort(candidates.scores, kind="stable")
    scores = np.asarray(candidates.scores, dtype=np.float64)[order]
    # With the k lowest scores silent: what these get by it, and the others by answering.
    totals = np.concatenate([[0.0], np.cumsum(silent[order])]) + answered.sum()
    totals -= np.concatenate([[0.0], np.cumsum(answered[order])])
    # Rows of one score cannot be told apart.
    possible = np.concatenate([[True], np.diff(scores) > 0, [True]])
    totals = np.where(possible, totals, -np.inf)
    # Sums of the same numbers in another order differ by their rounding.
    best = int(np.flatnonzero(totals >= totals.max() - 1e-9)[0])
    edges = np.concatenate([[-np.inf], (scores[:-1] + scores[1:]) / 2, [np.inf]])
    return float(edges[best]), float(totals[best]) / rows


def fit_answer_mix(candidates: Candidates, linear: Array, right: Sequence[Sequence[str]]) -> list[float]:
    """What the scores of the best answers and a linear answer (N,) weigh, added up, to tell where answering pays.

    Logistic regression on whether there is an answer, where a row counts by what is at stake: its F1 if there is one,
    all where there is none (cost-proportionate weighting, Zadrozny et al. 2003). Where nothing is to be told apart both
    weigh the same.
    """
    from sklearn.linear_model import LogisticRegression

    answerable = np.array([any(map(answer_words, answers)) for answers in right])
    stake = np.where(answerable, each_f1(candidates.texts, right), 1.0)
    told = np.clip(np.stack([candidates.scores, linear], axis=1), -20.0, 20.0)
    if not (answerable & (stake > 0)).any() or answerable.all():
        return [0.5, 0.5]
    weights = LogisticRegression(C=100.0).fit(told, answerable, sample_weight=stake).coef_[0]
    return [0.5, 0.5] if weights.max() <= 0 else np.clip(weights, 0.0, None).tolist()


def score_answers(
    given: Sequence[str],
    right: Sequence[Sequence[str]],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    candidates: Candidates | None = None,
) -> dict[str, Metric]:
    """Exact match and F1 of answers ("" for none) over all rows, over those that have an answer and over those that
    have none, with intervals over the rows. With `candidates` also the F1 that the threshold best for these rows would
    give, as the official script of SQuAD 2.0 says it: an upper end, for it was chosen with them.

    Raises DataError when there are no rows, or not as many answers as rows.
    """
    if len(given) != len(right):
        raise DataError(f"{len(given)} answers to {len(right)} questions", expected="as many of each")
    has = np.array([bool(_worded(one)[0]) for one in right], dtype=np.float64)
    exact = np.array([exact_match(text, one) for text, one in zip(given, right)])
    f1 = each_f1(given, right)
    said = np.array([bool(answer_words(text)) for text in given], dtype=np.float64)
    columns = [exact, f1, has, exact * has, f1 * has, exact * (1 - has), said == has]
    sums, _ = resampled_sums(np.column_stack(columns) if len(f1) else np.zeros((0, 7)), rng, resamples)
    rows, answerable = len(given), sums[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = {
            "answer_f1": sums[:, 1] / rows,
            "answer_exact": sums[:, 0] / rows,
            "answerable_f1": sums[:, 4] / answerable,
            "answerable_exact": sums[:, 3] / answerable,
            "unanswerable_accuracy": sums[:, 5] / (rows - answerable),
            "answered_rightly": sums[:, 6] / rows,
        }
    missing = {"answerable": "every row is without an answer", "unanswerable": "every row has an answer"}
    metrics = {name: from_resamples(found, note=missing.get(name.split("_")[0], "")) for name, found in parts.items()}
    for name in ("answerable_f1", "answerable_exact", "unanswerable_accuracy"):
        if metrics[name].value is not None:
            metrics[name] = Metric(metrics[name].value, metrics[name].low, metrics[name].high)
    if candidates is not None:
        threshold, best = best_threshold(candidates, right)
        metrics["answer_best_f1"] = Metric(best, note=f"with the threshold {threshold:.3g}, chosen on these rows")
    return metrics


def each_f1(given: Sequence[str], right: Sequence[Sequence[str]]) -> Array:
    """(N,) the F1 of each row."""
    return np.array([overlap_f1(text, one) for text, one in zip(given, right)], dtype=np.float64)


@dataclass(frozen=True)
class Asked:
    """Questions as a rule sees them: the contexts, what is asked, and the right answers ([] for none)."""

    contexts: Sequence[str]
    questions: Sequence[str]
    right: Sequence[Sequence[str]]


@dataclass(frozen=True)
class RuleAnswers:
    """What a simple rule says of each row, and what it cost."""

    name: str
    given: list[str]
    seconds: float
    note: str = ""


def no_answer(scored: Asked) -> RuleAnswers:
    """The majority where questions often have none: no answer to any."""
    return RuleAnswers("no answer", [""] * len(scored.questions), 0.0, "never answers")


def sliding_window(train: Asked, scored: Asked, validation: Asked | None) -> RuleAnswers:
    """The stretch of the context whose words weigh most of those of the question (Richardson et al. 2013, section 4,
    the sliding window, weighted by inverse document frequency instead of inverse count).

    The stretch is a window of so many words or a sentence, whichever is best on the validation rows, and so is the
    share of the question's weight below which there is no answer. Without validation rows: a sentence, and half. The
    frequencies are those of the training contexts.
    """
    began = time.perf_counter()
    weights = _weights(train.contexts)
    size, threshold, tried = 0, 0.5, "not tuned: no validation rows"
    if validation is not None and len(validation.questions):
        seen = [_Seen(*row, weights) for row in zip(validation.contexts, validation.questions)]
        found = []
        for one in (0, *WINDOWS):
            level, f1 = best_threshold(_windowed(seen, one), validation.right)
            found.append((f1, -len(found), one, level))
        f1, _, size, threshold = max(found)
        tried = f"F1 {f1:.3f} on validation rows"
    seen = [_Seen(*row, weights) for row in zip(scored.contexts, scored.questions)]
    given = _windowed(seen, size).above(threshold)
    what = "sentence" if size == 0 else f"window of {size} words"
    above = f"from {threshold:.2f} of the weight on"
    silent = {np.inf: "never answers", -np.inf: "always answers"}.get(threshold, above)
    return RuleAnswers("sliding window of TF-IDF", given, time.perf_counter() - began, f"{what}, {silent}; {tried}")


def words_with_places(text: str) -> list[tuple[str, int, int]]:
    """Words in small letters with their [start, stop); each character of a script without spaces is one."""
    found: list[tuple[str, int, int]] = []
    for match in _WORD.finditer(text):
        begin = match.start()
        for at in range(match.start(), match.end()):
            if is_unspaced(text[at]):
                if begin < at:
                    found.append((text[begin:at].lower(), begin, at))
                found.append((text[at], at, at + 1))
                begin = at + 1
        if begin < match.end():
            found.append((text[begin : match.end()].lower(), begin, match.end()))
    return found


def _weights(contexts: Sequence[str]) -> dict[str, float]:
    """Inverse document frequency of each word, smoothed; under "" that of a word that was never seen."""
    texts = list(dict.fromkeys(contexts))
    counts = Counter(word for text in texts for word in {word for word, _, _ in words_with_places(text)})
    found = {word: float(np.log((1 + len(texts)) / (1 + count))) for word, count in counts.items()}
    return {**found, "": float(np.log(1 + len(texts)))}


class _Seen:
    """One context, its words, and how often each word of the question stands among the first n of them."""

    def __init__(self, context: str, question: str, weights: dict[str, float]) -> None:
        self.context = context
        self.words = words_with_places(context)
        wanted = {word: weights.get(word, weights[""]) for word, _, _ in words_with_places(question)}
        self.whole = max(sum(wanted.values()), 1e-9)
        names = [word for word, _, _ in self.words]
        present = {word: weight for word, weight in wanted.items() if word in names}
        counts = [np.append(0, np.cumsum([one == word for one in names])) for word in present]
        self.counts = np.array(counts).reshape(len(counts), len(names) + 1)
        self.weights = np.array(list(present.values()))

    def best(self, size: int) -> tuple[str, float]:
        """The stretch with most of the question's weight, every word counted once, and its share of it."""
        if not self.words:
            return "", 0.0
        first, last = self._stretches(size)
        gained = self.weights @ (self.counts[:, last] > self.counts[:, first])
        best = int(gained.argmax())
        return self.context[self.words[first[best]][1] : self.words[last[best] - 1][2]], gained[best] / self.whole

    def _stretches(self, size: int) -> tuple[Array, Array]:
        """[first, last) words of every stretch that may be the answer."""
        if size:
            first = np.arange(max(1, len(self.words) - size + 1))
            return first, np.minimum(first + size, len(self.words))
        begins = np.array([begin for _, begin, _ in self.words])
        edges = np.searchsorted(begins, [match.start() for match in _SENTENCE.finditer(self.context)])
        edges = np.unique(np.append(edges[edges < len(self.words)], [0, len(self.words)]))
        return edges[:-1], edges[1:]


def _windowed(seen: list[_Seen], size: int) -> Candidates:
    """The best window of so many words (0: the best sentence) of each context, and its share of the question."""
    found = [row.best(size) for row in seen]
    return Candidates([text for text, _ in found], np.array([score for _, score in found], dtype=np.float64))
