"""The options of the readouts: what is asked of an encoder. Read without torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from encodery.bricks.choices import PoolingName
from encodery.config import Config
from encodery.heads.decoding.options import DecoderConfig
from encodery.heads.tagging.options import TagReadoutConfig
from encodery.heads.vector_options import TokenReadoutConfig

LinkScoreName = Literal["transe", "distmult", "rotate"]
SharingName = Literal["tied", "disentangled", "separate"]
MatchName = Literal["hidden", "attention", "vectors"]


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
    sides: bool = False
    """With `ngrams`: whether documents are pairs, whose texts have runs of their own and runs that both share."""


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
    first_dense: tuple[DenseConfig, ...] | None = None
    """Layers for the first text of a row (a query), where they are others than those of `dense`."""
    scale: float | None = Field(default=None, gt=0, le=1000)
    """What similarities are multiplied with, learned from there on; none when left out."""


class GeneratorConfig(Config):
    """The small model that puts words in the place of others (ELECTRA, Clark et al. 2020, section 3.2)."""

    width: float = Field(default=0.5, gt=0, le=4)
    """Its width as a share of the encoder's, rounded to whole heads."""
    depth: float = Field(default=0.5, gt=0, le=4)
    """Its blocks as a share of the encoder's, at least one."""
    sharing: SharingName = "tied"
    """Word vectors that both models read: tied, one table that learns from both losses (ELECTRA, section 3.2);
    disentangled, the generator's table, which it alone teaches, plus a difference that the encoder learns (DeBERTa-v3,
    He et al. 2021, section 3.2); separate, a table each."""


class ReplacedReadoutConfig(Config):
    """Which words were put in the place of others: a logit a token; while learning with the generator that does it."""

    kind: Literal["replaced"] = "replaced"
    generator: GeneratorConfig | None = None
    """None: there is none any more, as in a model folder."""
    temperature: float = Field(default=1.0, gt=0, le=100)
    """The generator's logits are divided by it before a word is drawn."""
    special_ids: tuple[int, ...] = ()
    """Tokens that are never drawn."""


class OrderReadoutConfig(WordReadoutConfig):
    """Whether the second text follows the first, read from the first token, and hidden words beside it."""

    kind: Literal["order"] = "order"  # pyright: ignore[reportIncompatibleVariableOverride]


class AutoencodeReadoutConfig(WordReadoutConfig):
    """One vector a document, and while learning a small decoder that writes the document from it."""

    kind: Literal["autoencode"] = "autoencode"  # pyright: ignore[reportIncompatibleVariableOverride]
    method: Literal["tsdae", "retromae"] = "tsdae"
    """Which decoder."""
    pooling: PoolingName = "mean"
    """How the vectors of a text become one."""
    depth: int = Field(default=1, ge=1, le=64)
    """Blocks of TSDAE's decoder; that of RetroMAE has one."""
    heads: int | None = Field(default=None, ge=1, le=256)
    """Attention heads of the decoder; by default those of the encoder, else one for each 64 numbers."""


class DistilReadoutConfig(Config):
    """An encoder's vectors as a teacher has them: mapped to the teacher's width by matrices of their own."""

    kind: Literal["distil"] = "distil"
    match: tuple[MatchName, ...] = ("hidden",)
    """What is compared with the teacher's."""
    pooling: PoolingName = "mean"
    """For vectors: how those of a text become one."""
    teacher_width: int = Field(ge=1)
    """Numbers in the vectors of the teacher's blocks."""
    teacher_depth: int = Field(ge=0)
    """Blocks of the teacher."""
    teacher_vector: int = Field(ge=1)
    """Numbers in the teacher's vector of a document."""


class SpanReadoutConfig(Config):
    """Where an answer begins and ends: scores of every position of the context."""

    kind: Literal["spans"] = "spans"
    ends: Literal["independent", "biaffine"] = "independent"
    """independent: begin and end are scored each alone; biaffine: also how well they go together."""
    rank: int = Field(default=64, ge=1, le=1024)
    """For biaffine: numbers that a begin and an end are compared by (K)."""
    longest: int = Field(default=30, ge=1, le=512)
    """Tokens of the longest answer that is looked for (W)."""
    matches: bool = False
    """Whether it is told which tokens of the text stand in the question as well."""
    drop_rate: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on the vectors."""
    ngrams: int = Field(default=0, ge=0, le=5)
    """Beside the encoder, a linear answer to whether there is one, from runs of up to this many tokens; 0: none."""
    ngram_buckets: int = Field(default=1 << 18, ge=1 << 8, le=1 << 26)
    """Rows of the table that these runs are hashed into."""


class OrdinalReadoutConfig(Config):
    """One of several classes that have an order: a number for each document, and thresholds between the classes."""

    kind: Literal["ordinal"] = "ordinal"
    pooling: PoolingName = "mean"
    """How the vectors of a text become one: first, mean, max or attention."""
    outputs: int = Field(default=2, ge=2)
    """C: classes, in their order."""
    hidden: bool = False
    """Whether a linear layer with tanh stands between the pooled vector and the number."""
    drop_rate: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on the pooled vector."""


PartReadoutConfig = Annotated[
    WordReadoutConfig
    | LinkReadoutConfig
    | VectorReadoutConfig
    | ReplacedReadoutConfig
    | OrderReadoutConfig
    | AutoencodeReadoutConfig
    | DistilReadoutConfig,
    Field(discriminator="kind"),
]


class SeveralReadoutConfig(Config):
    """Several readouts over one encoder, each for an objective of its own."""

    kind: Literal["several"] = "several"
    parts: tuple[PartReadoutConfig, ...] = Field(min_length=1)
    """In the order of the objectives."""


ReadoutConfig = Annotated[
    WordReadoutConfig
    | LinkReadoutConfig
    | DocumentReadoutConfig
    | VectorReadoutConfig
    | TokenReadoutConfig
    | TagReadoutConfig
    | ReplacedReadoutConfig
    | OrderReadoutConfig
    | AutoencodeReadoutConfig
    | DistilReadoutConfig
    | SpanReadoutConfig
    | DecoderConfig
    | OrdinalReadoutConfig
    | SeveralReadoutConfig,
    Field(discriminator="kind"),
]


def kept_readout(readout: ReadoutConfig) -> ReadoutConfig:
    """What is left of a readout when learning is done: parts that only taught the encoder are thrown away."""
    if isinstance(readout, SeveralReadoutConfig):
        return kept_readout(readout.parts[0])
    if isinstance(readout, ReplacedReadoutConfig):
        return readout.model_copy(update={"generator": None})
    if isinstance(readout, AutoencodeReadoutConfig | DistilReadoutConfig):
        return VectorReadoutConfig(pooling=readout.pooling)
    if isinstance(readout, OrderReadoutConfig):
        return WordReadoutConfig(**readout.model_dump(exclude={"kind"}))
    if isinstance(readout, VectorReadoutConfig | TokenReadoutConfig):
        return readout.model_copy(update={"scale": None})
    return readout
