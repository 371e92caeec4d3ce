"""Recognises files whose words carry tags: lists of words beside lists of tags, or texts with spans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from encodery.data.tags import Detected, detect
from encodery.data.units import join, unspaced_words

_ALIKE = 0.95
"""Share of the rows in which words and tags must be as many."""
_TAG_NAMES = ("tags", "ner_tags", "ner", "slots", "labels", "upos", "pos", "pos_tags", "xpos", "tag", "label")
_SPAN_KEYS = ({"start", "end"}, {"start", "stop"})


@dataclass(frozen=True)
class TagsSeen:
    """Which columns hold the texts and their tags or spans, and what the tags are."""

    text: str
    tags: str | None
    spans: str | None
    detected: Detected
    counts: Counter[str]
    unspaced: bool

    @property
    def units(self) -> Literal["words", "characters"]:
        """Words of a script without spaces are best found together with their tags, in its characters."""
        return "characters" if self.unspaced and self.tags is not None else "words"


def look_for_tags(table: Mapping[str, list[Any]], text: str | None) -> TagsSeen | None:
    """The columns that look like tagged texts; `text` is the column that the person named."""
    texts = [text] if text is not None else list(table)
    for name in texts:
        words = [_words(value) for value in table[name]]
        if any(words) and (found := _tags_beside(table, name, words)) is not None:
            return found
    for name, values in table.items():
        spans = [value for value in values if isinstance(value, list) and value]
        if spans and all(_is_span(one) for value in spans for one in value):
            lengths = {other: _mean_length(table[other]) for other in texts if other != name}
            best = max(lengths, key=lambda other: lengths[other], default=None)
            if best is None or not lengths[best]:
                continue
            counts = Counter(_label(one) for value in spans for one in value)
            return TagsSeen(best, None, name, Detected("bio", counts.total(), 0), counts, False)
    return None


def _tags_beside(table: Mapping[str, list[Any]], text: str, words: list[list[str]]) -> TagsSeen | None:
    ranked: list[tuple[int, int, str]] = []
    for name, values in table.items():
        rows = [(own, value) for own, value in zip(words, values) if own and value]
        if name == text or not rows or not all(isinstance(value, list) for _, value in rows):
            continue
        alike = sum(len(own) == len(value) for own, value in rows)
        plain = all(isinstance(tag, str | int) and not isinstance(tag, bool) for _, value in rows for tag in value)
        distinct = len({str(tag) for _, value in rows for tag in value})
        units = sum(len(value) for _, value in rows)
        if plain and alike >= _ALIKE * len(rows) and (distinct <= 0.2 * units or units < 200):
            rank = _TAG_NAMES.index(name.lower()) if name.lower() in _TAG_NAMES else len(_TAG_NAMES)
            ranked.append((rank, distinct, name))
    if not ranked:
        return None
    best = min(ranked)[2]
    tags = [[str(tag) for tag in value] for value in table[best] if isinstance(value, list)]
    unspaced = sum(unspaced_words(own) for own in words[:200]) * 2 > len(words[:200])
    longer = any(len(word) > 1 for own in words[:200] for word in own)
    counts = Counter(tag for row in tags for tag in row)
    return TagsSeen(text, best, None, detect(tags), counts, unspaced and longer)


def _words(value: Any) -> list[str]:
    """The words of a row: its list, or what stands between spaces."""
    if isinstance(value, list):
        return value if value and all(isinstance(word, str) and word.strip() for word in value) else []
    return value.split() if isinstance(value, str) else []


def _is_span(one: Any) -> bool:
    if isinstance(one, Mapping):
        return any(keys <= set(one) for keys in _SPAN_KEYS)
    return isinstance(one, list) and len(one) == 3 and type(one[0]) is int and type(one[1]) is int


def _label(one: Any) -> str:
    if isinstance(one, Mapping):
        return str(next((one[name] for name in ("label", "entity", "type", "tag") if name in one), ""))
    return str(one[2])


def _mean_length(values: list[Any]) -> float:
    strings = [value for value in values if isinstance(value, str)]
    return sum(map(len, strings)) / len(strings) if len(strings) * 2 > len(values) else 0.0


def text_of(value: Any) -> str:
    """A column's text, words joined as the data room joins them."""
    words = _words(value) if isinstance(value, list) else []
    return join(words)[0] if words else str(value or "")


def tags_said(seen: TagsSeen) -> str:
    """What the comment beside the column says."""
    kinds = len(seen.counts)
    shown = ", ".join(f"{tag[:20]} ({count:,})" for tag, count in seen.counts.most_common(3))
    scheme = "" if seen.detected.scheme == "none" or seen.spans else f", {seen.detected.scheme}"
    wrong = f"; {seen.detected.misfits:,} do not fit and are mended" if seen.detected.misfits else ""
    return f"{kinds} {'labels' if seen.spans else 'tags'}: {shown}{scheme}{wrong}".replace("\n", " ")
