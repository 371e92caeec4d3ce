"""The options of the readout that tags the units of a text. Read without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from encodery.bricks.choices import PoolingName
from encodery.config import Config
from encodery.data.tags import SchemeName


class TagReadoutConfig(Config):
    """A tag for every unit (word or character) of a text, and a class for the text beside them."""

    kind: Literal["tags"] = "tags"
    tags: tuple[str, ...] = ("O",)
    """The tags (C), in the order of their numbers."""
    scheme: SchemeName = "none"
    """Which of them can follow which."""
    crf: bool = True
    """Whether what neighbouring tags say of each other is learned; else only what the scheme forbids counts."""
    classes: int = Field(default=0, ge=0)
    """Classes of the whole text (K) that are told beside the tags; 0: none."""
    pooling: PoolingName = "mean"
    """For the class of the whole text: how its vectors become one."""
    drop_rate: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on the vectors."""
    linear: bool = False
    """Whether a linear answer from the words, their affixes and their neighbours stands beside the encoder's, and one
    from runs of tokens and letters beside the class of the text."""
    linear_buckets: int = Field(default=1 << 17, ge=1 << 8, le=1 << 24)
    """With `linear`: numbers that its features are hashed to, each with a weight for every tag."""
    units: Literal["words", "characters"] = "words"
    """With `linear`: what a unit is."""
