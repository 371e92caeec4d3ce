"""Which tokens name an entity: mentions that rows mark or that are found by name, aligned to tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from encodery.data.knowledge import Knowledge
from encodery.data.rows import Mention
from encodery.data.tokenizers import Encoded
from encodery.data.vocabulary_pieces import is_unspaced

FIRST = np.uint32(1 << 31)
"""Set in the number of an entity at the first token of its mention."""

_WORD = re.compile(r"\w+")


@dataclass
class MentionCounts:
    """What became of the mentions of one store, for the report."""

    mentions: int = 0
    unknown: int = 0
    overlapping: int = 0
    without_token: int = 0
    unknown_examples: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, int]:
        """The counts that are not 0, by what people are told; that of the mentions always."""
        rest = {
            "mentions of unknown entities": self.unknown,
            "mentions inside of others": self.overlapping,
            "mentions without a token": self.without_token,
        }
        return {"mentions": self.mentions, **{name: count for name, count in rest.items() if count}}


class NameFinder:
    """Finds names in texts, the longest first, word by word; in scripts without spaces character by character.

    Small and capital letters are one, and so is whatever stands between the words. Of a name that several entities
    have the first one counts.
    """

    def __init__(self, names: Iterable[tuple[str, int]]) -> None:
        self._numbers: dict[tuple[str, ...], int] = {}
        self._longest: dict[str, int] = {}
        self.ambiguous = 0
        for name, number in names:
            words = tuple(text for text, _, _ in _words(name))
            if not words:
                continue
            self.ambiguous += self._numbers.get(words, number) != number
            self._numbers.setdefault(words, number)
            self._longest[words[0]] = max(self._longest.get(words[0], 0), len(words))

    def find(self, text: str) -> list[tuple[int, int, int]]:
        """(start, stop, number of the entity) of each name in a text; none overlaps another."""
        words, found, at = _words(text), [], 0
        while at < len(words):
            longest = min(self._longest.get(words[at][0], 0), len(words) - at)
            for size in range(longest, 0, -1):
                number = self._numbers.get(tuple(word for word, _, _ in words[at : at + size]))
                if number is not None:
                    found.append((words[at][1], words[at + size - 1][2], number))
                    at += size - 1
                    break
            at += 1
        return found


def _words(text: str) -> list[tuple[str, int, int]]:
    """Words in small letters with their place in the text; each character of a script without spaces is one."""
    found: list[tuple[str, int, int]] = []
    for match in _WORD.finditer(text):
        if match[0].isascii():
            found.append((match[0].casefold(), *match.span()))
            continue
        begin = match.start()
        for at in range(match.start(), match.end()):
            if is_unspaced(text[at]):
                if begin < at:
                    found.append((text[begin:at].casefold(), begin, at))
                found.append((text[at], at, at + 1))
                begin = at + 1
        if begin < match.end():
            found.append((text[begin : match.end()].casefold(), begin, match.end()))
    return found


@lru_cache(maxsize=4)
def name_finder(names: tuple[tuple[str, int], ...]) -> NameFinder:
    """The finder of these names; kept, because every store asks for the same."""
    return NameFinder(names)


class Linker:
    """Says of each token of a text which entity it names; counts what it meets. One is made for each store."""

    def __init__(self, knowledge: Knowledge) -> None:
        self.knowledge = knowledge
        self.finder = name_finder(knowledge.names) if knowledge.names else None
        self.counts = MentionCounts()

    def link(self, text: str, marked: Iterable[Mention], encoded: Encoded) -> np.ndarray:
        """(T,) uint32: the number of the entity at each token of its mention, with FIRST at the first one; 0 elsewhere.

        A token that a mention touches belongs to it. Of mentions that share a token the first, then the longest stays.
        """
        spans = [(one.start, one.stop, self._number(one.entity)) for one in marked]
        if self.finder is not None:
            spans += self.finder.find(text)
        found = np.zeros(encoded.ids.size, dtype=np.uint32)
        starts, stops = (np.maximum.accumulate(ends) for ends in encoded.offsets.T)
        for start, stop, number in sorted(spans, key=lambda span: (span[0], -span[1])):
            if not number:
                continue
            begin, end = np.searchsorted(stops, start, "right"), np.searchsorted(starts, stop, "left")
            if end <= begin:
                self.counts.without_token += 1
            elif found[begin:end].any():
                self.counts.overlapping += 1
            else:
                found[begin:end] = number
                found[begin] |= FIRST
                self.counts.mentions += 1
        return found

    def _number(self, entity: str) -> int:
        number = self.knowledge.numbers.get(entity, 0)
        if not number:
            self.counts.unknown += 1
            if len(self.counts.unknown_examples) < 5:
                self.counts.unknown_examples.append(entity)
        return number
