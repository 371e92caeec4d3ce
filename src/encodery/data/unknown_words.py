"""How much of a text its tokenizer does not know."""

from __future__ import annotations

from typing import Final

import numpy as np

from encodery.data.gathering import word_flag
from encodery.data.store import TokenStore

MOSTLY_UNKNOWN: Final = 0.5
"""From this share of unknown tokens on there is little to be learned from a text, or to be said of it."""
_TEXTS_AT_ONCE = 1 << 16


def unknown_shares(tokens: np.ndarray, starts: np.ndarray, unknown: int | None) -> np.ndarray:
    """The share of the tokens of each text that are the id `unknown`, (texts,); `tokens` and `starts` (texts + 1,) as a
    TokenStore holds them. 0 for a text without tokens, and for all where the tokenizer knows everything (None)."""
    texts = starts.size - 1
    shares = np.zeros(texts)
    if unknown is None:
        return shares
    flag = word_flag(tokens.dtype)
    for first in range(0, texts, _TEXTS_AT_ONCE):
        edges = starts[first : first + _TEXTS_AT_ONCE + 1].astype(np.int64)
        hits = (tokens[edges[0] : edges[-1]] & ~flag) == unknown
        sums = np.concatenate([[0], np.cumsum(hits)])[edges - edges[0]]
        shares[first : first + edges.size - 1] = np.diff(sums) / np.maximum(1, np.diff(edges))
    return shares


def unknown_shares_of_rows(store: TokenStore, unknown: int | None) -> np.ndarray:
    """The same of the texts of each row together, (rows,)."""
    return unknown_shares(store.tokens, store.starts[:: 2 if store.paired else 1], unknown)
