"""Texts that look like the right one and are not: read from columns beside a pair of texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from encodery.data import ledger
from encodery.data.fields import BadField, Field

if TYPE_CHECKING:
    from encodery.data.rows import Row
    from encodery.data.source_config import DataConfig
    from encodery.data.tokenizers import Encoded, Tokenizer

MOST_NEGATIVES: Final = 255


def read_negatives(value: Any) -> tuple[str, ...]:
    """The texts of one column: a text, a list of texts, or such a list as JSON; none for nothing. Raises BadField."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    if value is None or value == "" or value == []:
        return ()
    given = value if isinstance(value, list | tuple) else (value,)
    for place, text in enumerate(given):
        if not isinstance(text, str) or not text.strip():
            raise BadField(ledger.BAD_NEGATIVES, f"text {place + 1} is {str(text)[:20]!r}: write a text for each")
    return tuple(given)


@dataclass
class NegativesField:
    """The texts of one or more columns, in their order. A row may have none; a column that it lacks is bad."""

    names: tuple[str, ...]
    name: str = field(default="negatives", init=False)

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        return tuple(("negatives", name) for name in self.names)

    @property
    def tokenizer(self) -> Tokenizer | None:
        return None

    def read(self, value: Mapping[str, Any], text: str) -> tuple[str, ...]:
        del text
        found: list[str] = []
        for name in self.names:
            if name not in value:
                raise BadField(ledger.BAD_NEGATIVES, f"no {name!r}; the row has {', '.join(map(repr, value))}")
            found += read_negatives(value[name])
        if len(found) > MOST_NEGATIVES:
            raise BadField(ledger.BAD_NEGATIVES, f"{len(found)} texts: give at most {MOST_NEGATIVES}")
        return tuple(found)

    def gatherer(self, known: Mapping[str, Any] | None) -> NegativesGatherer:
        del known
        return NegativesGatherer()

    def key(self) -> object:
        return (self.name, self.names)


def negatives_of(data: DataConfig) -> tuple[Field, ...]:
    """The field of the columns that `data.negatives` names; none without it."""
    if data.negatives is None:
        return ()
    return (NegativesField((data.negatives,) if isinstance(data.negatives, str) else tuple(data.negatives)),)


class NegativesGatherer:
    """Brings the texts of the rows of one store, and counts them."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def arrays(self, rows: Sequence[Row], encoded: Sequence[Sequence[Encoded]]) -> dict[str, np.ndarray]:
        del rows, encoded
        return {}

    def texts(self, rows: Sequence[Row]) -> list[list[str]]:
        found = [list(row.beside.get("negatives", ())) for row in rows]
        self.counts.update(len(texts) for texts in found)
        return found

    def facts(self) -> dict[str, Any]:
        return {f"rows with {count} wrong answers": rows for count, rows in sorted(self.counts.items())}
