"""Schemes of tags (IOB1, BIO, BIOES, BMES): told apart, checked, read as spans, written from spans, and made whole.

    text     Peter  Blackburn  in  New    York   City   .
    IOB1     I-PER  I-PER      O   I-LOC  I-LOC  I-LOC  O     B- only where a span follows one of the same label
    BIO      B-PER  I-PER      O   B-LOC  I-LOC  I-LOC  O     every span begins with B-
    BIOES    B-PER  E-PER      O   B-LOC  I-LOC  E-LOC  O     and ends with E-; one of a single word is S-
    BMES     the same with M- for I-, as is common for Chinese; bare letters (B M E S) cut a text into words

IOB1 is that of Ramshaw and Marcus (1995), BIO (IOB2) that of Tjong Kim Sang and Veenstra (1999). In BIOES the letters L
and U (BILOU, Ratinov and Roth 2009) are read as E and S.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NamedTuple

import numpy as np

SchemeName = Literal["none", "iob1", "bio", "bioes", "bmes"]
"""none: tags that stand for themselves, such as parts of speech."""

OUTSIDE: Final = "O"
_LETTERS: Final[dict[str, str]] = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S"}
_WRITTEN: Final[dict[str, str]] = {"iob1": "BIO", "bio": "BIO", "bioes": "BIOESLU", "bmes": "BMESO"}
TYPING_ERRORS: Final = 0.02
"""Share of the tags, O aside, that may be no tags of a scheme where the rest are."""
_SHAPE: Final = re.compile(r"O|[BIMELSU](-.+)?", re.S)


class Span(NamedTuple):
    """Units [start, stop) with a label; '' where the tags are bare letters."""

    start: int
    stop: int
    label: str


class Misfit(NamedTuple):
    """A tag that cannot stand where it stands, and why."""

    place: int
    why: str


@dataclass(frozen=True)
class Detected:
    """The scheme that fits the tags best, and how many of the `tags` do not fit it."""

    scheme: SchemeName
    tags: int
    misfits: int


@lru_cache(maxsize=1 << 16)
def parse(tag: str) -> tuple[str, str]:
    """(letter, label) of a tag of a scheme; the letter is one of O B I E S (M is I, L is E, U is S). What is no tag of
    a scheme is as O."""
    if tag == OUTSIDE or _SHAPE.fullmatch(tag) is None:
        return OUTSIDE, ""
    return _LETTERS[tag[0]], tag[2:]


def is_written(tag: str, scheme: SchemeName) -> bool:
    """Whether a tag can stand in this scheme at all: its letter is one of it."""
    return scheme == "none" or (_SHAPE.fullmatch(tag) is not None and tag[0] in _WRITTEN[scheme])


def write(letter: str, label: str, scheme: SchemeName) -> str:
    """The tag for one of the letters O B I E S."""
    if letter == OUTSIDE:
        return OUTSIDE
    letter = "M" if letter == "I" and scheme == "bmes" else letter
    return f"{letter}-{label}" if label else letter


def misfits(tags: Sequence[str], scheme: SchemeName) -> list[Misfit]:
    """Every tag that does not fit the scheme: a letter it does not have, or one that cannot stand there."""
    if scheme == "none":
        return []
    found: list[Misfit] = []
    before = (OUTSIDE, "")
    for place, tag in enumerate(tags):
        if not is_written(tag, scheme):
            found.append(Misfit(place, f"{tag!r} is no tag of {scheme}"))
            before = (OUTSIDE, "")
            continue
        now = parse(tag)
        if not follows(before, now, scheme):
            previous = f"{tags[place - 1]!r}" if place else "the beginning"
            found.append(Misfit(place, f"{tag!r} cannot follow {previous} in {scheme}"))
        before = now
    if tags and is_written(tags[-1], scheme) and not may_end(parse(tags[-1]), scheme):
        found.append(Misfit(len(tags) - 1, f"{tags[-1]!r} cannot end a text in {scheme}"))
    return found


def follows(before: tuple[str, str], now: tuple[str, str], scheme: SchemeName) -> bool:
    """Whether a tag, parsed, may come after another one; the beginning of a text is as O."""
    (last, last_label), (letter, label) = before, now
    if scheme == "none":
        return True
    if scheme == "iob1":  # B only parts two spans of one label
        return letter != "B" or (last in "BI" and last_label == label)
    within = last in "BI" and last_label == label
    if scheme == "bio":
        return letter != "I" or within
    return within if letter in "IE" else last not in "BI"


def may_end(tag: tuple[str, str], scheme: SchemeName) -> bool:
    """Whether a text may end with a tag, parsed."""
    return scheme not in ("bioes", "bmes") or tag[0] not in "BI"


def allowed(names: Sequence[str], scheme: SchemeName) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What may begin a text (C,), end one (C,), and follow what: (C, C), [before, after]; all bool."""
    if scheme == "none":
        return np.ones(len(names), bool), np.ones(len(names), bool), np.ones((len(names), len(names)), bool)
    parsed = [parse(name) for name in names]
    begin = np.array([follows((OUTSIDE, ""), tag, scheme) for tag in parsed], dtype=bool)
    end = np.array([may_end(tag, scheme) for tag in parsed], dtype=bool)
    between = np.array([[follows(before, tag, scheme) for tag in parsed] for before in parsed], dtype=bool)
    return begin, end, between.reshape(len(names), len(names))


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The spans that tags of any scheme mark, read as CoNLL's conlleval does: tags that do not fit lose nothing.

    A span begins with B or S, after one that ended, and wherever the label changes; it ends with E or S."""
    found: list[Span] = []
    begin, label = -1, ""
    for place, tag in enumerate(tags):
        letter, own = parse(tag)
        if begin >= 0 and (letter in "OBS" or own != label):
            found.append(Span(begin, place, label))
            begin = -1
        if letter != OUTSIDE and begin < 0:
            begin, label = place, own
        if letter in "ES":
            found.append(Span(begin, place + 1, label))
            begin = -1
    if begin >= 0:
        found.append(Span(begin, len(tags), label))
    return found


def strict_spans(tags: Sequence[str], scheme: SchemeName) -> list[Span]:
    """Only the spans that are written as the scheme wants it, from their first tag to their last."""
    wrong = {misfit.place for misfit in misfits(tags, scheme)}
    if not wrong:
        return spans_of(tags)
    found: list[Span] = []
    for span in spans_of(tags):
        again = write_spans([Span(0, span.stop - span.start, span.label)], span.stop - span.start, scheme)
        letters = [parse(tag) for tag in tags[span.start : span.stop]]
        if letters == [parse(tag) for tag in again]:
            found.append(span)
    return found


def write_spans(spans: Iterable[Span], units: int, scheme: SchemeName) -> list[str]:
    """The tags of `units` units for spans that do not overlap."""
    tags = [OUTSIDE] * units
    before: Span | None = None
    for span in sorted(spans):
        length = span.stop - span.start
        letters = ["B", *"I" * (length - 1)]
        if scheme in ("bioes", "bmes"):
            letters = ["S"] if length == 1 else ["B", *"I" * (length - 2), "E"]
        elif scheme == "iob1" and not (before and before.stop == span.start and before.label == span.label):
            letters[0] = "I"
        tags[span.start : span.stop] = [write(letter, span.label, scheme) for letter in letters]
        before = span
    return tags


def convert(tags: Sequence[str], scheme: SchemeName) -> list[str]:
    """The same spans written in another scheme; what did not fit is made whole on the way."""
    return write_spans(spans_of(tags), len(tags), scheme)


def detect(sequences: Iterable[Sequence[str]]) -> Detected:
    """The scheme of some tagged texts: by their letters, and for B, I and O by which of IOB1 and BIO is broken less."""
    kept = [list(tags) for tags in sequences]
    counts_of = Counter(tag for tags in kept for tag in tags)
    total = sum(counts_of.values())
    shaped = {tag for tag in counts_of if tag != OUTSIDE and _SHAPE.fullmatch(tag)}
    unread = sum(count for tag, count in counts_of.items() if tag != OUTSIDE and tag not in shaped)
    letters = {tag[0] for tag in shaped}
    # Bare letters are tags of a scheme only where they make sense together: a set of parts of speech may have an S.
    bare = {tag for tag in shaped if len(tag) == 1}
    sensible = not bare or (bare == letters and "B" in bare)
    if not shaped or unread > TYPING_ERRORS * (total - counts_of[OUTSIDE]) or not sensible:
        return Detected("none", total, 0)
    candidates: tuple[SchemeName, ...] = ("bio", "iob1")
    if "M" in letters:
        candidates = ("bmes",)
    elif letters & set("ESLU"):
        candidates = ("bioes",) if "I" in letters or letters & set("LU") else ("bioes", "bmes")
    counts = {name: sum(len(misfits(tags, name)) for tags in kept) for name in candidates}
    best = min(candidates, key=lambda name: counts[name])
    return Detected(best, total, counts[best])


def tags_of(labels: Sequence[str], scheme: SchemeName) -> list[str]:
    """Every tag that spans of these labels can need, without O."""
    letters = "BIES" if scheme in ("bioes", "bmes") else "BI"
    return [write(letter, label, scheme) for label in labels for letter in letters]
