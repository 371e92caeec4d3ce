"""How tags are told and how they are learned: schemes, units and names settled, from units to tokens and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from encodery.data.tags import OUTSIDE, SchemeName, Span, convert, spans_of, write_spans
from encodery.data.units import Placed, UnitRule


@dataclass(frozen=True)
class Tagged:
    """What a row says of its text: `offsets` (U, 2) are its words in characters (none where the row has a plain text
    and spans), `tags` one a word, `spans` stretches of characters. Not `told`: nothing is known but the words."""

    offsets: np.ndarray | None = None
    tags: tuple[str, ...] | None = None
    spans: tuple[Span, ...] | None = None
    told: bool = True


@dataclass(frozen=True)
class Tagset:
    """How tags are told and learned: everything that is needed to read numbers as tags again.

    `given` is the scheme of the data, `scheme` the one that is learned; `names` are its tags in the order of their
    numbers; `commonest` stands for units that no token stands for.
    """

    given: SchemeName
    scheme: SchemeName
    units: Literal["words", "characters"]
    names: tuple[str, ...] = ()
    rule: UnitRule = field(default_factory=UnitRule)
    commonest: str = OUTSIDE

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Tagset:
        """From the facts of a store, or from what was kept with a model."""
        names = tuple(facts["names"])
        rule = UnitRule.from_dict(facts["rule"])
        return cls(facts["given"], facts["scheme"], facts["units"], names, rule, facts["commonest"])

    def to_dict(self) -> dict[str, Any]:
        """Plain data, to be kept with a model."""
        return {
            "given": self.given,
            "scheme": self.scheme,
            "units": self.units,
            "names": list(self.names),
            "rule": self.rule.to_dict(),
            "commonest": self.commonest,
        }

    def units_of(self, tagged: Tagged | None, text: str) -> np.ndarray:
        """Where the units of a text stand, (U, 2): the row's own words, or what the rule finds."""
        if self.units == "words" and tagged is not None and tagged.offsets is not None:
            return tagged.offsets
        return self.rule.find(text)

    def settle(self, tagged: Tagged, text: str) -> tuple[np.ndarray, list[str]]:
        """The units (U, 2) of a tagged text and their tags in the scheme that is learned."""
        units = self.units_of(tagged, text)
        if self.scheme == "none":
            assert tagged.tags is not None
            return units, list(tagged.tags)
        if tagged.spans is None and self.units == "words":
            assert tagged.tags is not None
            return units, convert(tagged.tags, self.scheme)
        return units, write_spans(spans_at(units, self.stretches(tagged)), len(units), self.scheme)

    def stretches(self, tagged: Tagged) -> list[Span]:
        """The spans of a row in characters of its text."""
        if tagged.spans is not None:
            return list(tagged.spans)
        assert tagged.offsets is not None
        if tagged.tags is None:
            found = [Span(number, number + 1, "") for number in range(len(tagged.offsets))]
        elif self.given == "none":
            found = [Span(number, number + 1, tag) for number, tag in enumerate(tagged.tags)]
        else:
            found = spans_of(tagged.tags)
        edges = tagged.offsets
        return [Span(int(edges[one.start, 0]), int(edges[one.stop - 1, 1]), one.label) for one in found]

    def group_tags(self, tags: list[str], placed: Placed) -> list[str]:
        """The tags of the groups of units that share their first token, (G,)."""
        first = np.zeros(placed.token.size, dtype=np.int64)
        numbers = np.flatnonzero(placed.group >= 0)[::-1]
        first[placed.group[numbers]] = numbers  # of several the first stays
        if self.scheme == "none" or placed.token.size == len(tags):
            return [tags[number] for number in first.tolist()]
        group = placed.group
        spans: list[Span] = []
        for span in spans_of(tags):
            inside = group[span.start : span.stop]
            inside = inside[inside >= 0]
            begin = max(int(inside[0]), spans[-1].stop if spans else 0) if inside.size else 0
            if inside.size and begin <= inside[-1]:
                spans.append(Span(begin, int(inside[-1]) + 1, span.label))
        return write_spans(spans, placed.token.size, self.scheme)

    def unit_tags(self, tags: list[str], placed: Placed) -> list[str]:
        """The tags of all units (U,) from those of their groups: `group_tags` the other way."""
        group = placed.group
        if self.scheme == "none":
            return [tags[number] if number >= 0 else self.commonest for number in group.tolist()]
        spans: list[Span] = []
        for span in spans_of(tags):
            inside = np.flatnonzero((group >= span.start) & (group < span.stop))
            spans.append(Span(int(inside[0]), int(inside[-1]) + 1, span.label))
        return write_spans(spans, group.size, self.scheme)


def spans_at(units: np.ndarray, stretches: Sequence[Span]) -> list[Span]:
    """Stretches of characters as spans of units; one that begins or ends inside of a unit takes all of it."""
    found: list[Span] = []
    for start, stop, label in sorted(stretches):
        begin = int(np.searchsorted(units[:, 1], start, "right"))
        end = int(np.searchsorted(units[:, 0], stop, "left"))
        begin = max(begin, found[-1].stop if found else 0)
        if begin < end:
            found.append(Span(begin, end, label))
    return found
