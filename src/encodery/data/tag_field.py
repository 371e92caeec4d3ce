"""Tags of the words or characters of a row: read from its columns, settled in one scheme, laid at the tokens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from encodery.data import ledger
from encodery.data.fields import BadField
from encodery.data.tags import OUTSIDE, SchemeName, Span, detect, misfits, spans_of, tags_of
from encodery.data.tagsets import Tagged, Tagset
from encodery.data.units import RuleLearner, UnitRule, join, place

if TYPE_CHECKING:
    from encodery.data.rows import Row
    from encodery.data.tokenizers import Encoded, Tokenizer

PLACES_KEPT = 5
NOT_TAGGED = 1
"""In the array: a unit begins here, and its tag is not known. Tag number n stands as n + 2; 0 is no unit."""
_START, _STOP, _LABEL = ("start",), ("stop", "end"), ("label", "entity", "type", "tag")


@dataclass
class TagField:
    """The Field of token tagging (data/fields.py)."""

    texts_in: tuple[str, ...]
    tags_in: str | None = None
    spans_in: str | None = None
    scheme: SchemeName | Literal["auto"] = "auto"
    learned: Literal["same", "bio", "bioes", "bmes"] = "same"
    units: Literal["words", "characters"] = "words"
    name: str = "tags"

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """The columns of tags and of spans."""
        pairs = (("tags", self.tags_in), ("spans", self.spans_in))
        return tuple((word, column) for word, column in pairs if column is not None)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None: it has no texts of its own."""
        return None

    def key(self) -> object:
        """Part of the name of token caches."""
        return (1, self.columns, self.scheme, self.learned, self.units)

    def read(self, value: Mapping[str, Any], text: str) -> Tagged:
        """What the row says of its text. Raises BadField."""
        given = next((value[name] for name in self.texts_in if name in value), None)
        if self.spans_in is not None:
            if self.spans_in not in value:
                raise BadField(ledger.MISSING_TAGS, _there(self.spans_in, value))
            return Tagged(spans=read_spans(value[self.spans_in], given if isinstance(given, str) else text, text))
        words = None if isinstance(given, str) else words_at(given, text)
        if self.tags_in is None:
            if words is None:
                raise BadField(ledger.BAD_TAGS, "the text is no list of words, and the row has neither tags nor spans")
            return Tagged(words)
        if self.tags_in not in value:
            raise BadField(ledger.MISSING_TAGS, _there(self.tags_in, value))
        tags = _tags(value[self.tags_in])
        offsets = words if words is not None else _offsets(text, len(tags))
        if len(offsets) != len(tags):
            raise BadField(ledger.BAD_TAGS, f"{len(offsets)} words but {len(tags)} tags")
        if self.scheme not in ("auto", "none") and (wrong := misfits(tags, self.scheme)):
            more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise BadField(ledger.BAD_TAGS, f"tag {wrong[0].place + 1}: {wrong[0].why}{more}")
        return Tagged(offsets, tags)

    def gatherer(self, known: Mapping[str, Any] | None) -> TagGatherer:
        """For one store."""
        return TagGatherer(self, known)


def words_at(words: Any, text: str) -> np.ndarray:
    """Where the words of a list stand in the text that was made of them (data/rows.py), (U, 2). Raises BadField."""
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise BadField(ledger.BAD_TAGS, f"{words!s:.40} is no list of words")
    offsets = join(words)[1]
    for number, word in enumerate(words):
        kept = word.replace("\x00", "")
        if not kept.strip("\ufeff \t\r\n"):
            raise BadField(ledger.BAD_TAGS, f"word {number + 1} is {word!r:.40}, not a word")
    whole = join(words)[0]
    moved = np.array([[cleaned_size(whole[:edge]) for edge in pair] for pair in offsets.tolist()], dtype=np.int64)
    offsets = offsets if len(whole) == len(text) else moved
    for number, (start, stop) in enumerate(offsets.tolist()):  # white space around a word is not its own
        piece = text[start:stop]
        offsets[number] = start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
    return offsets


def cleaned_size(text: str) -> int:
    """How many of the characters before a place are left when a text is cleaned (data/rows.py)."""
    return len(text.replace("\x00", "").removeprefix("\ufeff"))


def _there(name: str, value: Mapping[str, Any]) -> str:
    return f"no '{name}'; the row has {', '.join(repr(key) for key in value)}"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _tags(given: Any) -> tuple[str, ...]:
    """A list of tags, one as JSON, or tags with spaces between them."""
    if isinstance(given, str):
        parsed = _parsed(given) if given.lstrip().startswith("[") else given
        given = parsed.split() if isinstance(parsed, str) else parsed
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if not isinstance(given, list | tuple):
        raise BadField(ledger.BAD_TAGS, f"the tags are a {type(given).__name__}, not a list")
    for number, tag in enumerate(given):
        if not isinstance(tag, str | int) or isinstance(tag, bool) or not str(tag).strip():
            raise BadField(ledger.BAD_TAGS, f"tag {number + 1} is {tag!r:.40}, not a tag")
    return tuple(str(tag).strip() for tag in given)


