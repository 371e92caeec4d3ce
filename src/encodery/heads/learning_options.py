"""The options of readouts that only learning without labels needs. Read without torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from encodery.bricks.choices import PoolingName
from encodery.config import Config
from encodery.heads.options import LinkReadoutConfig, VectorReadoutConfig, WordReadoutConfig

SharingName = Literal["tied", "disentangled", "separate"]


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
    match: tuple[Literal["hidden", "attention", "vectors"], ...] = ("hidden",)
    """What is compared with the teacher's."""
    pooling: PoolingName = "mean"
    """For vectors: how those of a text become one."""
    teacher_width: int = Field(ge=1)
    """Numbers in the vectors of the teacher's blocks."""
    teacher_depth: int = Field(ge=0)
    """Blocks of the teacher."""
    teacher_vector: int = Field(ge=1)
    """Numbers in the teacher's vector of a document."""


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
