"""What writes without a decoder: a copy of the source, its first sentence, the target of the most similar source."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from encodery.data.sentences import sentence_starts
from encodery.evaluation.baselines import TextFeatures


@dataclass(frozen=True)
class RuleTexts:
    """The texts of a rule for the scored rows, and what it cost."""

    name: str
    texts: list[str]
    seconds: float
    note: str


def copied(sources: Sequence[str]) -> RuleTexts:
    """The source itself: what a translation that changed nothing would get."""
    return RuleTexts("copy of the source", list(sources), 0.0, "nothing is written anew")


def first_sentences(sources: Sequence[str]) -> RuleTexts:
    """The first sentence of the source, the usual thing to beat for summaries (the lead)."""
    begin = time.perf_counter()
    texts: list[str] = []
    for source in sources:
        starts = sentence_starts(source)
        texts.append(str(source[: starts[1]].strip() if len(starts) > 1 else source))
    return RuleTexts("first sentence", texts, time.perf_counter() - begin, "the first sentence of the source")


def from_memory(sources: Sequence[str], targets: Sequence[str], asked: Sequence[str]) -> RuleTexts:
    """The target of the most similar training source by the cosine of TF-IDF: a translation memory."""
    begin = time.perf_counter()
    features = TextFeatures(sources, None, None)
    known = features.of(sources, None)
    found: list[str] = []
    for start in range(0, len(asked), 256):
        close = features.of(asked[start : start + 256], None) @ known.T
        found.extend(str(targets[number]) for number in np.asarray(close.argmax(axis=1)).ravel())
    note = f"the target of the most similar training source ({features.says})"
    return RuleTexts("memory (TF-IDF)", found, time.perf_counter() - begin, note)
