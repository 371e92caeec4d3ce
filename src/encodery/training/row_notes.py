"""What is worth saying of rows before they are learned or scored: those that stand in train as well, and words that the
tokenizer does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from encodery.data.rows import Row
from encodery.data.store import TokenStore
from encodery.data.targets import TARGET, target_lengths
from encodery.data.tokenizers import Tokenizer
from encodery.data.unknown_words import unknown_shares, unknown_shares_of_rows

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

    def places(self, numbers: np.ndarray) -> str:
        """Where the first of the rows with these numbers, which rise, stand in their files."""
        shown = {int(number) for number in numbers[:_ROWS_SHOWN]}
        text, last = "", ""
        for number, row in enumerate(islice(self.rows(), max(shown) + 1)):
            if number in shown:
                file, _, line = row.where.rpartition(":")
                place = line if text and file == last else row.where
                text, last = f"{text}, {place}" if text else place, file
        return text + (", ..." if len(numbers) > _ROWS_SHOWN else "")


def unknown_texts(splits: Sequence[NamedRows], tokenizer: Tokenizer) -> list[str]:
    """A sentence where the texts of a split have many tokens that the tokenizer does not know."""
    found: list[str] = []
    for split in splits:
        store = split.store
        sizes = np.diff(store.starts[:: 2 if store.paired else 1])
        found += _many(split, "texts", unknown_shares_of_rows(store, tokenizer.unk_id), sizes)
    return _unknown(found, "it cannot tell them apart")


def unknown_targets(splits: Sequence[NamedRows], tokenizer: Tokenizer) -> list[str]:
    """The same of the targets, whose tokens `tokenizer` made."""
    found: list[str] = []
    for split in splits:
        if TARGET in split.store.texts_beside:
            texts = split.store.texts_beside[TARGET]
            shares = unknown_shares(texts.tokens, texts.starts, tokenizer.unk_id)
            found += _many(split, "targets", shares, target_lengths(split.store))
    return _unknown(found, "it cannot write them")


def _many(split: NamedRows, what: str, share_of_row: np.ndarray, sizes: np.ndarray) -> list[str]:
    share = float((share_of_row * sizes).sum()) / max(1, int(sizes.sum()))
    if share < MANY_UNKNOWN:
        return []
    return [f"{share:.0%} of the tokens of the {split.name} {what} ({split.places(np.flatnonzero(share_of_row))})"]


def _unknown(found: list[str], what: str) -> list[str]:
    if not found:
        return []
    return [
        f"Unknown to the tokenizer: {'; '.join(found)}. So {what}: train a tokenizer on such text (without "
        "tokenizer.path and start_from), or one that knows all (tokenizer.kind=byte_bpe)."
    ]
