"""A row of a token store -> its samples: one text, two joined, or several that stay apart in one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from encodery.batch import Sample
from encodery.data.answers import question_windows
from encodery.data.samples import LengthCounts, SampleMaker
from encodery.data.store import TokenStore

Compose = Callable[[TokenStore, SampleMaker, int, LengthCounts], list[Sample]]


class Composer(NamedTuple):
    """How samples are made of a row. Those for which `together` gives the same number must come in one batch, and are
    packed as one; None: each is packed by itself."""

    make: Compose
    together: Callable[[Sample], int] | None = None


def of_one_row(sample: Sample) -> int:
    """The row of a sample."""
    return sample.uid


def of_one_window(sample: Sample) -> int:
    """The window of a text that comes twice."""
    return (sample.uid << 20) + sample.part // 2


def samples_of_row(store: TokenStore, maker: SampleMaker, row: int, counts: LengthCounts) -> list[Sample]:
    """The samples of one row of a store, as `maker.compose` names it; windows included."""
    return composer(maker.compose).make(store, maker, row, counts)


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


def questions(
    store: TokenStore, maker: SampleMaker, row: int, counts: LengthCounts, *, overlap: int = 0
) -> list[Sample]:
    """The windows of a context, each behind the question that is asked of it, the second text of the row."""
    (context, starts), (question, question_starts) = store.text(2 * row), store.text(2 * row + 1)
    numbers, beside = store.numbers(2 * row), store.numbers(2 * row + 1)
    room = maker.max_length - maker.around.pair_size
    windows = question_windows(question.size, context.size, room, overlap)
    counts.rows += 1
    counts.split_rows += len(windows) > 1
    kept = windows[0].question
    counts.cut_rows += kept < question.size
    counts.cut_tokens += question.size - kept
    counts.kept_tokens += kept + context.size
    asked = (question[:kept], question_starts[:kept])
    asked_numbers = {name: of[:kept] for name, of in beside.items()}
    samples = []
    for part, (_, begin, end) in enumerate(windows):
        said = {name: of[begin:end] for name, of in numbers.items()}
        lengths = LengthCounts()  # what the pair would count: nothing of it is lost here
        pair = (context[begin:end], starts[begin:end])
        samples += [
            replace(one, part=part) for one in maker.pair(asked, pair, row, lengths, None, (asked_numbers, said))
        ]
        counts.windows += 1
    return samples


def windows(store: TokenStore, maker: SampleMaker, row: int, counts: LengthCounts, *, overlap: int = 0) -> list[Sample]:
    """One text in windows that share `overlap` tokens, or with `long: cut` its beginning. `beside["place"]` counts its
    tokens from 1, so that what is said of a token can be found again whichever window it stands in."""
    ids, starts_word = store.text(row)
    mention = store.mention(row)
    numbers = {**store.numbers(row), "place": np.arange(1, ids.size + 1, dtype=np.int32)}
    room = maker.max_length - maker.around.single_size
    if ids.size <= room or maker.long == "cut":
        return maker.single(ids, starts_word, row, counts, mention, numbers)
    counts.rows += 1
    counts.split_rows += 1
    step = room - min(overlap, room // 2)
    edges = range(0, max(1, ids.size - (room - step)), step)
    samples: list[Sample] = []
    for part, begin in enumerate(edges):
        # The last window is full as well, and shares more with the one before it.
        begin = min(begin, ids.size - room)
        piece = slice(begin, begin + room)
        said = None if mention is None else mention[piece]
        lengths = LengthCounts()
        made = maker.single(
            ids[piece], starts_word[piece], row, lengths, said, {name: of[piece] for name, of in numbers.items()}
        )
        samples.append(replace(made[0], part=part))
        counts.windows += 1
    counts.kept_tokens += ids.size
    return samples


def choices(store: TokenStore, maker: SampleMaker, row: int, counts: LengthCounts) -> list[Sample]:
    """A pair for each option of a row: the text, and the option, behind the question where the row has one (RACE: Lai
    et al. 2017; as pairs: Devlin et al. 2019, section 4.4). `part` numbers the options."""
    each = 2 if store.paired else 1
    first, numbers = store.text(each * row), store.numbers(each * row)
    asked = store.text(2 * row + 1) if store.paired else None
    samples: list[Sample] = []
    rows = counts.rows
    for part, option in enumerate(store.texts_of(row, "choices")):
        if asked is not None:
            option = (np.concatenate([asked[0], option[0]]), np.concatenate([asked[1], option[1]]))
        beside = {name: np.zeros(option[0].size, np.int32) for name in numbers}
        samples += [replace(one, part=part) for one in maker.pair(first, option, row, counts, None, (numbers, beside))]
    counts.rows = rows + 1
    return samples


def twice(store: TokenStore, maker: SampleMaker, row: int, counts: LengthCounts) -> list[Sample]:
    """Each window of a text two times, side by side: parts 0 and 1 are the first, 2 and 3 the second. A pair gives its
    two texts one after the other, as if they were windows."""
    each = 2 if store.paired else 1
    found: list[Sample] = []
    for number in range(each * row, each * row + each):
        for one in maker.single(*store.text(number), row, counts):
            found += [replace(one, part=len(found)), replace(one, part=len(found) + 1)]
    counts.rows -= each - 1
    return found


def candidates(store: TokenStore, maker: SampleMaker, row: int, counts: LengthCounts) -> list[Sample]:
    """A pair for each candidate of a query, the text of the row: part 0 is its second text, then its wrong answers."""
    assert store.paired, "candidates stand beside a query"
    rows = counts.rows
    wrong = store.texts_of(row, "negatives") if "negatives" in store.texts_beside else []
    query, texts = store.text(2 * row), [store.text(2 * row + 1), *wrong]
    found: list[Sample] = []
    for part, text in enumerate(texts):
        found += [replace(one, part=part) for one in maker.pair(query, text, row, counts)]
    counts.rows = rows + 1
    return found


COMPOSERS: dict[str, Composer] = {
    "joined": Composer(joined),
    "apart": Composer(apart, of_one_row),
    "choices": Composer(choices, of_one_row),
    "twice": Composer(twice, of_one_window),
    "candidates": Composer(candidates, of_one_row),
}
"""By the name that a sample maker, and the task of a trained model, carries."""


def composer(name: str) -> Composer:
    """The composer of this name; `questions:64` are questions whose windows share 64 tokens of the context, and
    `windows:64` windows of one text that share as many."""
    kind, _, overlap = name.partition(":")
    if kind in ("questions", "windows"):
        return Composer(partial(questions if kind == "questions" else windows, overlap=int(overlap or 0)))
    return COMPOSERS[name]
