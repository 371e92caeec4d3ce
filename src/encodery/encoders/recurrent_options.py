"""The options of the recurrent encoders. Read without torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from encodery.bricks.choices import NormName
from encodery.config import Config

CellName = Literal["rnn", "lstm", "gru"]


class RecurrentConfig(Config):
    """The options of the recurrent encoders."""

    presets: ClassVar[dict[str, dict[str, object]]] = {
        "tiny": {"width": 128, "depth": 1},
        "mini": {"width": 256, "depth": 2},
        "small": {"width": 512, "depth": 2},
    }

    kind: Literal["recurrent"] = "recurrent"
    preset: Literal["tiny", "mini", "small"] | None = None
    """Sizes by name: tiny 1x128, mini 2x256, small 2x512 (depth x width)."""
    cell: CellName = "lstm"
    """rnn (Elman 1990), lstm (Hochreiter and Schmidhuber 1997; Gers et al. 2000), gru (Cho et al. 2014)."""
    width: int = Field(default=256, ge=8, le=16384)
    """Numbers in each vector (D)."""
    depth: int = Field(default=2, ge=1, le=64)
    """Layers in the stack (L)."""
    hidden_width: int | None = Field(default=None, ge=1, le=16384)
    """Numbers in the state of one direction; by default width, halved when there are two directions. Where both
    directions together do not have `width` numbers, a linear layer projects them (Sak et al. 2014)."""
    directions: Literal["both", "forward"] = "both"
    """both sees the whole document (Schuster and Paliwal 1997); forward only what has been read."""
    residual: bool = True
    """Whether what goes into a layer is added to what comes out."""
    norm: NormName = "layernorm"
    """layernorm or rmsnorm, before each layer and at the end."""
    norm_epsilon: float = Field(default=1e-5, gt=0, lt=0.1)
    """Added to the variance before the square root."""
    max_length: int = Field(default=512, ge=4, le=1_000_000)
    """Longest document in tokens, special tokens included. Longer ones are split into windows."""
    drop_rate: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on embeddings and on the output of each layer."""

    @model_validator(mode="after")
    def _possible(self) -> RecurrentConfig:
        if self.norm == "batchnorm":
            raise ValueError("a recurrent encoder has no norm batchnorm; layernorm and rmsnorm work")
        if self.hidden_width is None and self.directions == "both" and self.width % 2:
            raise ValueError(
                f"width {self.width} cannot be halved for two directions; set an even width, or hidden_width"
            )
        return self

    @property
    def state_width(self) -> int:
        """Numbers in the state of one direction."""
        return self.hidden_width or self.width // (2 if self.directions == "both" else 1)

    @property
    def blocks(self) -> int:
        """Layers with weights of their own."""
        return self.depth
