"""A raw row -> a Row: columns joined, texts cleaned, labels made str, list of str or float."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from encodery.data import ledger
from encodery.data.fields import BadField, Field
from encodery.data.ledger import Watch
from encodery.data.readers import Raw
from encodery.data.units import join

Labels = Literal["none", "class", "classes", "number"]
"""What the head needs: nothing, one class, a list of classes, or a number."""

# Something a person could read: not white space, not a control or invisible formatting character, not the
# stand-in for an unreadable character. An emoji counts.
_VISIBLE = re.compile(
    "[^\\s\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffd\ud800-\udfff]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0+")

REPAIRED_NUL: Final = "NUL characters taken out of a text"
REPAIRED_SURROGATE: Final = "half a character (lone surrogate) replaced by U+FFFD"


class Mention(NamedTuple):
    """A stretch of the characters of a text, [start, stop), that names an entity."""

    start: int
    stop: int
    entity: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row of data. `where` says its file and line, such as `train.jsonl:17`; `mentions` are those that the row
    marks in its text; `beside` holds what its fields are, by their names; `group` is what it shares with others."""

    text: str
    pair: str | None
    label: str | float | list[str] | None
    where: str
    mentions: tuple[Mention, ...] = ()
    beside: dict[str, Any] = field(default_factory=dict)
    group: str | None = None


class _Bad(Exception):
    """Why a raw row cannot become a Row; it never leaves this module."""

    def __init__(self, kind: str, detail: str = "") -> None:
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Makes the rows of one place: which columns hold text, pair, label and group, and what the label is."""

    text: tuple[str, ...]
    pair: str | None
    label: str | None
    labels: Labels
    separator: str
    mentions: str | None = None
    fields: tuple[Field, ...] = ()
    group: str | None = None

    @property
    def wanted(self) -> tuple[tuple[str, str], ...]:
        """The columns a row needs, each with the recipe's word for it."""
        columns = [("text", name) for name in self.text]
        if self.pair is not None:
            columns.append(("pair", self.pair))
        if self.labels != "none" and self.label is not None:
            columns.append(("label", self.label))
        if self.group is not None:
            columns.append(("group", self.group))
        columns += (column for one in self.fields for column in one.columns)
        return tuple(dict.fromkeys(columns))

    def make(self, raw: Raw, watch: Watch) -> Row | None:
        """The row, or None for a bad one, which is then entered with `watch`.

        Raises:
            DataError: `watch` has had enough of bad rows.
        """
        kind, detail = raw.bad, raw.detail
        if not kind:
            try:
                return self._make(raw, watch)
            except _Bad as bad:
                kind, detail = bad.kind, bad.detail
        if kind == ledger.BLANK_LINE:
            watch.note(kind, raw.where)
        else:
            watch.add_bad(kind, raw.where, detail)
        return None

    def _make(self, raw: Raw, watch: Watch) -> Row:
        value = raw.value
        if len(self.text) == 1:
            name = self.text[0]
            if name not in value:
                raise _Bad(ledger.MISSING_TEXT, _there(name, value))
            text = _string(value[name], ledger.EMPTY_TEXT)
        else:
            parts = [_string(value[name], "") for name in self.text if name in value]
            if not parts:
                raise _Bad(ledger.MISSING_TEXT, _there(self.text[0], value))
            text = " ".join(part for part in parts if part)
        text = _clean(text, raw.where, watch)
        if not _VISIBLE.search(text):
            raise _Bad(ledger.EMPTY_TEXT)
        pair = None
        if self.pair is not None:
            if self.pair not in value:
                raise _Bad(ledger.MISSING_PAIR, _there(self.pair, value))
            pair = _clean(_string(value[self.pair], ledger.EMPTY_PAIR), raw.where, watch)
            if not _VISIBLE.search(pair):
                raise _Bad(ledger.EMPTY_PAIR)
        label = self._label(value) if self.labels != "none" else None
        mentions = ()
        if self.mentions is not None:
            mentions = _mentions(value.get(self.mentions), value[self.text[0]])
        try:
            beside = {one.name: one.read(value, text) for one in self.fields}
        except BadField as bad:
            raise _Bad(bad.kind, bad.detail) from bad
        return Row(text, pair, label, raw.where, mentions, beside, self._group(value))

    def _group(self, value: dict[str, Any]) -> str | None:
        """What tells groups apart, in one way of writing; texts differ no more than they do for `fraction`."""
        if self.group is None:
            return None
        found = value.get(self.group)
        if found is None or (isinstance(found, str) and not found.strip()):
            raise _Bad(ledger.MISSING_GROUP)
        return folded(_class(found, ledger.NOT_A_GROUP))

    def _label(self, value: dict[str, Any]) -> str | float | list[str]:
        found = value.get(self.label) if self.label is not None else None
        if found is None or (isinstance(found, str) and not found.strip()):
            raise _Bad(ledger.MISSING_LABEL)
        if self.labels == "number":
            return _number(found)
        if self.labels == "classes":
            return _classes(found, self.separator)
        return _class(found, ledger.NOT_ONE_LABEL)


