"""Batches in which the rows of one query stand together, so that its candidates can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from encodery.batch import Batch, Sample
from encodery.data.loader import Loader
from encodery.data.store import TokenStore


@dataclass
class QueryLoader(Loader):
    """Rows with the same first text come in one batch; `truth["query"]` (N,) is equal for these.

    The rows of a query that fall into different windows of the data (some thousand rows) are compared apart.
    """

    _query: dict[int, int] = field(default_factory=dict, repr=False)

    def samples(self, store: TokenStore, rows: np.ndarray) -> list[Sample]:
        """In the order in which each query comes first."""
        self._query = {row: query_key(store, row) for row in rows.tolist()}
        first: dict[int, int] = {}
        for place, row in enumerate(rows.tolist()):
            first.setdefault(self._query[row], place)
        order = sorted(range(rows.size), key=lambda place: (first[self._query[int(rows[place])]], place))
        return super().samples(store, rows[order])

    @property
    def together(self) -> Callable[[Sample], int] | None:
        return lambda sample: self._query[sample.uid]

    def _labelled(self, batch: Batch, store: TokenStore) -> Batch:
        batch = super()._labelled(batch, store)
        query = torch.tensor([self._query[uid] for uid in batch.uids.tolist()], dtype=torch.int64)
        return replace(batch, truth={**batch.truth, "query": query})


def query_key(store: TokenStore, row: int) -> int:
    """A number for the first text of a row: equal for equal tokens."""
    ids, _ = store.text(row * (2 if store.paired else 1))
    return int.from_bytes(hashlib.blake2b(ids.tobytes(), digest_size=8).digest(), "big", signed=True)
