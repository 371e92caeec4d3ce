"""The Unigram language model of pieces (Kudo 2018), trained by Viterbi counts that come out alike in every process."""

# pyright: reportAttributeAccessIssue=false
# (the type stubs of `tokenizers` leave out its submodules)

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models

LONGEST_PIECE = 16  # characters in one piece, as in SentencePiece

Scores = dict[str, tuple[float, float]]  # piece -> (log probability, count)


def fit_pieces(words: list[str], weights: np.ndarray, pieces: list[str], most: int) -> list[tuple[str, float]]:
    """At most so many of the pieces with their log probabilities, the likeliest first, from words and how often each
    is met (Kudo 2018, https://arxiv.org/abs/1804.10959).

    As in the paper, probabilities are re-estimated and the 30 % that cost the least likelihood are dropped, until no
    more than `most` are left; single characters stay.
    """
    scores = _reestimate(words, weights, _first_scores(words, weights, pieces))
    while len(scores) > most:
        kept = _prune(scores, max(most, int(0.7 * len(scores))))
        if len(kept) == len(scores):  # nothing but single characters
            break
        scores = _reestimate(words, weights, kept)
    scores = _reestimate(words, weights, scores)
    rounded = [(token, round(score, 6)) for token, (score, _) in scores.items()]
    return sorted(rounded, key=lambda item: (-item[1], item[0]))


def _first_scores(words: list[str], weights: np.ndarray, pieces: list[str]) -> Scores:
    """Start from the frequency of every piece as a substring, in at most 200,000 evenly chosen words."""
    counts = dict.fromkeys(pieces, 0.5)
    step = max(1, len(words) // 200_000)
    for word, weight in zip(words[::step], weights[::step].tolist()):
        for start in range(len(word)):
            for stop in range(start + 1, min(len(word), start + LONGEST_PIECE) + 1):
                piece = word[start:stop]
                if piece in counts:
                    counts[piece] += weight
    total = math.log(sum(counts.values()))
    return {piece: (math.log(count) - total, count) for piece, count in counts.items()}


def _reestimate(words: list[str], weights: np.ndarray, scores: Scores) -> Scores:
    """One round of Viterbi training: segment every word in the best way, count, take logarithms.

    A piece of several characters that no best segmentation uses is dropped.
    """
    vocabulary = [("[UNK]", 0.0), *((piece, score) for piece, (score, _) in scores.items())]
    viterbi: Any = tokenizers.Tokenizer(models.Unigram(vocab=vocabulary, unk_id=0))
    counts = np.zeros(len(vocabulary), dtype=np.float64)
    for start in range(0, len(words), 65_536):
        rows = [encoding.ids for encoding in viterbi.encode_batch_fast(words[start : start + 65_536])]
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        ids = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum()))
        each = np.repeat(weights[start : start + len(rows)], lengths)
        counts += np.bincount(ids, each, minlength=len(counts))
    found = {
        piece: max(count, 0.5)
        for (piece, _), count in zip(vocabulary[1:], counts[1:].tolist())
        if count > 0 or len(piece) == 1
    }
    total = math.log(sum(found.values())) if found else 0.0
    return {piece: (math.log(count) - total, count) for piece, count in found.items()}


def _prune(scores: Scores, keep: int) -> Scores:
    """Keep single characters and the pieces that cost most to remove: count x (score - best replacement)."""
    losses: list[tuple[float, str]] = []
    single = [piece for piece in scores if len(piece) == 1]
    for piece, (score, count) in scores.items():
        if len(piece) > 1:
            losses.append((-count * (score - _replacement(piece, scores)), piece))
    losses.sort()
    kept = {*single, *(piece for _, piece in losses[: max(0, keep - len(single))])}
    return {piece: value for piece, value in scores.items() if piece in kept}


def _replacement(piece: str, scores: Scores) -> float:
    """Score of the best segmentation of `piece` into several other pieces; an unknown character costs 30."""
    best = [0.0] + [-math.inf] * len(piece)
    for stop in range(1, len(piece) + 1):
        best[stop] = best[stop - 1] - 30.0
        for start in range(0 if stop < len(piece) else 1, stop):
            entry = scores.get(piece[start:stop])
            if entry is not None and best[start] + entry[0] > best[stop]:
                best[stop] = best[start] + entry[0]
    return best[-1]