def _offsets(text: str, tags: int) -> np.ndarray:
    """The words of a plain text: what stands between spaces, or each character when there are as many as tags."""
    words = UnitRule("spaces").find(text)
    if len(words) == tags:
        return words
    characters = np.array([(at, at + 1) for at, char in enumerate(text) if not char.isspace()], dtype=np.int64)
    if len(characters) == tags:
        return characters
    raise BadField(
        ledger.BAD_TAGS, f"{len(words)} words with spaces between them ({len(characters)} characters) but {tags} tags"
    )


def read_spans(given: Any, raw: str, text: str) -> tuple[Span, ...]:
    """[[start, stop, "label"], ...] or [{"start", "stop" or "end", "label"}, ...], checked against the text as the row
    has it (`raw`) and moved to where the characters are in the clean `text`. Raises BadField."""
    if isinstance(given, str):
        given = _parsed(given) if given.strip() else []
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if given is None:
        given = []
    if not isinstance(given, list | tuple):
        raise BadField(ledger.BAD_SPANS, f"the spans are a {type(given).__name__}, not a list")
    spans: list[Span] = []
    for one in given:
        start, stop, label = _span(one)
        if not 0 <= start < stop <= len(raw):
            raise BadField(ledger.BAD_SPANS, f"{one!s:.60} lies outside of the text ({len(raw)} characters)")
        if isinstance(one, Mapping) and isinstance(one.get("text"), str) and one["text"] != raw[start:stop]:
            raise BadField(ledger.BAD_SPANS, f"{one!s:.60}: the text has {raw[start:stop]!r:.40} there")
        if len(raw) != len(text):
            start, stop = cleaned_size(raw[:start]), cleaned_size(raw[:stop])
        if not text[start:stop].strip():
            raise BadField(ledger.BAD_SPANS, f"{one!s:.60} holds white space alone")
        spans.append(Span(start, stop, label))
    spans.sort()
    for before, after in pairwise(spans):
        if after.start < before.stop:
            raise BadField(ledger.BAD_SPANS, f"{list(before)} and {list(after)} overlap")
    return tuple(spans)


def _span(one: Any) -> tuple[int, int, str]:
    if isinstance(one, Mapping):
        parts = [next((one[name] for name in names if name in one), None) for names in (_START, _STOP, _LABEL)]
    else:
        parts = list(one) if isinstance(one, list | tuple) else []
    if len(parts) == 3:
        start, stop, label = parts
        if type(start) is int and type(stop) is int and isinstance(label, str | int) and str(label).strip():
            return start, stop, str(label).strip()
    raise BadField(ledger.BAD_SPANS, f"{one!s:.60} is not [start, stop, label]")


