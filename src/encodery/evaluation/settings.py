"""How a result is measured and what it is compared with: the `evaluation:` part of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from encodery.config import Config

Compared = Literal[
    "majority", "tfidf", "bm25", "copy", "first_sentence", "memory", "unigram", "word", "linear", "scratch"
]
"""Names of simple models; which of them fit is a matter of the task (evaluation/judges/judge.py)."""


class EvaluationConfig(Config):
    """What the result is compared with and how sure the figures are."""

    compare: list[Compared] | None = None
    """What the result is compared with. majority: the commonest answer; tfidf: TF-IDF with a linear model on the same
    rows, or its cosine where texts are compared; bm25: BM25 where texts are searched; word: the commonest tag of each
    word; linear: a linear model on words, affixes and neighbours; scratch: the same encoder, trained the same way,
    without the weights it started from. For texts that are written copy: the source itself; first_sentence: of the
    source; memory: the target of the most similar training source. For language models unigram:
    each token by how often it comes. None: all simple models that fit the task."""
    resamples: int = Field(default=1000, ge=100, le=100_000)
    """Bootstrap resamples behind each 95 % interval."""
    errors: int = Field(default=20, ge=0, le=1000)
    """How many of the rows it is most wrong about the report shows."""
