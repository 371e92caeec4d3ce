"""Options to choose from: read with which of them is right, each joined with its text as a pair."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from encodery.data import ledger
from encodery.data.fields import BadField

if TYPE_CHECKING:
    from encodery.data.rows import Row
    from encodery.data.tokenizers import Encoded, Tokenizer

MOST_CHOICES: Final = 26


@dataclass(frozen=True, slots=True)
class Choices:
    """The options of a row, and the number of the right one, from 0; None where it is not known."""

    options: tuple[str, ...]
    right: int | None = None


def read_options(value: Any) -> tuple[str, ...]:
    """The options of a row: a list of texts, {"text": [...], "label": [...]} as AI2's ARC has it, or either written as
    JSON. Raises BadField when there are fewer than two, or one is blank."""
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    if isinstance(value, Mapping):
        value = value.get("text")
    if not isinstance(value, list | tuple):
        raise BadField(ledger.BAD_CHOICES, f'{str(value)[:40]!r} is not ["...", "..."]')
    options: list[str] = []
    for place, one in enumerate(value):
        option = str(one) if isinstance(one, int | float) and one == one else one
        if not isinstance(option, str) or not option.strip():
            raise BadField(ledger.BAD_CHOICES, f"option {place} is {str(one)[:20]!r}: write a text for each")
        options.append(option)
    if not 2 <= len(options) <= MOST_CHOICES:
        raise BadField(ledger.BAD_CHOICES, f"{len(options)} options: give from 2 to {MOST_CHOICES}")
    return tuple(options)


def right_choice(label: Any, options: Sequence[str], names: Sequence[Any] = ()) -> int:
    """The number of the right option, from 0. A label is the text of an option, one of the `names` that the row gives
    to its options, a number counted from 0, or a letter from A on; the first of these that fits counts.

    Raises BadField.
    """
    if isinstance(label, bool) or not isinstance(label, int | float | str):
        raise BadField(ledger.NO_SUCH_CHOICE, f"the label is {str(label)[:20]!r}")
    text = label.strip() if isinstance(label, str) else label
    for known in (list(options), [str(name) for name in names]):
        if isinstance(text, str) and known.count(text) == 1:
            return known.index(text)
    number = -1
    if not isinstance(text, str):
        number = int(text) if text == text and float(text).is_integer() else -1
    elif text.isascii() and text.isdigit():
        number = int(text[:6])
    elif len(text) == 1 and "A" <= text.upper() <= "Z":
        number = ord(text.upper()) - ord("A")
    if not 0 <= number < len(options):
        letters = f"A to {chr(ord('A') + len(options) - 1)}"
        expected = f"0 to {len(options) - 1}, {letters}, or the text of one"
        raise BadField(ledger.NO_SUCH_CHOICE, f"{str(label)[:40]!r} of {len(options)} options; give {expected}")
    return number


class ChoiceGatherer:
    """The options of one store as texts; the array `right` says at every token of a row which option is right, from 1;
    0 where that is not known."""

    def __init__(self) -> None:
        self.positions: dict[int, int] = {}
        self.options: dict[int, int] = {}

    def arrays(self, rows: Sequence[Row], encoded: Sequence[Sequence[Encoded]]) -> dict[str, np.ndarray]:
        found = [np.zeros(0, np.int32)]
        for row, texts in zip(rows, encoded):
            choices: Choices = row.beside["choices"]
            number = 0 if choices.right is None else choices.right + 1
            found += [np.full(one.ids.size, number, np.int32) for one in texts]
            self.options[len(choices.options)] = self.options.get(len(choices.options), 0) + 1
            if number:
                self.positions[number] = self.positions.get(number, 0) + 1
        return {"right": np.concatenate(found)}

    def texts(self, rows: Sequence[Row]) -> list[list[str]]:
        return [list(row.beside["choices"].options) for row in rows]

    def facts(self) -> dict[str, Any]:
        told = {f"rows with {count} options": rows for count, rows in sorted(self.options.items())}
        return told | {f"right is option {number}": rows for number, rows in sorted(self.positions.items())}


@dataclass
class ChoiceField:
    """The options of a row, and the label that says which is right."""

    column: str
    label: str | None
    name: str = field(default="choices", init=False)

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        found = (("choices", self.column),)
        return found if self.label is None else (*found, ("label", self.label))

    @property
    def tokenizer(self) -> Tokenizer | None:
        return None

    def read(self, value: Mapping[str, Any], text: str) -> Choices:
        del text
        if self.column not in value:
            there = ", ".join(map(repr, value))
            raise BadField(ledger.MISSING_CHOICES, f"no {self.column!r}; the row has {there}")
        given = value[self.column]
        options = read_options(given)
        if self.label is None:
            return Choices(options)
        names = given.get("label") if isinstance(given, Mapping) else None
        names = names if isinstance(names, list | tuple) and len(names) == len(options) else ()
        label = value.get(self.label)
        if label is None or label == "":
            raise BadField(ledger.MISSING_LABEL)
        return Choices(options, right_choice(label, options, names))

    def gatherer(self, known: Mapping[str, Any] | None) -> ChoiceGatherer:
        del known
        return ChoiceGatherer()

    def key(self) -> object:
        return (self.name, self.column, self.label)
