"""The options of readouts that give vectors of positions. Read without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from encodery.config import Config


class TokenReadoutConfig(Config):
    """A vector for each position, to be compared position by position (late interaction)."""

    kind: Literal["tokens"] = "tokens"
    outputs: int = Field(default=128, ge=2, le=65536)
    """Numbers of each vector (K)."""
    scale: float | None = Field(default=None, gt=0, le=100)
    """What similarities are multiplied with, learned from there on; none when left out."""
