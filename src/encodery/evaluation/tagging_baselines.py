"""What simple models get on the same tags: one tag for all, the commonest tag of a word, a linear model on features."""

from __future__ import annotations

import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from encodery.data.tags import OUTSIDE, SchemeName, allowed, convert
from encodery.errors import DataError
from encodery.heads.tagging.crf import Chain, viterbi

Words = Sequence[Sequence[str]]

LONGEST_ENDING = 4
HASHED = 1 << 18
"""Numbers that features are hashed to; half as many where there are many classes, each with a weight for all."""
EPOCHS = 5
MOST_STEPS = 2.5e7
"""Steps (units, times classes, times epochs) of the linear model; with more it learns from fewer texts, and says so."""


@dataclass(frozen=True)
class TaggedBaseline:
    """Tags for every unit of every test text, and what they cost."""

    name: str
    predicted: list[list[str]]
    parameters: int
    seconds: float
    note: str = ""


def majority_tag(tags: Words, test: Words) -> TaggedBaseline:
    """The commonest tag everywhere. Raises DataError without training texts."""
    started = time.perf_counter()
    counts = Counter(tag for row in tags for tag in row)
    if not counts:
        raise DataError("no tags to learn from", expected="at least one tagged text")
    best = counts.most_common(1)[0][0]
    found = [[best] * len(row) for row in test]
    return TaggedBaseline("majority", found, 1, time.perf_counter() - started, f"always '{best}'")


def tag_of_the_word(words: Words, tags: Words, test: Words, scheme: SchemeName) -> TaggedBaseline:
    """The commonest tag of each word; of words that were not seen, that of their longest known ending among the words
    that were seen once (unknown words are like rare ones)."""
    started = time.perf_counter()
    of_word: dict[str, Counter[str]] = defaultdict(Counter)
    for row, own in zip(words, tags):
        for word, tag in zip(row, own):
            of_word[word][tag] += 1
    endings: dict[str, Counter[str]] = defaultdict(Counter)
    for word, counts in of_word.items():
        if counts.total() == 1:
            for ending in _endings(word):
                endings[ending].update(counts)
    best = {word: counts.most_common(1)[0][0] for word, counts in of_word.items()}
    of_ending = {ending: counts.most_common(1)[0][0] for ending, counts in endings.items()}
    common = Counter(tag for row in tags for tag in row).most_common(1)[0][0]

    def guess(word: str) -> str:
        known = best.get(word) or best.get(word.lower())
        return known or next((of_ending[ending] for ending in _endings(word) if ending in of_ending), common)

    found = [[guess(word) for word in row] for row in test]
    if scheme != "none":
        found = [convert(row, scheme) for row in found]
    name = "commonest tag of the word"
    return TaggedBaseline(
        name, found, len(best) + len(of_ending), time.perf_counter() - started, "endings for unknown words"
    )


def _endings(word: str) -> Iterator[str]:
    """The end of a word with how it is written (capitals, digits), the longest first, then that alone."""
    how = _how_written(word)
    for size in range(min(LONGEST_ENDING, len(word)), 0, -1):
        yield f"{how} {word[-size:].lower()}"
    yield how


def linear_tagger(words: Words, tags: Words, test: Words, scheme: SchemeName, *, seed: int) -> TaggedBaseline:
    """Logistic regression (averaged stochastic gradient descent) on the word, its beginnings and endings, how it is
    written, and its two neighbours on each side; then the best path that the scheme allows. Where units are single
    characters, these and their pairs in a window of five."""
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.linear_model import SGDClassifier

    started = time.perf_counter()
    names = sorted({tag for row in tags for tag in row})
    if not any(len(row) for row in test) or len(names) < 2:
        found = [[names[0] if names else OUTSIDE] * len(row) for row in test]
        return TaggedBaseline("linear model", found, 0, time.perf_counter() - started, "one tag only in training")
    classes = 1 if len(names) == 2 else len(names)
    most = int(MOST_STEPS / EPOCHS / classes)
    sizes = np.cumsum([len(row) for row in words])
    rows = int(np.searchsorted(sizes, most, "right")) if sizes[-1] > most else len(words)
    rows = max(rows, 1)
    hasher: Any = FeatureHasher(
        n_features=HASHED if classes < 60 else HASHED // 2, input_type="string", alternate_sign=False
    )
    features = hasher.transform(one for row in words[:rows] for one in _features(row))
    truth = [tag for row in tags[:rows] for tag in row]
    settings: dict[str, Any] = {"alpha": 1e-6, "max_iter": EPOCHS, "tol": None, "average": True, "random_state": seed}
    model: Any = SGDClassifier(loss="log_loss", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(features, truth)
        scores = model.predict_log_proba(hasher.transform(one for row in test for one in _features(row)))
    found = _best_paths(np.maximum(scores, -50.0), [str(name) for name in model.classes_], test, scheme)
    learned = int((model.coef_ != 0).sum())
    note = "words, affixes, neighbours" if rows == len(words) else f"learned from {rows:,} of {len(words):,} texts"
    return TaggedBaseline("linear model", found, learned, time.perf_counter() - started, note)


def _best_paths(scores_UC: np.ndarray, names: list[str], test: Words, scheme: SchemeName) -> list[list[str]]:
    if scheme == "none":
        best = scores_UC.argmax(1)
    else:
        masks = allowed(names, scheme)
        chain = Chain(*(torch.from_numpy(np.where(mask, 0.0, -1e4)) for mask in masks))
        document = torch.repeat_interleave(torch.arange(len(test)), torch.tensor([len(row) for row in test]))
        best = viterbi(torch.from_numpy(scores_UC), chain, document, len(test))[0].numpy()
    found: list[list[str]] = []
    at = 0
    for row in test:
        own = [names[number] for number in best[at : at + len(row)].tolist()]
        found.append(own if scheme == "none" else convert(own, scheme))
        at += len(row)
    return found


def _features(row: Sequence[str]) -> Iterator[list[str]]:
    """What is known of each unit of a text, as strings."""
    single = bool(row) and all(len(word) == 1 for word in row[:50])
    padded = ["<2", "<1", *row, ">1", ">2"]
    lower = [word.lower() for word in padded]
    for place in range(2, len(padded) - 2):
        word, low = padded[place], lower[place]
        found = [f"{side}:{lower[place + side]}" for side in (-2, -1, 0, 1, 2)]
        pairs = ((-2, -1), (-1, 0), (0, 1), (1, 2), (-1, 1)) if single else ((-1, 0), (0, 1))
        found += [f"{a}{b}:{lower[place + a]} {lower[place + b]}" for a, b in pairs]
        if not single:
            found += [f"e{size}:{low[-size:]}" for size in range(1, LONGEST_ENDING + 1) if size < len(word)]
            found += [f"b{size}:{low[:size]}" for size in range(1, LONGEST_ENDING) if size < len(word)]
            found += [f"w:{word}", f"n-1:{lower[place - 1][-3:]}", f"n1:{lower[place + 1][-3:]}"]
            found += [f"h{side}:{_how_written(padded[place + side])}" for side in (-1, 0, 1)]
            found.append(f"first:{place == 2}:{_how_written(word)}")
        yield found


def _how_written(word: str) -> str:
    """A word by its capitals, digits and signs: Xx, XX, x, 9, x-9."""
    kinds = ["X" if c.isupper() else "x" if c.isalpha() else "9" if c.isdigit() else c for c in word[:20]]
    return "".join(kind for place, kind in enumerate(kinds) if not place or kinds[place - 1] != kind)[:8]
