"""What simple models get on the same tags: one tag for all, the commonest tag of a word, a chain of features."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from encodery.batch import Batch, layout_of
from encodery.data.tag_field import NOT_TAGGED
from encodery.data.tags import SchemeName, convert
from encodery.data.tagsets import Tagset
from encodery.errors import DataError
from encodery.evaluation.tag_answers import UnitLogits
from encodery.heads.tagging.tags import TagReadout, units_of
from encodery.objectives.linear_tags import fit_tag_words
from encodery.objectives.tagging import Tagging, TaggingConfig

Words = Sequence[Sequence[str]]
Labelled = tuple[Words, Words]

LONGEST_ENDING = 4
ROWS_AT_ONCE = 64
"""Texts that the linear model learns from in one step."""


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


def linear_tagger(
    words: Words, tags: Words, test: Words, tagset: Tagset, *, crf: bool, seed: int, held: Labelled | None = None
) -> TaggedBaseline:
    """A chain (conditional random field; without `crf` each unit for itself) of the words, their affixes, how they are
    written and their neighbours: the linear answer that can stand beside an encoder (heads/tagging/words.py), alone.
    It stops learning where the units `held`, (words, tags), tell it to."""
    started = time.perf_counter()
    asked = TaggingConfig(crf=crf, units=tagset.units, linear=True)
    objective = Tagging(asked, tagset, [])
    letters = {letter for some in (words, test, held[0] if held else ()) for row in some for letter in "".join(row)}
    number = {letter: place for place, letter in enumerate(sorted(letters))}
    readout = TagReadout(objective.readout(), 1, max(1, len(number)))
    assert readout.lexical is not None
    readout.lexical.spell([(letter, False) for letter in number])
    tag_number = {name: place for place, name in enumerate(tagset.names)}

    def batches(texts: Words, own: Words | None) -> Iterator[Batch]:
        """Every letter is a token, and what is known of a unit stands at its first letter."""
        for first in range(0, len(texts), ROWS_AT_ONCE):
            some = texts[first : first + ROWS_AT_ONCE]
            flat = [word for row in some for word in row]
            layout = layout_of([[sum(map(len, row)) for row in some]], sum(map(len, flat)))
            stands = torch.zeros(layout.positions, dtype=torch.int64)
            truth = [tag for row in own[first : first + ROWS_AT_ONCE] for tag in row] if own else []
            told = torch.tensor([NOT_TAGGED + 1 + tag_number.get(tag, -1) for tag in truth]) if own else NOT_TAGGED
            starts = np.cumsum([0, *map(len, flat)])[:-1]
            stands[torch.from_numpy(starts)] = told
            ids = torch.tensor([number[letter] for word in flat for letter in word], dtype=torch.int64)
            yield Batch({"ids": ids, "tags": stands}, layout)

    said = fit_tag_words(readout, objective, batches(words, tags), batches(*held) if held else None, seed)
    paths: list[list[int]] = []
    with torch.inference_mode():
        chain = readout.chains()[1]
        for batch in batches(test, None):
            document = batch.layout.document[units_of(batch)]
            paths += UnitLogits(readout.lexical(batch), document, batch.layout.documents, chain).best()
    found = [[tagset.names[tag] for tag in path] for path in paths]
    learned = sum(int((readout.lexical.get_parameter(name) != 0).sum()) for name in readout.lexical.learned(crf))
    note = f"words, affixes, neighbours; {said}"
    return TaggedBaseline("linear model", found, learned, time.perf_counter() - started, note)


def _how_written(word: str) -> str:
    """A word by its capitals, digits and signs: Xx, XX, x, 9, x-9."""
    kinds = ["X" if c.isupper() else "x" if c.isalpha() else "9" if c.isdigit() else c for c in word[:20]]
    return "".join(kind for place, kind in enumerate(kinds) if not place or kinds[place - 1] != kind)[:8]
