"""The options of the frontends: how data becomes vectors. Read without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

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
