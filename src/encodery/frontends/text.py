"""Token ids become vectors: one learned vector a token, plus one that tells the two texts of a pair apart."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from encodery.batch import Batch, States
from encodery.config import Config

PAIR_SEGMENTS = 2


class TextConfig(Config):
    """Options of the text frontend."""

    kind: Literal["text"] = "text"
    vocab_size: int | None = Field(default=None, ge=1)
    """Rows of the embedding table (V). Taken from the tokenizer when left out."""
    start: Literal["cooccurrence", "random"] = "cooccurrence"
    """Embeddings of a run that starts from nothing: factorised neighbour counts (seconds of work), or random."""
    embedding_std: float = Field(default=0.1, gt=0, le=10)
    """Spread of the embeddings at the start, random or from co-occurrence statistics."""


class TextFrontend(nn.Module):
    """Batch -> States: `words[id] + segments[segment]`, (P,) -> (P, D)."""

    def __init__(self, config: TextConfig, width: int) -> None:
        super().__init__()
        assert config.vocab_size is not None, "vocab_size must be known before the model is built"
        self.config = config
        self.words = nn.Embedding(config.vocab_size, width)
        self.segments = nn.Embedding(PAIR_SEGMENTS, width)

    def initialise(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.words.weight.normal_(0.0, self.config.embedding_std, generator=generator)
            # Single texts never train the second row: starting at zero keeps a first pair task undisturbed.
            self.segments.weight.zero_()

    def forward(self, batch: Batch) -> States:
        return States(self.words(batch.values["ids"]) + self.segments(batch.values["segment"]), batch.layout)
