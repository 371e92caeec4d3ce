"""Token ids become vectors: one learned vector a token, plus one that tells the two texts of a pair apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encodery.batch import Batch, States
from encodery.frontends.options import TextConfig


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
        return States(x_PE, batch.layout, entity=batch.values.get("entity"))