def _mentions(value: Any, text: Any) -> tuple[Mention, ...]:
    """Those of a column: a list, or one as JSON; moved to where the characters are once the text is clean."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise _Bad(ledger.BAD_MENTIONS, str(error)) from error
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return ()
    try:
        found = read_mentions(value, text)
    except ValueError as error:
        raise _Bad(ledger.BAD_MENTIONS, str(error)) from error
    return tuple(
        one._replace(start=_cleaned_size(text[: one.start]), stop=_cleaned_size(text[: one.stop])) for one in found
    )


def read_mentions(value: Any, text: Any) -> tuple[Mention, ...]:
    """[[start, stop, "id"], ...] as Mentions of a text. Raises ValueError that says what is wrong."""
    found = []
    for given in value if isinstance(value, list | tuple) else (value,):
        kinds = tuple(map(type, given)) if isinstance(given, list | tuple) else ()
        if kinds not in ((int, int, str), (int, int, int)):
            raise ValueError(f"{str(given)[:40]} is not [start, stop, entity]")
        start, stop, entity = given
        if not isinstance(text, str) or not 0 <= start < stop <= len(text):
            raise ValueError(f"{str(given)[:40]} lies outside of the text")
        found.append(Mention(start, stop, str(entity)))
    return tuple(found)


def _cleaned_size(text: str) -> int:
    """How many of these characters `_clean` leaves."""
    return len(text.replace("\x00", "").removeprefix("\ufeff"))


def readable(text: str) -> bool:
    """Whether there is anything in a text that a person could read; not so for blanks and NUL characters alone."""
    return _VISIBLE.search(text) is not None


def _there(name: str, value: dict[str, Any]) -> str:
    return f"no '{name}'; the row has {', '.join(repr(key) for key in value) or 'no columns'}"


def _string(value: Any, empty: str) -> str:
    """Text of a column. Lists of words (or sentences) are joined; numbers are written out; nothing (None, NaN, an empty
    list) is bad as `empty`, or '' without it."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return join(value)[0]
    if isinstance(value, list) and not value:
        value = None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        if empty:
            raise _Bad(empty)
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise _Bad(ledger.NOT_TEXT, f"a {type(value).__name__}")


def _clean(text: str, where: str, watch: Watch) -> str:
    """Without NUL characters and lone surrogates, which UTF-8 and tokenizers cannot carry; noted."""
    if "\x00" in text:
        text = text.replace("\x00", "")
        if _VISIBLE.search(text):
            watch.note(REPAIRED_NUL, where)
    if not text.isascii() and _SURROGATE.search(text):
        text = _SURROGATE.sub("\ufffd", text)
        if _VISIBLE.search(text):
            watch.note(REPAIRED_SURROGATE, where)
    return text.removeprefix("\ufeff")


def _class(value: Any, kind: str) -> str:
    """The name of a class. 1, 1.0 and "1.0" are the class "1", whatever format a table went through."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _Bad(ledger.MISSING_LABEL, str(value))
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, str):
        name = _SURROGATE.sub("\ufffd", value.strip())
        whole = _WHOLE_NUMBER.fullmatch(name)
        return whole[1] if whole else name
    raise _Bad(kind, f"a {type(value).__name__}")


def _classes(value: Any, separator: str) -> list[str]:
    """Several labels; `[]` says that none of the classes holds. A label given twice counts once."""
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise _Bad(ledger.NOT_A_LABEL_LIST, str(error)) from error
        else:
            value = [part for part in value.split(separator) if part.strip()]
            if not value:
                raise _Bad(ledger.MISSING_LABEL)
    parts = value if isinstance(value, list | tuple) else [value]
    names = []
    for part in parts:
        if part is None or (isinstance(part, str) and not part.strip()):
            raise _Bad(ledger.NOT_A_LABEL_LIST, "a label in the list is empty")
        names.append(_class(part, ledger.NOT_A_LABEL_LIST))
    return list(dict.fromkeys(names))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _Bad(ledger.NOT_A_NUMBER, f"a {type(value).__name__}")
    try:
        if isinstance(value, str) and "_" in value:
            raise ValueError
        number = float(value)
    except (ValueError, OverflowError):
        raise _Bad(ledger.NOT_A_NUMBER, repr(value)[:40]) from None
    if not math.isfinite(number):
        raise _Bad(ledger.NOT_A_NUMBER, str(value))
    return number


def fraction(row: Row, seed: int, purpose: str) -> float:
    """A number in [0, 1) that depends on the seed, the purpose and the texts alone; for the purpose `split`, on the
    group instead where a row has one.

    Upper case and white space do not matter, so that near copies of a text fall on the same side of a split.
    """
    key = f"{seed}\n{folded(row.text)}\n{folded(row.pair or '')}"
    if row.group is not None and purpose == "split":
        key = f"{seed}\n{row.group}"
    return stable_fraction(key, purpose)


def stable_fraction(key: str, purpose: str) -> float:
    """A number in [0, 1) from a hash that is the same on every machine and in every run."""
    digest = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8, person=purpose.encode()).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def folded(text: str) -> str:
    """Without what near copies of a text differ in: upper case and white space."""
    return " ".join(text.split()).casefold()
