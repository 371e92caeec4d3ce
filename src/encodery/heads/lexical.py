"""A linear answer from the tokens, runs of tokens and runs of letters of a text, given beside that of the encoder.

With a few thousand labelled rows such a model is hard to beat, and it errs on other rows than an encoder does: a
weighted sum of their logits is the answer, a product of experts (Hinton 2002). Features are hashed as in fastText
(Joulin et al. 2017) and weighted by rarity as in TF-IDF. Its weights are fitted in one go before training
(`training/ngrams.py`), and gradients leave them alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.batch import Batch

# Runs of letters come in this many sizes, the longest and those below it.
LETTER_SIZES = 4
BOTH, SHARE = 2, 3  # kinds of features beside those of the first text (0) and the second (1)
MOST_LETTERS = 16  # of one token; what stands behind them is left out
BOUNDARY = ord(" ")


class LexicalScores(nn.Module):
    """Batch -> logits (N, C): the sum of a fitted weight for each distinct feature of a document.

    Features are runs of up to `longest` tokens, and runs of `letters` - 3 to `letters` letters across tokens, with a
    space before words (0: none). `rarity` (buckets,) is log((1 + documents) / (1 + documents with it)) + 1 of each
    feature, 0 for one seen in a single document only; a document's features are scaled to length 1.
    With `sides` each text of a pair has features of its own, scaled by themselves; beside them stand those that both
    texts share, and how much of the shorter text they are: what a linear answer could not know otherwise.
    `spelling` (V, 1 + MOST_LETTERS) holds the letters of each token, -1 behind the last; its first column is the
    space before a word, -1 for tokens that have none.
    """

    rarity: Tensor
    spelling: Tensor

    def __init__(
        self, outputs: int, *, longest: int, buckets: int, letters: int = 0, vocabulary: int = 0, sides: bool = False
    ) -> None:
        super().__init__()
        assert not letters or vocabulary, "runs of letters need the number of tokens to spell"
        self.longest = longest
        self.letters = letters
        self.sides = sides
        self.buckets = buckets
        self.weight = nn.Parameter(torch.zeros(buckets, outputs), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(outputs), requires_grad=False)
        self.register_buffer("rarity", torch.ones(buckets))
        if letters:
            self.register_buffer("spelling", torch.full((vocabulary, 1 + MOST_LETTERS), -1, dtype=torch.int32))

    def spell(self, words: Sequence[tuple[str, bool]]) -> None:
        """Set `spelling`: the letters of each token, and whether a space stands before it where it begins a word."""
        if not self.letters:
            return
        for number, (text, spaced) in enumerate(words):
            codes = [BOUNDARY if spaced else -1, *map(ord, text[:MOST_LETTERS])]
            self.spelling[number, : len(codes)] = torch.tensor(codes, dtype=torch.int32)

    def forward(self, batch: Batch) -> Tensor:
        document, feature, value = self.features(batch)
        scores = torch.zeros(batch.layout.documents, self.bias.numel(), device=value.device)
        scores = scores.index_add(0, document, F.embedding(feature, self.weight) * value[:, None])
        return scores + self.bias

    def features(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """What each document has: its number, the bucket and the value, (features,) each."""
        if self.sides:
            return self._features_of_sides(batch)
        document, feature = self._distinct(batch)
        value, _ = self._scaled(self.rarity[feature], document, batch.layout.documents)
        return document, feature, value

    def _features_of_sides(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Those of the first text, of the second, those that both share, and the share of them, a feature each."""
        documents = batch.layout.documents
        text, bucket = self._distinct(batch)
        document, side = text // 2, text % 2
        own = self._of_kind(bucket, side)
        value, length = self._scaled(self.rarity[own], text, 2 * documents)
        # Told from the text with less in it: of a question and a page, how much of the question the page holds.
        shorter = length.view(documents, 2).argmin(1)
        shared = self._in_both(document, bucket) & (side == shorter[document])
        both, of_both, weight = document[shared], self._of_kind(bucket[shared], BOTH), value[shared]
        held = torch.zeros(documents, device=value.device).index_add(0, both, weight.square()).sqrt()
        every = torch.arange(documents, device=value.device)
        constant = self._of_kind(torch.zeros_like(every), SHARE)
        return (
            torch.cat([document, both, every]),
            torch.cat([own, of_both, constant]),
            torch.cat([value, weight * (self.rarity[of_both] > 0), held]),
        )

    def _scaled(self, value: Tensor, owner: Tensor, owners: int) -> tuple[Tensor, Tensor]:
        """Values scaled to length 1 within each owner, and the lengths they had (owners,)."""
        squares = torch.zeros(owners, device=value.device).index_add(0, owner, value.square())
        length = squares.sqrt()
        return value / length.clamp(min=1e-6)[owner], length

    def _in_both(self, document: Tensor, bucket: Tensor) -> Tensor:
        """Whether the other text of the document has the same run: (features,) bool."""
        # Each text has a run once, so what a document has twice stands in both.
        _, place, times = torch.unique(document * self.buckets + bucket, return_inverse=True, return_counts=True)
        return times[place] > 1

    def _of_kind(self, bucket: Tensor, kind: Tensor | int) -> Tensor:
        """Another bucket for the same run where it is a feature of another kind."""
        return (bucket + kind * 0x51ED270B) % self.buckets

    @torch.no_grad()
    def count(self, batches: Iterable[Batch]) -> None:
        """Set `rarity` from the documents of `batches`."""
        seen = torch.zeros(self.buckets, dtype=torch.int64)
        documents = 0
        for batch in batches:
            owner, feature = self._distinct(batch)
            if self.sides:
                document, side = owner // 2, owner % 2
                both = self._in_both(document, feature) & (side == 0)
                share = self._of_kind(torch.zeros(batch.layout.documents, dtype=torch.int64), SHARE)
                feature = torch.cat([self._of_kind(feature, side), self._of_kind(feature[both], BOTH), share])
            seen += torch.bincount(feature, minlength=self.buckets)
            documents += batch.layout.documents
        rarity = torch.log((1 + documents) / (1 + seen)) + 1
        self.rarity.copy_(torch.where(seen < 2, 0.0, rarity))

    def _distinct(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Every distinct (document, bucket) of a batch, sorted: two (features,) int64. With `sides` the texts of
        document n are 2 n and 2 n + 1."""
        ids, document = batch.values["ids"], batch.layout.without_branches().document
        if self.sides:
            document = torch.where(document < 0, document, 2 * document + (batch.values["segment"] > 0))
        keys = self._runs(ids, document, range(1, self.longest + 1))
        if self.letters:
            spelled = self.spelling[ids].to(torch.int64)
            begins = batch.values["starts_word"]
            spelled[:, 0] = torch.where(begins, spelled[:, 0], -1)
            there = (spelled >= 0) & (document >= 0)[:, None]
            whose = document[:, None].expand_as(spelled)[there]
            # Letters and token ids share no features.
            keys += self._runs(spelled[there] + (1 << 40), whose, range(self._shortest, self.letters + 1))
        distinct = torch.unique(torch.cat(keys))
        return distinct // self.buckets, distinct % self.buckets

    @property
    def _shortest(self) -> int:
        return max(1, self.letters - LETTER_SIZES + 1)

    def _runs(self, symbols: Tensor, document: Tensor, sizes: range) -> list[Tensor]:
        """document * buckets + bucket of every run of the given sizes inside one document."""
        keys = []
        run = symbols
        for size in range(1, sizes.stop):
            if size > 1:
                run = (run[:-1] * 1_000_003) ^ (symbols[size - 1 :] + size * 2_654_435_761)
            if size in sizes:
                start, end = document[: run.numel()], document[size - 1 :]
                inside = (start == end) & (start >= 0)
                keys.append(start[inside] * self.buckets + self._bucket(run)[inside])
        return keys

    def _bucket(self, number: Tensor) -> Tensor:
        # Multiplicative hashing (Knuth, volume 3, section 6.4); int64 products wrap, which mixes as well.
        return ((number * 0x9E3779B1 + 12_345) >> 8) % self.buckets
