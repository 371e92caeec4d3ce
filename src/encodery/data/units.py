"""Units that carry tags, words or characters: where they stand in a text, and at which token each is read."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from encodery.data.vocabulary_pieces import is_unspaced

UnitKind = Literal["words", "characters", "spaces", "given"]

_ASCII_UNITS = re.compile(r"\w+|[^\w\s]")
_RUNS = re.compile(r"\S+")
_LONGEST_ENDING = 4
_ENDING_COUNT = 20
"""An ending such as 's counts as a word of its own once the training data has it this often."""
_FULL_WIDTH = re.compile("[\u3000-\u303f\uff00-\uffef]")
_JOINERS = "\u200d"


@dataclass(frozen=True)
class UnitRule:
    """How a raw text is cut into units.

    words: runs of letters, digits and what joins them (U.S., 3.5, well-known); every other sign, and every character
    of a script without spaces, stands alone; `endings` such as 's and n't are cut off. characters: each one alone, with
    its combining marks. spaces: whatever stands between white space. given: only texts that come as lists of words have
    units (words of a script without spaces cannot be told by a rule).
    """

    kind: UnitKind = "words"
    endings: tuple[str, ...] = ()
    joined: bool = True

    def find(self, text: str) -> np.ndarray:
        """[start, stop) in characters of each unit, (U, 2)."""
        if self.kind in ("spaces", "given"):
            return _pairs(match.span() for match in _RUNS.finditer(text))
        if self.kind == "characters":
            return _pairs(_characters(text))
        return _pairs(_words(text, self))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, to be kept with a model."""
        return {"kind": self.kind, "endings": list(self.endings), "joined": self.joined}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> UnitRule:
        return cls(values.get("kind", "words"), tuple(values.get("endings", ())), values.get("joined", True))


def _pairs(spans: Iterable[tuple[int, int]]) -> np.ndarray:
    return np.array(list(spans), dtype=np.int64).reshape(-1, 2)


def _joins_on(char: str) -> bool:
    """A mark that belongs to the character before it: an accent, a variation selector, a joiner, a skin colour."""
    return char in _JOINERS or unicodedata.category(char)[0] == "M" or "\U0001f3fb" <= char <= "\U0001f3ff"


def _characters(text: str) -> list[tuple[int, int]]:
    """Every character that is not white space, with the marks on it; an emoji sequence is one."""
    if text.isascii():
        return [(at, at + 1) for at, char in enumerate(text) if not char.isspace()]
    found: list[tuple[int, int]] = []
    open_until = -1
    for at, char in enumerate(text):
        if char.isspace():
            continue
        if open_until == at and (_joins_on(char) or text[at - 1] in _JOINERS):
            found[-1] = (found[-1][0], at + 1)
        else:
            found.append((at, at + 1))
        open_until = at + 1
    return found


def _words(text: str, rule: UnitRule) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for run in _RUNS.finditer(text):
        piece = run[0]
        if piece.isascii():
            parts = [match.span() for match in _ASCII_UNITS.finditer(piece)]
        else:
            parts = _mixed(piece)
        if rule.joined:
            parts = _joined(piece, parts)
        if rule.endings:
            parts = [cut for part in parts for cut in _cut(piece, part, rule.endings)]
        found += [(run.start() + start, run.start() + stop) for start, stop in parts]
    return found


def _mixed(piece: str) -> list[tuple[int, int]]:
    """Runs of letters and digits with their marks; anything else alone."""
    found: list[tuple[int, int]] = []
    in_word = False
    for start, stop in _characters(piece):
        first = piece[start]
        letter = (first.isalnum() or first == "_") and not is_unspaced(first)
        if letter and in_word:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
        in_word = letter
    return found


def _joined(piece: str, parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Signs between two letters or digits do not part a word: 3.5, U.S, well-known, don't, 10:30, and/or."""
    found: list[tuple[int, int]] = []
    for place, (start, stop) in enumerate(parts):
        after = piece[parts[place + 1][0]] if place + 1 < len(parts) else ""
        inner = piece[start:stop] in (".", "-", "'", "’", ",", ":", "/", "&", "@") and after.isalnum()
        inner = inner and not is_unspaced(after)
        joins = bool(found) and found[-1][1] == start and place > 0
        if (joins and inner and _word_end(piece[start - 1])) or (
            joins and _word_end(piece[start]) and piece[start - 1] in ".-'’,:/&@" and found[-1][1] - found[-1][0] > 1
        ):
            found[-1] = (found[-1][0], stop)
        elif joins and piece[start:stop] == "." and re.search(r"(?:^|\.)\w$", piece[found[-1][0] : start]):
            found[-1] = (found[-1][0], stop)  # the last full stop of U.S.
        else:
            found.append((start, stop))
    return found


