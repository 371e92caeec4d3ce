"""Documents of several sentences: where sentences begin, and pairs of their segments in the right order or not.

next     the second segment follows the first, or comes from another document     BERT, Devlin et al. 2019, 3.1
order    two neighbouring segments, in their order or swapped                     ALBERT, Lan et al. 2020, 3.1
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from encodery.data.rows import Row
    from encodery.data.tokenizers import Encoded, Tokenizer

SENTENCE = "sentence"
"""Name of the numbers beside tokens: 1 where a token begins a sentence."""
LONG_LINE = 400
"""Characters of a line from which on it is taken for a paragraph."""
PairsName = Literal["next", "order"]

_QUOTES = "\"'”’»」』)\\]）】》"
# A stop, what closes behind it, white space, and something that may begin a sentence: no small letter. Scripts that
# write no spaces have stops of their own, which are never part of an abbreviation.
_END = re.compile(
    rf"(?:[.!?…]+[{_QUOTES}]*\s+(?=[^\s\W_a-zß-öø-ÿа-я]|[\"'“‘«「『(\[¿¡]))|(?:[。！？｡][{_QUOTES}]*\s*)|(?:[।॥؟۔]\s*)"
)
_ABBREVIATION = re.compile(r"(?:^|[\s(])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|No|Jr|Sr|Inc|Co|Ltd|e\.g|i\.e|U\.S)\.\s+$")


def sentence_starts(text: str) -> list[int]:
    """Where sentences begin, in characters; the first at 0. A text of several lines has one a line, but for lines so
    long that they are paragraphs. Elsewhere the end is told by a simple rule: a stop before white space and no small
    letter, or one of a script without spaces."""
    ends = [0]
    if "\n" in text.strip():
        for end in [*(match.end() for match in re.finditer(r"\n+", text)), len(text)]:
            if end - ends[-1] > LONG_LINE:
                ends += _ends(text, ends[-1], end)
            ends.append(end)
    else:
        ends += _ends(text, 0, len(text))
    starts = [0]
    for end in ends[1:]:  # one that would leave nothing to read on its left or right ends no sentence
        if text[starts[-1] : end].strip() and text[end:].strip():
            starts.append(end)
    return starts


def _ends(text: str, begin: int, stop: int) -> list[int]:
    """By the rule, the ends of sentences between two places of a text."""
    ends = (match.end() for match in _END.finditer(text, begin, stop))
    return [end for end in ends if not _ABBREVIATION.search(text[max(begin, end - 12) : end])]


def first_tokens(text: str, offsets: np.ndarray) -> np.ndarray:
    """Which tokens begin a sentence, (n,) bool, from the place of each in the text, (n, 2); the first one does."""
    begins = np.zeros(len(offsets), dtype=bool)
    if begins.size:
        found = np.searchsorted(np.asarray(offsets)[:, 0], sentence_starts(text), side="left")
        begins[found[found < begins.size]] = True
        begins[0] = True
    return begins


class Segment(NamedTuple):
    """Tokens `start` to `stop` of a document."""

    document: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class SegmentPair:
    """Two segments, and whether the second `follows` the first. A document of one sentence gives one segment alone."""

    first: Segment
    second: Segment | None = None
    follows: bool | None = None


def segment_pairs(
    begins: Sequence[np.ndarray], kind: PairsName, room: int, rng: np.random.Generator, *, short_share: float = 0.1
) -> list[SegmentPair]:
    """Pairs of neighbouring segments of at most about `room` tokens together, half of them not as they stood.

    `begins` says of each document which of its tokens begin a sentence, (n,) bool. Sentences are gathered until the
    room is full (for a `short_share` of the pairs: until a length drawn from 2 to the room), then cut in two between
    any two of them. Of `next`, every other second segment is drawn from another document, and the sentences it takes
    the place of begin the next pair, so that all text is read; of `order`, every other pair is swapped. Long sentences
    may make a pair longer than the room: the caller cuts it.
    """
    edges = [np.append(np.flatnonzero(begin), begin.size) for begin in begins]
    several = [number for number, edge in enumerate(edges) if edge.size > 1]
    made: list[SegmentPair] = []
    for document in several:
        edge, at = edges[document], 0
        while at < edge.size - 1:
            target = int(rng.integers(2, room + 1)) if rng.random() < short_share else room
            end = at + 1
            while end < edge.size - 1 and edge[end] - edge[at] < target:
                end += 1
            if end - at < 2:
                made.append(SegmentPair(Segment(document, int(edge[at]), int(edge[end]))))
                at = end
                continue
            middle = int(rng.integers(at + 1, end))
            first = Segment(document, int(edge[at]), int(edge[middle]))
            second = Segment(document, int(edge[middle]), int(edge[end]))
            wrong = bool(rng.random() < 0.5)
            if wrong and kind == "order":
                first, second = second, first
            elif wrong and (other := _another(several, document, rng)) is not None:
                second = _drawn(edges[other], other, target - first.size, rng)
                end = middle
            else:
                wrong = False
            made.append(SegmentPair(first, second, not wrong))
            at = end
    return made


def _another(numbers: list[int], own: int, rng: np.random.Generator) -> int | None:
    """One of the numbers that is not its own; None where there is no other."""
    if len(numbers) < 2:
        return None
    while (found := numbers[int(rng.integers(len(numbers)))]) == own:
        pass
    return found


def _drawn(edge: np.ndarray, document: int, target: int, rng: np.random.Generator) -> Segment:
    """Sentences of a document from a random one on, until there are `target` tokens."""
    at = int(rng.integers(edge.size - 1))
    end = at + 1
    while end < edge.size - 1 and edge[end] - edge[at] < target:
        end += 1
    return Segment(document, int(edge[at]), int(edge[end]))


@dataclass
class SentenceField:
    """The Field (data/fields.py) of texts that are read sentence by sentence."""

    name: str = SENTENCE

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """None: sentences are told from the text."""
        return ()

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None: it has no texts of its own."""
        return None

    def read(self, value: Mapping[str, Any], text: str) -> None:
        """Nothing: the text is enough."""
        del value, text

    def gatherer(self, known: Mapping[str, Any] | None) -> SentenceGatherer:
        """For one store."""
        del known
        return SentenceGatherer(self.name)

    def key(self) -> object:
        """Part of the name of token caches."""
        return 1


class SentenceGatherer:
    """Marks the first token of each sentence, and counts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sentences = 0
        self.several = 0

    def arrays(self, rows: Sequence[Row], encoded: Sequence[Sequence[Encoded]]) -> dict[str, np.ndarray]:
        """1 where a sentence begins, 0 elsewhere."""
        texts = chain.from_iterable((row.text,) if row.pair is None else (row.text, row.pair) for row in rows)
        marks = [np.zeros(0, dtype=bool)]
        for text, tokens in zip(texts, chain.from_iterable(encoded), strict=True):
            marks.append(first_tokens(text, tokens.offsets))
            found = int(marks[-1].sum())
            self.sentences += found
            self.several += found > 1
        return {self.name: np.concatenate(marks).astype(np.int32)}

    def texts(self, rows: Sequence[Row]) -> None:
        """None."""
        del rows

    def facts(self) -> dict[str, Any]:
        """How many sentences there are, and how many texts have several."""
        return {"sentences": self.sentences, "texts of several": self.several}
