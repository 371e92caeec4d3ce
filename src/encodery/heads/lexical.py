"""A linear answer from which tokens and runs of tokens stand in a text, given beside the answer of the encoder.

With a few thousand labelled rows such a model is hard to beat, and it errs on other rows than an encoder does: a
weighted sum of their logits is the answer, a product of experts (Hinton 2002). Features are hashed as in fastText
(Joulin et al. 2017) and weighted by rarity as in TF-IDF. Its weights are fitted in one go before training
(`training/ngrams.py`), and gradients leave them alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.batch import Batch


class LexicalScores(nn.Module):
    """Batch -> logits (N, C): the sum of a fitted weight for each distinct n-gram of a document.

    `rarity` (buckets,) is log((1 + documents) / (1 + documents with it)) + 1 of each feature, 0 for one seen in a
    single document only; a document's features are scaled to length 1.
    """

    rarity: Tensor

    def __init__(self, outputs: int, *, longest: int, buckets: int) -> None:
        super().__init__()
        self.longest = longest
        self.buckets = buckets
        self.weight = nn.Parameter(torch.zeros(buckets, outputs), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(outputs), requires_grad=False)
        self.register_buffer("rarity", torch.ones(buckets))

    def forward(self, batch: Batch) -> Tensor:
        document, feature, value = self.features(batch)
        scores = torch.zeros(batch.layout.documents, self.bias.numel(), device=value.device)
        scores = scores.index_add(0, document, F.embedding(feature, self.weight) * value[:, None])
        return scores + self.bias

    def features(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """What each document has, sorted: its number, the bucket and the value, (features,) each."""
        document, feature = self._distinct(batch)
        value = self.rarity[feature]
        squares = torch.zeros(batch.layout.documents, device=value.device).index_add(0, document, value.square())
        return document, feature, value / squares.sqrt().clamp(min=1e-6)[document]

    @torch.no_grad()
    def count(self, batches: Iterable[Batch]) -> None:
        """Set `rarity` from the documents of `batches`."""
        seen = torch.zeros(self.buckets, dtype=torch.int64)
        documents = 0
        for batch in batches:
            _, feature = self._distinct(batch)
            seen += torch.bincount(feature, minlength=self.buckets)
            documents += batch.layout.documents
        rarity = torch.log((1 + documents) / (1 + seen)) + 1
        self.rarity.copy_(torch.where(seen < 2, 0.0, rarity))

    def _distinct(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Every distinct (document, bucket) of a batch, sorted: two (features,) int64."""
        ids, document = batch.values["ids"], batch.layout.document
        real = document >= 0
        keys = [document[real] * self.buckets + self._bucket(ids)[real]]
        run = ids
        for size in range(2, self.longest + 1):
            run = (run[:-1] * 1_000_003) ^ (ids[size - 1 :] + size * 2_654_435_761)
            start, end = document[: run.numel()], document[size - 1 :]
            inside = (start == end) & (start >= 0)
            keys.append(start[inside] * self.buckets + self._bucket(run)[inside])
        distinct = torch.unique(torch.cat(keys))
        return distinct // self.buckets, distinct % self.buckets

    def _bucket(self, number: Tensor) -> Tensor:
        # Multiplicative hashing (Knuth, volume 3, section 6.4); int64 products wrap, which mixes as well.
        return ((number * 0x9E3779B1 + 12_345) >> 8) % self.buckets