def _word_end(char: str) -> bool:
    return (char.isalnum() or char == "_" or _joins_on(char)) and not is_unspaced(char)


def _cut(piece: str, part: tuple[int, int], endings: tuple[str, ...]) -> list[tuple[int, int]]:
    """A word without the ending that counts as a word of its own."""
    word = piece[part[0] : part[1]].lower().replace("’", "'")
    for ending in endings:  # the longest first
        if len(ending) < len(word) and word.endswith(ending):
            middle = part[1] - len(ending)
            return [(part[0], middle), (middle, part[1])]
    return [part]


def unspaced_words(words: Sequence[str]) -> bool:
    """Whether words are written without spaces between them: they have more characters of such a script than there are
    words of others."""
    spaced = unspaced = 0
    for word in words:
        own = sum(is_unspaced(char) or _FULL_WIDTH.match(char) is not None for char in word)
        unspaced += own
        spaced += not own and any(map(str.isalpha, word))
    return unspaced > spaced


def join(words: Sequence[str]) -> tuple[str, np.ndarray]:
    """One text of a list of words, and where each stands in it (U, 2): a space between two words, but none in scripts
    without spaces, except between two words of another script."""
    unspaced = unspaced_words(words)
    parts: list[str] = []
    offsets = np.empty((len(words), 2), dtype=np.int64)
    at = 0
    for number, word in enumerate(words):
        if number:
            gap = not unspaced or (_spaced(words[number - 1][-1:]) and _spaced(word[:1]))
            if gap:
                parts.append(" ")
                at += 1
        parts.append(word)
        offsets[number] = at, at + len(word)
        at += len(word)
    return "".join(parts), offsets


def _spaced(char: str) -> bool:
    return char.isalnum() and not is_unspaced(char) and not _FULL_WIDTH.match(char)


class RuleLearner:
    """Finds out from lists of words how their makers cut texts, so that raw texts are cut alike."""

    def __init__(self) -> None:
        self.words = self.unspaced = self.signs = self.attached = self.inner = self.cut = 0
        self._endings: Counter[str] = Counter()

    def add(self, words: Sequence[str]) -> None:
        """The words of one text."""
        for word in words:
            self.words += 1
            if is_unspaced(word[0]):
                self.unspaced += 1
            elif not any(map(str.isalnum, word)):
                self.signs += 1
            elif not word[-1].isalnum() and word[-1] in ",;:!?)" and len(word) > 1:
                self.attached += 1
            short = word.lower().replace("’", "'")
            if 1 < len(short) <= _LONGEST_ENDING and "'" in short and short[-1].isalpha() and short[0] in "'n":
                self._endings[short] += 1
            if len(word) > 2 and word.isascii() and re.search(r"\w-\w", word):
                self.inner += 1
            elif word == "-":
                self.cut += 1

    def rule(self) -> UnitRule:
        """words unless signs stay on words; given where most words are of a script without spaces."""
        if self.unspaced * 2 > self.words:
            return UnitRule("given")
        if self.signs <= self.attached:
            return UnitRule("spaces")
        endings = [ending for ending, count in self._endings.items() if count >= _ENDING_COUNT]
        return UnitRule("words", tuple(sorted(endings, key=lambda one: (-len(one), one))), self.cut <= self.inner)


@dataclass(frozen=True)
class Placed:
    """Units at tokens: `group` (U,) numbers the group of units that share their first token, -1 for units without a
    token; `token` (G,) is the first token of each group, ascending."""

    token: np.ndarray
    group: np.ndarray

    @property
    def vanished(self) -> int:
        """Units that no token stands for, such as a lone invisible character."""
        return int((self.group < 0).sum())

    @property
    def shared(self) -> int:
        """Units that share their first token with one before them."""
        return int((self.group >= 0).sum()) - self.token.size


def place(units: np.ndarray, offsets: np.ndarray) -> Placed:
    """Units (U, 2) at the tokens of a text with these offsets (T, 2), both in characters.

    A unit is read at the first token that touches it.
    """
    starts, stops = (np.maximum.accumulate(ends) for ends in offsets.T.astype(np.int64))
    first = np.searchsorted(stops, units[:, 0], "right")
    behind = np.searchsorted(starts, units[:, 1], "left")
    found = first < behind
    token, inverse = np.unique(first[found], return_inverse=True)
    group = np.full(len(units), -1, dtype=np.int64)
    group[found] = inverse
    return Placed(token.astype(np.int64), group)
