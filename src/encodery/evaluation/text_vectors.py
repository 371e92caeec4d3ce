"""The vectors of all texts of a store, row by row: what similarity and search are judged from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from encodery.bricks.pooling import Pooling
from encodery.data.loader import Loader, Place
from encodery.heads.late_interaction import Ragged, maxsim, paired_maxsim
from encodery.model import Model, answering

TEXTS_AT_ONCE = 1024
"""So many texts are compared with all others at a time."""


@dataclass(frozen=True)
class TextVectors:
    """`row` and `part` (N,) say which text of which row each one is, in the order of rows and parts. `vectors` (N, D)
    have length 1; with late interaction `tokens` stand in their place. `bare` (N, E) are the means of the vectors of
    their tokens before the encoder."""

    row: np.ndarray
    part: np.ndarray
    vectors: Tensor | None
    tokens: Ragged | None
    bare: np.ndarray

    def numbers(self, part: int) -> np.ndarray:
        """The texts of this part, row by row."""
        return np.flatnonzero(self.part == part)

    def close(self, first: np.ndarray, second: np.ndarray, width: int | None = None) -> np.ndarray:
        """Texts `first` and `second` one by one, (n,); by the first `width` numbers of their vectors alone."""
        a, b = torch.from_numpy(first), torch.from_numpy(second)
        if self.tokens is not None:
            parts = [
                paired_maxsim(self.tokens.taken(x), self.tokens.taken(y))
                for x, y in zip(a.split(TEXTS_AT_ONCE), b.split(TEXTS_AT_ONCE))
            ]
            return torch.cat(parts).numpy().astype(np.float64) if parts else np.zeros(0)
        whole = self._prefix(width)
        return (whole[a] * whole[b]).sum(1).numpy().astype(np.float64)

    def search(self, asked: np.ndarray, among: np.ndarray, width: int | None = None) -> np.ndarray:
        """Each of the texts `asked` with each of those `among`, (asked, among) float32."""
        return self.taken(asked).search_in(self.taken(among), width)

    def search_in(self, others: TextVectors, width: int | None = None) -> np.ndarray:
        """Each of these texts with each of `others`, (N, others) float32."""
        found = []
        for part in torch.arange(self.row.size).split(TEXTS_AT_ONCE):
            if self.tokens is not None and others.tokens is not None:
                found.append(maxsim(self.tokens.taken(part), others.tokens))
            else:
                found.append(self._prefix(width)[part] @ others._prefix(width).t())
        return torch.cat(found).numpy() if found else np.zeros((0, others.row.size), np.float32)

    def taken(self, numbers: np.ndarray) -> TextVectors:
        """The texts of these numbers, in this order."""
        place = torch.from_numpy(numbers)
        vectors = None if self.vectors is None else self.vectors[place]
        tokens = None if self.tokens is None else self.tokens.taken(place)
        return TextVectors(self.row[numbers], self.part[numbers], vectors, tokens, self.bare[numbers])

    def _prefix(self, width: int | None) -> Tensor:
        assert self.vectors is not None, "late interaction has no single vector"
        return torch.nn.functional.normalize(self.vectors[:, :width], dim=-1)


def text_vectors(
    model: Model, loader: Loader, dtype: torch.dtype, *, bare: bool = True, second: bool = False
) -> TextVectors:
    """Encode every text that `loader` gives; those of a row are documents of their own (data/composing.py, apart).

    Without `bare` the means before the encoder are left out, (N, 0). With `second` all are taken for second texts of
    their rows, which matters for a model with two heads.
    """
    assert not loader.shuffle, "evaluation keeps the order of the data"
    rows, parts, vectors, tokens, means = [], [], [], [], []
    mean = Pooling("mean", 0)
    with answering(model, dtype):
        for batch, _ in loader.epoch(Place()):
            if not batch.layout.documents:
                continue
            rows.append(batch.uids)
            parts.append(batch.parts)
            batch = batch.to(model.device)
            if second:
                batch = replace(batch, parts=np.ones_like(batch.parts))
            means.append(mean(model.frontend(batch)).cpu() if bare else torch.zeros(batch.layout.documents, 0))
            output = model(batch)
            if output.tokens is not None:
                tokens.append(_on_cpu(Ragged.of(output.tokens, batch.layout)))
            else:
                assert output.vectors is not None
                vectors.append(output.vectors.float().cpu())
    row, part = np.concatenate(rows), np.concatenate(parts)
    order = np.lexsort((part, row))
    place = torch.from_numpy(order)
    return TextVectors(
        row[order],
        part[order],
        torch.cat(vectors)[place].clone() if vectors else None,
        Ragged.joined(tokens).taken(place) if tokens else None,
        torch.cat(means)[place].numpy(),
    )


def _on_cpu(ragged: Ragged) -> Ragged:
    return Ragged(ragged.vectors.float().cpu(), ragged.owner.cpu(), ragged.texts)
