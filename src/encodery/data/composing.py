"""A row of a token store -> its samples: one text, two joined, or several that stay apart in one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from encodery.batch import Sample
from encodery.data.samples import LengthCounts, SampleMaker
from encodery.data.store import TokenStore

Compose = Callable[[TokenStore, SampleMaker, int, LengthCounts], list[Sample]]


class Composer(NamedTuple):
    """How samples are made of a row. `together`: they must come in one batch, and are packed as one."""

    make: Compose
    together: bool = False


def samples_of_row(store: TokenStore, maker: SampleMaker, row: int, counts: LengthCounts) -> list[Sample]:
    """The samples of one row of a store, as `maker.compose` names it; windows included."""
    return COMPOSERS[maker.compose].make(store, maker, row, counts)


def joined(store: TokenStore, maker: SampleMaker, row: int, counts: LengthCounts) -> list[Sample]:
    """A text by itself, split or cut when it is long; a pair as one sample, as in BERT."""
    if not store.paired:
        return maker.single(*store.text(row), row, counts, store.mention(row), store.numbers(row))
    first, second = store.mention(2 * row), store.mention(2 * row + 1)
    mentions = None if first is None or second is None else (first, second)
    numbers = (store.numbers(2 * row), store.numbers(2 * row + 1))
    return maker.pair(store.text(2 * row), store.text(2 * row + 1), row, counts, mentions, numbers)


def apart(store: TokenStore, maker: SampleMaker, row: int, counts: LengthCounts) -> list[Sample]:
    """Each text of a row as a document of its own, cut when it is long: `part` 0 is the text, 1 the second of a pair,
    then come the texts that fields bring, in the order of their names."""
    each = 2 if store.paired else 1
    texts = [store.text(each * row + number) for number in range(each)]
    for name in sorted(store.texts_beside):
        texts += store.texts_of(row, name)
    return [maker.cut(ids, starts_word, row, part, counts) for part, (ids, starts_word) in enumerate(texts)]


COMPOSERS: dict[str, Composer] = {"joined": Composer(joined), "apart": Composer(apart, together=True)}
"""By the name that a sample maker, and the task of a trained model, carries."""
