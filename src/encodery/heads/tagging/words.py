"""A linear answer about every unit of a text: from the word, its affixes, how it is written, and its neighbours.

With some ten thousand tagged sentences such a model is hard to beat, and it errs at other units than an encoder does:
a weighted sum of the two is the answer (tags.py), a product of experts (Hinton 2002). The features are those of
taggers before there were encoders (Ratnaparkhi 1996, table 1; Ratinov and Roth 2009, section 3), hashed as in fastText
(Joulin et al. 2017). Their weights are fitted in one go before training (training/tag_words.py), and gradients of the
encoder leave them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.batch import Batch
from encodery.heads.lexical import MOST_LETTERS

BEGINNINGS: Final = 3
ENDINGS: Final = 4
SHAPE_PARTS: Final = 8
"""Changes between capitals, small letters, digits and signs that are looked at in one word."""
_LOWER, _UPPER, _DIGIT, _SIGN = 1, 2, 3, 4  # how a letter is written
PAIRS_OF_WORDS: Final = ((-1, 0), (0, 1))
PAIRS_OF_CHARACTERS: Final = ((-2, -1), (-1, 0), (0, 1), (1, 2), (-1, 1))


class WordScores(nn.Module):
    """Batch -> scores (U, C) of the units of a batch: the sum of a fitted weight for each feature of a unit.

    `characters`: units are single characters, which have no affixes; pairs of neighbours count instead. `spelling`
    (V, MOST_LETTERS) holds the small letters of each token, -1 behind the last, and `written` how each was written.
    The weights of what begins, ends and follows are here too, learned with the same features (`begin`, `end` (C,),
    `between` (C, C)).
    """

    spelling: Tensor
    written: Tensor

    def __init__(self, tags: int, *, buckets: int, vocabulary: int, characters: bool = False) -> None:
        super().__init__()
        self.buckets = buckets
        self.characters = characters
        self.weight, self.bias, self.begin, self.end, self.between = (
            nn.Parameter(torch.zeros(size), requires_grad=False)
            for size in ((buckets, tags), (tags,), (tags,), (tags,), (tags, tags))
        )
        self.register_buffer("spelling", torch.full((vocabulary, MOST_LETTERS), -1, dtype=torch.int32))
        self.register_buffer("written", torch.zeros((vocabulary, MOST_LETTERS), dtype=torch.uint8))

    def spell(self, words: Sequence[tuple[str, bool]]) -> None:
        """Set `spelling` and `written` from the letters of each token."""
        for number, (text, _) in enumerate(words):
            letters = [] if text == "\0" else list(text[:MOST_LETTERS])
            low = [ord(letter.lower()[0]) for letter in letters]
            self.spelling[number, : len(low)] = torch.tensor(low, dtype=torch.int32)
            self.written[number, : len(low)] = torch.tensor([_kind(letter) for letter in letters], dtype=torch.uint8)

    def learned(self, crf: bool) -> list[str]:
        """The names of what is fitted; what neighbouring tags say only with `crf`."""
        return ["weight", "bias", *(("begin", "end", "between") if crf else ())]

    def forward(self, batch: Batch) -> Tensor:
        return self.scores(self.features(batch))

    def scores(self, features_UF: Tensor) -> Tensor:
        """(U, C) of features as `features` gives them."""
        return F.embedding_bag(features_UF.long(), self.weight, mode="sum") + self.bias

    def features(self, batch: Batch) -> Tensor:
        """The buckets of what is known of each unit, (U, F) int32; what a unit does not have has a bucket too."""
        letters = self._letters(batch)
        beside = _Beside(batch.layout.document[batch.values["tags"] > 0])
        word = letters.sum(letters.low, letters.place)
        pairs = PAIRS_OF_CHARACTERS if self.characters else PAIRS_OF_WORDS
        found = [beside(word, step) for step in (-2, -1, 0, 1, 2)]
        found += [beside(word, one) * 31 + beside(word, other) for one, other in pairs]
        if not self.characters:
            for longest, place in ((BEGINNINGS, letters.place), (ENDINGS, letters.from_end)):
                found += [letters.affix(place, length) for length in range(1, longest + 1)]
            last, shape = letters.affix(letters.from_end, 3), letters.shape()
            found += [letters.sum(letters.low * 8 + letters.how, letters.place), beside(last, -1), beside(last, 1)]
            found += [beside(shape, step) for step in (-1, 0, 1)]
            found += [shape * 2 + beside.first, (beside(shape, -1) * 31 + shape) * 31 + beside(shape, 1)]
        return torch.stack([self._bucket(one, salt) for salt, one in enumerate(found)], dim=1)

    def _letters(self, batch: Batch) -> _Letters:
        """Of every unit, from its first token to the one before the next unit."""
        stands, document, ids = batch.values["tags"] > 0, batch.layout.document, batch.values["ids"]
        unit, owner = stands.cumsum(0) - 1, document[stands]
        low_PL = self.spelling[ids].long()
        there = (low_PL >= 0) & (unit >= 0)[:, None]
        if owner.numel():  # what stands before the first unit of a document belongs to none
            there &= (document == owner[unit.clamp_min(0)])[:, None]
        whose = unit[:, None].expand_as(low_PL)[there]
        size = torch.bincount(whose, minlength=owner.numel())
        place = torch.arange(whose.numel(), device=whose.device) - (size.cumsum(0) - size)[whose]
        return _Letters(low_PL[there], self.written[ids].long()[there], whose, place, size)

    def _bucket(self, number: Tensor, salt: int) -> Tensor:
        # Multiplicative hashing (Knuth, volume 3, section 6.4), twice; int64 products wrap, which mixes as well.
        mixed = (number + salt * 0x61C88647) * 0x1E3779B97F4A7C15
        mixed = (mixed ^ (mixed >> 29)) * 0x3F58476D1CE4E5B9
        return ((mixed >> 20) % self.buckets).int()


@dataclass(frozen=True)
class _Letters:
    """The letters of all units, one after the other: small (`low`), how they were written, the unit and the place of
    each, (A,); `size` (U,) is how many a unit has."""

    low: Tensor
    how: Tensor
    whose: Tensor
    place: Tensor
    size: Tensor

    @property
    def from_end(self) -> Tensor:
        """The place of each letter counted from the end of its unit."""
        return self.size[self.whose] - 1 - self.place

    def sum(self, number: Tensor, place: Tensor, kept: Tensor | slice = slice(None)) -> Tensor:
        """One number for each unit (U,), of the kept letters and their places."""
        odd = (place[kept] * 2 + 1) * 0x2545F4914F6CDD1D
        terms = (number[kept] + 1) * (odd ^ (odd >> 31))
        return torch.zeros_like(self.size).index_add(0, self.whose[kept], terms)

    def affix(self, place: Tensor, length: int) -> Tensor:
        """The first or the last letters, by which end places count from; 0 for words that are not longer."""
        return self.sum(self.low, place, place < length) * (self.size > length)

    def shape(self) -> Tensor:
        """How each unit is written: Xx, XX, x, 9, x-9."""
        kind = torch.where(self.how == _SIGN, self.low * 8 + self.how, self.how)
        new = torch.ones_like(kind, dtype=torch.bool)
        new[1:] = (kind[1:] != kind[:-1]) | (self.place[1:] == 0)
        part, first = new.cumsum(0), torch.zeros_like(self.size)
        first[self.whose[self.place == 0]] = part[self.place == 0]
        part = part - first[self.whose]
        return self.sum(kind, part, new & (part < SHAPE_PARTS))


class _Beside:
    """What stands so many units before or behind, in the same document; the step itself where nothing does."""

    def __init__(self, owner_U: Tensor) -> None:
        self.owner = owner_U
        self.first = torch.ones_like(owner_U)
        self.first[1:] = (owner_U[1:] != owner_U[:-1]).long()

    def __call__(self, number_U: Tensor, step: int) -> Tensor:
        if not step:
            return number_U
        moved, owner = (torch.roll(part, -step) for part in (number_U, self.owner))
        same = owner == self.owner
        edge = torch.arange(same.numel(), device=same.device)
        same &= (edge + step >= 0) & (edge + step < same.numel())
        return torch.where(same, moved, step)


def _kind(letter: str) -> int:
    if letter.isalpha():
        return _UPPER if letter.isupper() else _LOWER
    return _DIGIT if letter.isdigit() else _SIGN
