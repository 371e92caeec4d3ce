"""The options of the readouts: what is asked of an encoder. Read without torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from encodery.bricks.choices import PoolingName
from encodery.config import Config

LinkScoreName = Literal["transe", "distmult", "rotate"]


class WordReadoutConfig(Config):
    """Which word stands here: logits over the vocabulary, at the masked positions only."""

    kind: Literal["word"] = "word"
    tied: bool = True
    """Whether the output matrix is the embedding table, or one of its own."""
    activation: Literal["relu", "gelu", "gelu_tanh", "silu"] = "gelu"
    """Between the linear layer and the norm that stand before the output matrix."""
    bias: bool = True
    """Whether that linear layer and that norm carry a bias."""
    norm_epsilon: float = Field(default=1e-5, gt=0, lt=0.1)
    """Added to the variance before the square root."""


class LinkReadoutConfig(WordReadoutConfig):
    """Hidden words, and beside them which entities of the batch a relation holds between."""

    kind: Literal["links"] = "links"  # pyright: ignore[reportIncompatibleVariableOverride]
    relations: int = Field(default=1, ge=1)
    """Rows of the table of relations (R)."""
    score: LinkScoreName = "transe"
    """How a head, a relation and a tail are scored: transe, distmult or rotate."""
    link_width: int = Field(default=128, ge=2, le=4096)
    """Numbers in the vector of an entity (K)."""
    margin: float = Field(default=9.0, ge=0, le=1000)
    """For transe and rotate: the distance at which a triple is as likely true as not."""


class DocumentReadoutConfig(Config):
    """One answer a document: its vectors are pooled and mapped to `outputs` numbers."""

    kind: Literal["document"] = "document"
    pooling: PoolingName = "mean"
    """first, mean, max or attention."""
    outputs: int = Field(default=2, ge=1)
    """C: classes, labels, or 1 for a number."""
    hidden: bool = False
    """Whether a linear layer with tanh stands between the pooled vector and the answer, as in BERT."""
    drop_rate: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on the pooled vector."""
    ngrams: int = Field(default=0, ge=0, le=5)
    """Beside the encoder, a linear answer from runs of up to this many tokens; 0: none."""
    ngram_buckets: int = Field(default=1 << 18, ge=1 << 8, le=1 << 26)
    """Rows of the table that runs of tokens and letters are hashed into."""
    letters: int = Field(default=0, ge=0, le=10)
    """With `ngrams`: runs of up to this many letters as well; 0: none."""


class DenseConfig(Config):
    """A linear layer on the pooled vector, with what stands behind it."""

    outputs: int = Field(ge=1, le=65536)
    """Numbers that come out."""
    bias: bool = True
    """Whether it carries a bias."""
    activation: Literal["none", "tanh", "relu", "gelu", "silu", "sigmoid"] = "none"
    """Applied to what comes out."""


class VectorReadoutConfig(Config):
    """No answer but the document's vector itself, to be compared with others."""

    kind: Literal["vector"] = "vector"
    pooling: PoolingName = "mean"
    """first, mean, max or attention."""
    dense: tuple[DenseConfig, ...] = ()
    """Linear layers that the pooled vector passes, in order, as in some models of sentence-transformers."""
    normalise: bool = True
    """Whether vectors are scaled to length 1, so that their product is the cosine."""


ReadoutConfig = Annotated[
    WordReadoutConfig | LinkReadoutConfig | DocumentReadoutConfig | VectorReadoutConfig, Field(discriminator="kind")
]
