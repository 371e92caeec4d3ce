"""BM25, the baseline of every search: how well the words of a query fit a document."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from encodery.errors import DataError

# Han, kana and hangul: no spaces between words, so runs of them are cut into overlapping pairs of characters.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(f"[{_UNSPACED}]+|[^\\W_{_UNSPACED}]+")
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]+")


def words_of(text: str) -> list[str]:
    """Lower-cased runs of letters and digits; of Chinese, Japanese and Korean overlapping pairs of characters. No word
    is left out or stemmed."""
    found: list[str] = []
    for word in _WORD.findall(text.lower()):
        if len(word) > 1 and _UNSPACED_RUN.match(word):
            found += [word[place : place + 2] for place in range(len(word) - 1)]
        else:
            found.append(word)
    return found


class BM25:
    """The scores of documents for queries (Robertson and Zaragoza 2009, section 3.5, in the form that Lucene uses):

        sum over the query's words w of idf(w) f / (f + k1 (1 - b + b length / mean length))
        idf(w) = ln(1 + (N - n(w) + 0.5) / (n(w) + 0.5))

    with f how often w stands in the document and n(w) in how many of the N documents. `k1` and `b` are Lucene's; a word
    that the query has twice counts twice.

    Raises DataError when there are no documents.
    """

    def __init__(
        self,
        documents: Sequence[str],
        *,
        k1: float = 1.2,
        b: float = 0.75,
        analyse: Callable[[str], list[str]] = words_of,
    ) -> None:
        if not documents:
            raise DataError("no documents to search", expected="at least one text")
        self.analyse = analyse
        counted = [Counter(analyse(text)) for text in documents]
        self.vocabulary = {word: place for place, word in enumerate(dict.fromkeys(w for one in counted for w in one))}
        length_D = np.array([sum(one.values()) for one in counted], dtype=np.float64)
        starts = np.cumsum([0, *(len(one) for one in counted)])
        column = np.array([self.vocabulary[word] for one in counted for word in one], dtype=np.int64)
        often = np.array([count for one in counted for count in one.values()], dtype=np.float64)
        row = np.repeat(np.arange(len(counted)), np.diff(starts))
        known_in = np.bincount(column, minlength=len(self.vocabulary))
        idf = np.log1p((len(counted) - known_in + 0.5) / (known_in + 0.5))
        norm = k1 * (1 - b + b * length_D / max(length_D.mean(), 1e-12))
        weight = idf[column] * often / (often + norm[row])
        self._words = max(1, len(self.vocabulary))
        self._weights = csr_matrix((weight, (row, column)), shape=(len(counted), self._words))

    def scores(self, queries: Sequence[str]) -> NDArray[np.float64]:
        """Every document for every query, (queries, documents); 0 where they share no word."""
        rows, columns, counts = [], [], []
        for place, query in enumerate(queries):
            for word, count in Counter(self.analyse(query)).items():
                if word in self.vocabulary:
                    rows.append(place)
                    columns.append(self.vocabulary[word])
                    counts.append(float(count))
        asked = csr_matrix((counts, (rows, columns)), shape=(len(queries), self._words))
        return np.asarray((asked @ self._weights.T).todense())
