"""Token ids become vectors: one learned vector a token, plus one that tells the two texts of a pair apart."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from encodery.batch import Batch, States
from encodery.config import Config


class TextConfig(Config):
    """Options of the text frontend."""

    kind: Literal["text"] = "text"
    vocab_size: int | None = Field(default=None, ge=1)
    """Rows of the embedding table (V). Taken from the tokenizer when left out."""
    width: int | None = Field(default=None, ge=1, le=16384)
    """Numbers in each row of the table (E), where that is not the encoder's width: its vectors are then widened by a
    linear layer (factorised embeddings, ALBERT, Lan et al. 2020)."""
    segments: int = Field(default=2, ge=0, le=16)
    """Vectors that tell the texts of a pair apart; 0: none, 1: the same for both."""
    start: Literal["cooccurrence", "random"] = "cooccurrence"
    """Embeddings of a run that starts from nothing: factorised neighbour counts (seconds of work), or random."""
    embedding_std: float = Field(default=0.1, gt=0, le=10)
    """Spread of the embeddings at the start, random or from co-occurrence statistics."""


class TextFrontend(nn.Module):
    """Batch -> States: `words[id] + segments[segment]`, (P,) -> (P, E). `width` is that of the encoder."""

    def __init__(self, config: TextConfig, width: int) -> None:
        super().__init__()
        assert config.vocab_size is not None, "vocab_size must be known before the model is built"
        self.config = config
        self.vocab_size = config.vocab_size
        self.width = config.width or width
        self.words = nn.Embedding(config.vocab_size, self.width)
        self.segments = nn.Embedding(config.segments, self.width) if config.segments else None

    def initialise(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.words.weight.normal_(0.0, self.config.embedding_std, generator=generator)
            # Single texts never train the second row: starting at zero keeps a first pair task undisturbed.
            if self.segments is not None:
                self.segments.weight.zero_()

    def matrix(self) -> Tensor:
        """The vectors of all words, (V, E): what a word readout multiplies with."""
        return self.words.weight

    def forward(self, batch: Batch) -> States:
        x_PE = self.words(batch.values["ids"])
        if self.segments is not None:
            segment_P = batch.values["segment"]
            x_PE = x_PE + self.segments(segment_P.clamp_max(self.segments.num_embeddings - 1))
        return States(x_PE, batch.layout)
