"""Noise that a model learns to undo: words deleted, runs infilled, sentences permuted, runs named by sentinels.

Every function says what it does to one document of n tokens (special tokens left out) and can be undone: deletions and
permutations are given as places in the document, infillings and sentinels come with what they took away.

    BART      Lewis et al. 2020, section 2.2: token masking, deletion, infilling, sentence permutation, rotation
    T5        Raffel et al. 2020, sections 3.1.4 and 3.3.4: corrupted spans, a sentinel for each
    TSDAE     Wang et al. 2021, section 3: deletion alone, of 60 % of the words
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Infilled:
    """A document of which runs were replaced by one token each.

    `ids` (m,) is what is left, `taken` what each `hole` token stands for, in order (an empty run for one that was only
    put in), `index` (m,) the place that each token had; a hole has that of the first token it stands for.
    """

    ids: np.ndarray
    index: np.ndarray
    taken: tuple[np.ndarray, ...]


def units_of(starts: np.ndarray) -> np.ndarray:
    """The number of the word (or sentence) of each token, (n,), from where these begin; the first token begins one."""
    begins = np.array(starts, dtype=bool)
    if begins.size:
        begins[0] = True
    return np.cumsum(begins) - 1


def kept_tokens(starts_word: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Which tokens are left, (n,) bool, when each word is deleted with the probability `share`; one word always is."""
    word = units_of(starts_word)
    if not word.size:
        return np.zeros(0, dtype=bool)
    left = share <= rng.random(int(word[-1]) + 1)
    if not left.any():
        left[rng.integers(left.size)] = True
    return left[word]


def put_back(kept: np.ndarray, left: np.ndarray, deleted: np.ndarray) -> np.ndarray:
    """Undoes a deletion: (n,) ids from those that are left and those that are not, in their order."""
    ids = np.empty(kept.size, dtype=np.result_type(left, deleted))
    ids[kept], ids[~kept] = left, deleted
    return ids


def infilled(
    ids: np.ndarray,
    starts_word: np.ndarray,
    hole: int,
    *,
    share: float,
    mean: float,
    rng: np.random.Generator,
) -> Infilled:
    """BART's text infilling: runs of neighbouring words, their lengths drawn from Poisson(`mean`), each become one
    `hole`; a run of length 0 puts a hole in. Runs are drawn until a `share` of the tokens is gone.

    What comes out is never longer than what went in: holes are put in only where room was made.
    """
    starts = np.flatnonzero(np.diff(units_of(starts_word), prepend=-1))
    edges = np.append(starts, ids.size)
    words, wanted = starts.size, round(share * ids.size)
    gone = np.zeros(words, dtype=bool)
    runs: list[tuple[int, int]] = []
    before: set[int] = set()  # words that a hole is put before
    removed = 0
    for begin in rng.permutation(words).tolist():
        if wanted <= removed:
            break
        length = int(rng.poisson(mean))
        end = min(begin + length, words)
        # Two runs never touch: a reader could not tell where the first ends.
        if gone[max(0, begin - 1) : end + 1].any() or any(at in before for at in range(begin, end + 1)):
            continue
        if not length:
            before.add(begin)
            continue
        gone[begin:end] = True
        runs.append((begin, end))
        removed += int(edges[end] - edges[begin])
    room = sum(int(edges[end] - edges[begin]) - 1 for begin, end in runs)
    holes = [(begin, begin) for begin in sorted(before)[: max(0, room)]]
    pieces, places, taken, at = [], [], [], 0
    for begin, end in sorted([*runs, *holes]):
        first, last = int(edges[begin]), int(edges[end])
        pieces += [ids[at:first], np.array([hole], dtype=ids.dtype)]
        places += [np.arange(at, first), np.array([first])]
        taken.append(ids[first:last])
        at = last
    pieces.append(ids[at:])
    places.append(np.arange(at, ids.size))
    return Infilled(np.concatenate(pieces), np.concatenate(places), tuple(taken))


