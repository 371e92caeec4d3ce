"""What rows carry beside text, pair and label: read from columns of their own, laid beside the tokens or kept as texts.

The tags of words, the answers to a question, a target text and the options of a choice are fields. A Field says how one
row is read; the Gatherer that it makes for each token store turns what was read into arrays, block by block, and may
number names as they come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from encodery.data.rows import Row
    from encodery.data.tokenizers import Encoded, Tokenizer


class BadField(Exception):
    """A row's column cannot be read: `kind` is one of the kinds of bad rows (data/ledger.py), `detail` says more."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.detail = detail


class Gatherer(Protocol):
    """What a field gathers while the rows of one store stream by."""

    def arrays(self, rows: Sequence[Row], encoded: Sequence[Sequence[Encoded]]) -> dict[str, np.ndarray]:
        """Numbers by name, one for every token of these rows in order (their texts, then their pairs), int32; 0 where
        nothing is said. Every call gives the same names."""
        ...

    def texts(self, rows: Sequence[Row]) -> list[list[str]] | None:
        """More texts of each row, which are tokenised too; None when the field has none."""
        ...

    def facts(self) -> dict[str, Any]:
        """What was found, as JSON: names in the order of their numbers, counts."""
        ...


class Field(Protocol):
    """Something that rows carry beside their text and label."""

    name: str
    """Under this name `Row.beside`, the arrays and the facts of it are found."""

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """(the recipe's word, the column) of every column that is read."""
        ...

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Makes the tokens of its texts; None: that of the rows' own texts."""
        ...

    def read(self, value: Mapping[str, Any], text: str) -> Any:
        """What `Row.beside` holds of this field; `text` is clean. Raises BadField."""
        ...

    def gatherer(self, known: Mapping[str, Any] | None) -> Gatherer:
        """For one store. `known` are the facts of the training store, None for that store itself: what they do not
        name is then an error (DataError with the row's place) or counted, as the field sees fit."""
        ...

    def key(self) -> object:
        """Part of the name of token caches: changes whenever arrays or texts could."""
        ...


@dataclass(frozen=True)
class Texts:
    """Texts beside the rows of a store, tokenised: `tokens` with their flags as in the store, `starts` (texts + 1,) and
    `rows` (rows + 1,): row r has the texts rows[r] to rows[r + 1]."""

    tokens: np.ndarray
    starts: np.ndarray
    rows: np.ndarray

    def of(self, row: int) -> list[np.ndarray]:
        """The packed tokens of each text of one row."""
        edges = self.starts[self.rows[row] : self.rows[row + 1] + 1]
        return [self.tokens[begin:end] for begin, end in pairwise(edges)]
