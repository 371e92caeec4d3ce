"""What is worth saying of rows before they are learned or scored: those that stand in train as well, and words that the
tokenizer does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Final

import numpy as np

from encodery.data.rows import Row
from encodery.data.store import TokenStore
from encodery.data.targets import TARGET
from encodery.data.tokenizers import Tokenizer

MANY_IN_TRAIN: Final = 0.02
"""From this share of held rows on that are training rows as well, a run says so."""
MANY_UNKNOWN: Final = 0.05
"""From this share of tokens on that are unknown."""
_ROWS_SHOWN: Final = 3


def rows_in_train(train: TokenStore, held: Mapping[str, TokenStore]) -> dict[str, int]:
    """How many held rows have the texts of a training row, by split."""
    keys = np.unique(train.row_keys())
    return {name: int(np.isin(store.row_keys(), keys).sum()) for name, store in held.items()}


def flattery(in_train: Mapping[str, int], held: Mapping[str, TokenStore]) -> list[str]:
    """A sentence for each split with many rows of train."""
    found = []
    for name, store in held.items():
        share = in_train[name] / max(1, store.rows)
        if share >= MANY_IN_TRAIN:
            what = "weights are chosen by what is known" if name == "validation" else "scores flatter"
            found.append(f"{share:.0%} of the {name} rows ({in_train[name]:,}) stand in train as well: {what}.")
    return found


@dataclass(frozen=True)
class NamedRows:
    """A split by its name, its tokens, and what gives its rows in the same order."""

    name: str
    store: TokenStore
    rows: Callable[[], Iterable[Row]]

    def places(self, numbers: Iterator[int]) -> str:
        """Where the first of the rows with these numbers, which rise, stand in their files."""
        first = list(islice((number for number, _ in groupby(numbers)), _ROWS_SHOWN + 1))
        shown = set(first[:_ROWS_SHOWN])
        found = [row.where for number, row in enumerate(islice(self.rows(), max(shown) + 1)) if number in shown]
        return ", ".join(found) + (", ..." if len(first) > _ROWS_SHOWN else "")


def unknown_texts(splits: Sequence[NamedRows], tokenizer: Tokenizer) -> list[str]:
    """A sentence where the texts of a split have many tokens that the tokenizer does not know."""
    found: list[str] = []
    unknown = tokenizer.unk_id
    for split in splits if unknown is not None else ():
        store, sides = split.store, 2 if split.store.paired else 1
        share = store.counts(tokenizer.vocab_size)[unknown] / max(1, store.tokens.size)
        if share >= MANY_UNKNOWN:
            texts = range(store.starts.size - 1)
            having = (number // sides for number in texts if unknown in store.text(number)[0])
            found.append(f"{share:.0%} of the tokens of the {split.name} texts ({split.places(having)})")
    return _unknown(found, "it cannot tell them apart")


def unknown_targets(splits: Sequence[NamedRows], tokenizer: Tokenizer) -> list[str]:
    """The same of the targets, whose tokens `tokenizer` made."""
    found: list[str] = []
    unknown = tokenizer.unk_id
    for split in splits if unknown is not None else ():
        if TARGET not in split.store.texts_beside:
            continue
        ids = [split.store.texts_of(row, TARGET)[0][0] for row in range(split.store.rows)]
        share = sum(int((of_row == unknown).sum()) for of_row in ids) / max(1, sum(of_row.size for of_row in ids))
        if share >= MANY_UNKNOWN:
            having = (row for row, of_row in enumerate(ids) if unknown in of_row)
            found.append(f"{share:.0%} of the tokens of the {split.name} targets ({split.places(having)})")
    return _unknown(found, "it cannot write them")


def _unknown(found: list[str], what: str) -> list[str]:
    if not found:
        return []
    return [
        f"Unknown to the tokenizer: {'; '.join(found)}. So {what}: train a tokenizer on such text (without "
        "tokenizer.path and start_from), or one that knows all (tokenizer.kind=byte_bpe)."
    ]