@dataclass
class TagCounts:
    """What became of the tags of one store, for the report."""

    units: int = 0
    vanished: int = 0
    shared: int = 0
    lost_spans: int = 0
    widened_spans: int = 0
    unknown: int = 0
    misfits: int = 0
    places: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The counts that are not 0, by what people are told; that of the units always."""
        rest = {
            "units without a token": self.vanished,
            "units that share a token": self.shared,
            "spans lost inside of tokens": self.lost_spans,
            "spans that end inside of a unit": self.widened_spans,
            "tags unknown to the training rows": self.unknown,
            "tags mended that did not fit the scheme": self.misfits,
        }
        found: dict[str, Any] = {"units": self.units, **{name: count for name, count in rest.items() if count}}
        return found | ({"first of these rows": ", ".join(self.places)} if self.places else {})


class TagGatherer:
    """Numbers the tags of one store and lays them at the first tokens of their units."""

    def __init__(self, wanted: TagField, known: Mapping[str, Any] | None) -> None:
        self.field = wanted
        self.tagset = None if known is None else Tagset.from_dict(known)
        self.fixed = known is not None
        self.numbers: dict[str, int] = {}
        if self.tagset is not None:
            self.numbers = {name: number for number, name in enumerate(self.tagset.names)}
        self.labels: dict[str, None] = {}
        self.tag_counts: Counter[str] = Counter()
        self.counts = TagCounts()
        self.learner = RuleLearner()

    def texts(self, rows: Sequence[Row]) -> list[list[str]] | None:
        """None: tags are no texts."""
        del rows
        return None

    def arrays(self, rows: Sequence[Row], encoded: Sequence[Sequence[Encoded]]) -> dict[str, np.ndarray]:
        """`tags`: for every token 0, or what stands at the first token of a unit: NOT_TAGGED, or number + 2."""
        if self.tagset is None:
            self.tagset = self._settled(rows)
        parts: list[np.ndarray] = []
        for row, texts in zip(rows, encoded):
            parts.append(self._row(row, texts[0]))
            parts += [np.zeros(other.ids.size, dtype=np.int32) for other in texts[1:]]
        return {self.field.name: np.concatenate(parts) if parts else np.zeros(0, np.int32)}

    def look(self, rows: Sequence[Row]) -> Tagset:
        """The tags of some rows, before any is tokenised."""
        self.tagset = self.tagset or self._settled(rows)
        for row in rows:
            _, tags = self.tagset.settle(row.beside[self.field.name], row.text)
            self.labels.update(dict.fromkeys(span.label for span in spans_of(tags)))
            for tag in tags:
                self._number(tag)
        return Tagset.from_dict(self.facts())

    def facts(self) -> dict[str, Any]:
        """The Tagset as plain data, `labels`, and counts."""
        tagset = self.tagset or self._settled(())
        labels = sorted(self.labels)
        if not self.fixed:
            rule = self.learner.rule() if self._learns_rule() else tagset.rule
            names = list(self.numbers)
            if tagset.scheme != "none":
                names += [tag for tag in tags_of(labels, tagset.scheme) if tag not in self.numbers]
            commonest = OUTSIDE if tagset.scheme != "none" else max(names, key=self.tag_counts.__getitem__, default="")
            tagset = Tagset(tagset.given, tagset.scheme, tagset.units, tuple(names), rule, commonest)
        return {
            **tagset.to_dict(),
            "labels": labels,
            "tag_counts": dict(self.tag_counts.most_common()),
            "counts": self.counts.to_dict(),
        }

    def _settled(self, rows: Sequence[Row]) -> Tagset:
        """The schemes, told by the first rows where the recipe leaves them open."""
        wanted = self.field
        given: SchemeName = "none"
        if wanted.tags_in is not None:
            tagged = (row.beside[wanted.name].tags for row in rows)
            given = wanted.scheme if wanted.scheme != "auto" else detect(tags for tags in tagged if tags).scheme
        elif wanted.spans_in is not None:
            given = "bio"
        scheme: SchemeName = "bio" if given == "iob1" else given
        if given == "none" and wanted.units == "characters":
            scheme = "bmes"  # every word is a span of its characters
        if wanted.learned != "same" and scheme != "none":
            scheme = wanted.learned
        rule = UnitRule("characters") if wanted.units == "characters" else UnitRule("words", joined=False)
        return Tagset(given, scheme, wanted.units, (), rule)

    def _learns_rule(self) -> bool:
        return self.field.units == "words" and self.field.spans_in is None and self.learner.words > 0

    def _row(self, row: Row, encoded: Encoded) -> np.ndarray:
        assert self.tagset is not None
        tagset, counts = self.tagset, self.counts
        tagged: Tagged = row.beside[self.field.name]
        found = np.zeros(encoded.ids.size, dtype=np.int32)
        if not tagged.told:
            found[place(tagset.units_of(tagged, row.text), encoded.offsets).token] = NOT_TAGGED
            return found
        units, tags = tagset.settle(tagged, row.text)
        if tagged.offsets is not None and not self.fixed:
            self.learner.add([row.text[start:stop] for start, stop in tagged.offsets.tolist()])
        if self.field.scheme == "auto" and tagged.tags and tagset.given != "none":
            wrong = len(misfits(tagged.tags, tagset.given))
            counts.misfits += wrong
            if wrong and len(counts.places) < PLACES_KEPT:
                counts.places.append(row.where)
        placed = place(units, encoded.offsets)
        group_tags = tagset.group_tags(tags, placed)
        counts.units += len(units)
        counts.vanished += placed.vanished
        counts.shared += placed.shared
        if tagset.scheme != "none":
            self._count_spans(tagged, units, tags, group_tags)
        self.tag_counts.update(tags)
        found[placed.token] = [self._number(tag) for tag in group_tags]
        return found

    def _count_spans(self, tagged: Tagged, units: np.ndarray, tags: list[str], group_tags: list[str]) -> None:
        assert self.tagset is not None
        spans = spans_of(tags)
        self.labels.update(dict.fromkeys(span.label for span in spans))
        self.counts.lost_spans += len(spans) - len(spans_of(group_tags))
        if tagged.spans is not None or self.tagset.units == "characters":
            edges = {(int(units[span.start, 0]), int(units[span.stop - 1, 1])) for span in spans}
            self.counts.widened_spans += sum(
                (one.start, one.stop) not in edges for one in self.tagset.stretches(tagged)
            )

    def _number(self, tag: str) -> int:
        """What stands in the array."""
        number = self.numbers.get(tag)
        if number is None:
            if self.fixed:
                self.counts.unknown += 1
                return NOT_TAGGED
            number = self.numbers[tag] = len(self.numbers)
        return number + 2