def filled(ids: np.ndarray, hole: int, taken: Sequence[np.ndarray]) -> np.ndarray:
    """Undoes an infilling: each `hole`, in order, becomes what was taken for it."""
    holes = np.flatnonzero(ids == hole)
    assert holes.size == len(taken), f"{holes.size} holes, and {len(taken)} runs to fill them"
    edges = [0, *(holes + 1).tolist()]
    pieces = [part for begin, end, run in zip(edges, holes.tolist(), taken) for part in (ids[begin:end], run)]
    return np.concatenate([*pieces, ids[edges[-1] :]])


def permuted_sentences(starts_sentence: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """BART's sentence permutation: the place that each token of the new order had, (n,)."""
    sentence = units_of(starts_sentence)
    if not sentence.size:
        return np.zeros(0, dtype=np.int64)
    rank = rng.permutation(int(sentence[-1]) + 1)
    return np.argsort(rank[sentence], kind="stable")


def rotated(size: int, rng: np.random.Generator) -> np.ndarray:
    """BART's document rotation: the document begins at a token drawn evenly; the place that each token had, (n,)."""
    return np.roll(np.arange(size), -int(rng.integers(size))) if size else np.zeros(0, dtype=np.int64)


def undone(order: np.ndarray, permuted: np.ndarray) -> np.ndarray:
    """Undoes a permutation: `permuted` is `original[order]`."""
    original = np.empty_like(permuted)
    original[order] = permuted
    return original


def corrupted_spans(size: int, *, share: float, mean: float, rng: np.random.Generator) -> np.ndarray:
    """T5's spans: (n,) bool, true for tokens to take away. The number of these tokens is `share` of all, rounded; the
    number of spans is that of the tokens divided by `mean`, rounded. Spans and what stands between them share the
    tokens at random; the first token is never taken away, and spans never touch.
    """
    taken = min(max(1, round(share * size)), size - 1)
    if size < 2:
        return np.zeros(size, dtype=bool)
    spans = max(1, min(round(taken / mean), taken, size - taken))
    lengths = np.empty(2 * spans, dtype=np.int64)
    lengths[0::2] = _shared_out(size - taken, spans, rng)
    lengths[1::2] = _shared_out(taken, spans, rng)
    return np.repeat(np.arange(2 * spans) % 2 == 1, lengths)


def with_sentinels(ids: np.ndarray, gone: np.ndarray, sentinels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """T5's source and target: each run of `gone` tokens becomes the next sentinel; the target says, after each
    sentinel, what it stands for, and ends with one more.

    Where there are fewer sentinels than runs the last one stands for all that are left: their order tells them apart.
    """
    source, target = [], []
    runs = np.split(np.arange(ids.size), np.flatnonzero(np.diff(gone)) + 1) if ids.size else []
    number = 0
    for run in runs:
        if gone[run[0]]:
            mark = sentinels[min(number, sentinels.size - 1) :][:1]
            source.append(mark)
            target += [mark, ids[run]]
            number += 1
        else:
            source.append(ids[run])
    target.append(sentinels[min(number, sentinels.size - 1) :][:1])
    return tuple(np.concatenate(part).astype(ids.dtype) if part else ids[:0] for part in (source, target))  # type: ignore[return-value]


def without_sentinels(source: np.ndarray, target: np.ndarray, sentinels: np.ndarray) -> np.ndarray:
    """Undoes `with_sentinels`: the document from its source and target."""
    marks = np.flatnonzero(np.isin(target, sentinels)).tolist()
    taken = [target[begin + 1 : end] for begin, end in pairwise(marks)]
    pieces, runs = [], iter(taken)
    for number in source.tolist():
        pieces.append(next(runs) if number in sentinels else np.array([number]))
    return np.concatenate(pieces).astype(source.dtype) if pieces else source


def _shared_out(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """`parts` numbers of at least 1 that sum to `total`, all ways alike."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1 if parts > 1 else np.zeros(0, np.int64)
    return np.diff(cuts, prepend=0, append=total)
