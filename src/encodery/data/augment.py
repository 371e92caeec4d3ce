"""Texts changed a little each time they are seen: words left out or exchanged, tokens written in smaller pieces."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from encodery.batch import Sample
from encodery.config import Config
from encodery.data.tokenizers import Tokenizer

_DEPTH = 3
"""So often a piece may be cut again."""


class AugmentConfig(Config):
    """How training texts are changed at random, anew in each epoch. Validation and test texts never are."""

    split: float = Field(default=0.0, ge=0, lt=1)
    """Chance that a token is written as two smaller ones of the vocabulary, and these again, as with BPE-dropout
    (Provilkov et al. 2020): rare pieces are seen more often. Works with every kind of tokenizer."""
    delete: float = Field(default=0.0, ge=0, lt=1)
    """Chance that a word is left out (Wei and Zou 2019, section 2)."""
    swap: float = Field(default=0.0, ge=0, lt=1)
    """Chance that a word changes places with the next one."""
    hide: float = Field(default=0.0, ge=0, lt=1)
    """Chance that a token becomes [MASK]."""

    @property
    def used(self) -> bool:
        return any((self.split, self.delete, self.swap, self.hide))


@dataclass(frozen=True)
class SmallerPieces:
    """The ways in which each token of a vocabulary can be written as two others: token t has `pairs` (S, 2) from
    starts[t] to starts[t + 1]."""

    starts: np.ndarray
    pairs: np.ndarray

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> SmallerPieces:
        """Read from the spelling of the tokens; special tokens stay whole."""
        vocabulary = tokenizer.inner.get_vocab()
        model = json.loads(tokenizer.to_json())["model"]
        prefix = model.get("continuing_subword_prefix") or ""
        special = frozenset(tokenizer.special_ids)
        found: list[list[tuple[int, int]]] = [[] for _ in range(tokenizer.vocab_size)]
        for token, number in vocabulary.items():
            if number in special:
                continue
            begin = len(prefix) if prefix and token.startswith(prefix) else 0
            for at in range(begin + 1, len(token)):
                left, right = vocabulary.get(token[:at]), vocabulary.get(prefix + token[at:])
                if left is not None and right is not None and not {left, right} & special:
                    found[number].append((left, right))
        starts = np.concatenate([[0], np.cumsum([len(some) for some in found])])
        pairs = np.array([pair for some in found for pair in some], dtype=np.int64).reshape(-1, 2)
        return cls(starts, pairs)

    def cut(self, ids: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Tokens, some of them written as two, (n,) -> (m,); and which of `ids` each comes from, (m,)."""
        origin = np.arange(ids.size)
        for _ in range(_DEPTH):
            ways = self.starts[ids + 1] - self.starts[ids]
            chosen = np.flatnonzero((rng.random(ids.size) < share) & (ways > 0))
            if not chosen.size:
                break
            pairs = self.pairs[self.starts[ids[chosen]] + rng.integers(0, ways[chosen])]
            times = np.ones(ids.size, dtype=np.int64)
            times[chosen] = 2
            ids, origin = np.repeat(ids, times), np.repeat(origin, times)
            first = np.cumsum(times)[chosen] - 2
            ids[first], ids[first + 1] = pairs[:, 0], pairs[:, 1]
        return ids, origin


class Augment:
    """Changes samples as its config says. What is said of a token stays with it, and with its first piece."""

    def __init__(self, config: AugmentConfig, tokenizer: Tokenizer, max_length: int) -> None:
        self.config = config
        self.max_length = max_length
        self.special = np.zeros(tokenizer.vocab_size, dtype=bool)
        self.special[list(tokenizer.special_ids)] = True
        self.mask_id = tokenizer.mask_id if config.hide else -1
        self.pieces = SmallerPieces.of(tokenizer) if config.split else None

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample, changed; never longer than the longest, never without a word that was there."""
        config = self.config
        order = np.arange(sample.ids.size)
        if config.delete or config.swap:
            order = self._words(sample, rng)
        ids, origin = sample.ids[order], np.arange(order.size)
        if self.pieces is not None:
            ids, origin = self.pieces.cut(ids, config.split, rng)
            while self.max_length < ids.size:  # rare: only texts that fill the length
                ids, origin = self.pieces.cut(sample.ids[order], 0.0, rng)
        if config.hide:
            hidden = (rng.random(ids.size) < config.hide) & ~self.special[ids]
            ids = np.where(hidden, self.mask_id, ids)
        places = order[origin]
        first = np.diff(origin, prepend=-1) > 0
        return replace(
            sample,
            ids=ids,
            starts_word=sample.starts_word[places] & first,
            segment=sample.segment[places],
            entity=None if sample.entity is None else sample.entity[places],
            beside={name: np.where(first, of[places], 0) for name, of in sample.beside.items()},
        )

    def _words(self, sample: Sample, rng: np.random.Generator) -> np.ndarray:
        """The places of the tokens that stay, in their new order."""
        framing = self.special[sample.ids]
        # A word goes on until the next one starts; a special token is one that stays where it is.
        begins = sample.starts_word | framing
        begins[1:] |= framing[:-1]
        begins[0] = True
        edges = np.append(np.flatnonzero(begins), sample.ids.size)
        fixed = framing[edges[:-1]]
        stays = fixed | (rng.random(fixed.size) >= self.config.delete)
        if not (stays & ~fixed).any():
            stays[:] = True
        words = np.flatnonzero(stays)
        at = 0
        swaps = rng.random(words.size) < self.config.swap
        while at + 1 < words.size:
            if swaps[at] and not fixed[words[at]] and not fixed[words[at + 1]]:
                words[[at, at + 1]] = words[[at + 1, at]]
                at += 1
            at += 1
        return np.concatenate([np.arange(edges[word], edges[word + 1]) for word in words])
