"""The options of the hierarchical encoders, and the two encoders that one of them is made of."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from encodery.bricks.choices import ActivationName
from encodery.config import Config
from encodery.encoders.options import TransformerConfig, unfitting_heads
from encodery.encoders.recurrent_options import CellName, RecurrentConfig

LevelName = Literal["transformer", "recurrent"]
_SHARED = ("width", "norm", "norm_epsilon", "drop_rate")
"""Options that mean the same to both kinds of level."""


class HierarchicalConfig(Config):
    """The options of the hierarchical encoders. Their cost grows with the length of a document, not with its square.

    A segment is a run of `segment` tokens, counted from the start of its document, or of whole sentences.
    """

    presets: ClassVar[dict[str, dict[str, object]]] = {
        "tiny": {"width": 128, "depth": 2, "heads": 2},
        "mini": {"width": 256, "depth": 4, "heads": 4},
        "small": {"width": 384, "depth": 6, "heads": 6, "segment_depth": 2},
    }

    kind: Literal["hierarchical"] = "hierarchical"
    preset: Literal["tiny", "mini", "small"] | None = None
    """Sizes by name: tiny 2x128, mini 4x256, small 6x384 (depth x width)."""
    style: Literal["han", "hat"] = "hat"
    """han: all layers over words, then a vector for each segment by attention pooling, then layers over segments (Yang
    et al. 2016). hat: blocks inside segments, and every few of them one that the first vectors of the segments go
    through together (Chalkidis et al. 2022)."""
    segment: int = Field(default=128, ge=4, le=65_536)
    """Tokens of a segment, or at most so many."""
    segment_at: Literal["tokens", "sentences"] = "tokens"
    """Where a segment ends: after so many tokens, or with the last sentence that ends among them (a token with . ! ? 。
    or another stop, or a line break); a sentence that is longer is cut."""
    width: int = Field(default=256, ge=8, le=16384)
    """Numbers in each vector (D)."""
    depth: int = Field(default=4, ge=1, le=256)
    """Layers over words."""
    segment_depth: int = Field(default=1, ge=1, le=256)
    """For han: layers over segments."""
    cross_every: int = Field(default=2, ge=1, le=256)
    """For hat: after every so many blocks over words comes one over segments."""
    words: LevelName = "transformer"
    """For han: what reads the words of a segment, Transformer blocks or a recurrent encoder (the paper's choice)."""
    segments: LevelName = "transformer"
    """For han: what reads the segments of a document."""
    max_length: int = Field(default=4096, ge=8, le=1_000_000)
    """Longest document in tokens, special tokens included. Longer ones are split into windows."""
    heads: int = Field(default=4, ge=1, le=256)
    """For Transformer blocks: attention heads (H)."""
    mlp_width: int | None = Field(default=None, ge=8)
    """For Transformer blocks: inner width of the feed-forward layer; by default 4 x width, 8/3 x width when gated."""
    activation: ActivationName = "gelu"
    """For Transformer blocks: relu, gelu, gelu_tanh, silu, or gated: geglu, geglu_tanh, swiglu."""
    positions: Literal["none", "rotary", "alibi", "relative"] = "rotary"
    """For Transformer blocks: how the order of the words of a segment, and of the segments of a document, enters."""
    cell: CellName = "gru"
    """For recurrent layers, which read in both directions: gru (the paper's choice), lstm or rnn."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Before each layer and at the end of each level."""
    norm_epsilon: float = Field(default=1e-5, gt=0, lt=0.1)
    """Added to the variance before the square root."""
    drop_rate: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on what enters a level and on the output of each branch or layer."""
    attention_drop_rate: float = Field(default=0.0, ge=0, lt=1)
    """For Transformer blocks: dropout on the attention weights."""

    @model_validator(mode="after")
    def _possible(self) -> HierarchicalConfig:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> list[str]:
        """Combinations that cannot be, each with the nearest thing that works."""
        found: list[str] = []
        kinds = {self.words, self.segments}
        if self.style == "hat" and "recurrent" in kinds:
            found.append("style: hat is made of Transformer blocks; recurrent words or segments need style: han")
        if self.style == "hat" and self.depth < self.cross_every:
            found.append(
                f"cross_every {self.cross_every} is more than depth {self.depth}, so that segments would never see "
                f"each other; cross_every {self.depth} gives one block for that"
            )
        if self.segment >= self.max_length:
            found.append(
                f"segment {self.segment} is not less than max_length {self.max_length}: every document would be one "
                f"segment; use segment {max(4, self.max_length // 4)}, or kind: transformer"
            )
        if "transformer" in kinds and self.width % self.heads:
            found.append(unfitting_heads(self.width, self.heads))
        elif "transformer" in kinds and self.positions == "rotary" and self.width // self.heads % 2:
            found.append(
                f"rotary positions need an even head width, not {self.width // self.heads}; positions: alibi takes any"
            )
        if "recurrent" in kinds and self.width % 2:
            found.append(f"width {self.width} cannot be halved for two directions; width {self.width + 1} can")
        return found

    @property
    def cross_blocks(self) -> int:
        """Blocks over segments of the style hat."""
        return self.depth // self.cross_every

    @property
    def word_level(self) -> TransformerConfig | RecurrentConfig:
        """What reads the words of a segment."""
        if self.words == "recurrent":
            return self._recurrent(self.depth, self.segment)
        return self._transformer(self.depth, self.segment, pattern="block", block=self.segment)

    @property
    def segment_level(self) -> TransformerConfig | RecurrentConfig:
        """What reads the segments of a document."""
        longest = max(4, self.most_segments)
        if self.style == "hat":  # its blocks go on with vectors of the words' blocks
            return self._transformer(self.cross_blocks, longest, input_norm=False)
        if self.segments == "recurrent":
            return self._recurrent(self.segment_depth, longest)
        return self._transformer(self.segment_depth, longest)

    @property
    def blocks(self) -> int:
        """Layers over words and over segments."""
        return self.depth + self.segment_level.blocks

    @property
    def most_segments(self) -> int:
        """Of a document. Where sentences decide, two neighbours together have more tokens than a segment can: otherwise
        the first sentence of the second would be in the first."""
        whole = -(-self.max_length // self.segment)
        return whole if self.segment_at == "tokens" else 2 * whole

    def _transformer(self, depth: int, longest: int, **more: object) -> TransformerConfig:
        shared = (*_SHARED, "heads", "mlp_width", "activation", "positions", "attention_drop_rate")
        given = {name: getattr(self, name) for name in shared}
        return TransformerConfig.model_validate({**given, "depth": depth, "max_length": longest, **more})

    def _recurrent(self, depth: int, longest: int) -> RecurrentConfig:
        given = {name: getattr(self, name) for name in (*_SHARED, "cell")}
        return RecurrentConfig.model_validate({**given, "depth": depth, "max_length": longest})
