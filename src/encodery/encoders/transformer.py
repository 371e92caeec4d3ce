"""The Transformer encoder: a stack of blocks of self-attention and feed-forward, States -> States."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from encodery.batch import Layout, States
from encodery.bricks.dropout import add_dropped, dropout
from encodery.bricks.layers import ActivationName, FeedForward, NormName, initialise, make_norm
from encodery.bricks.positions import Angles, LearnedPositions, Rotary, SinusoidalPositions
from encodery.bricks.products import compute_dtype
from encodery.config import Config
from encodery.encoders.attention import Attention
from encodery.encoders.patterns import Pattern, PatternName


class TransformerConfig(Config):
    """The options of the Transformer encoder. `preset` fills the sizes; every key given beside it wins."""

    presets: ClassVar[dict[str, dict[str, object]]] = {
        "tiny": {"width": 128, "depth": 2, "heads": 2},
        "mini": {"width": 256, "depth": 4, "heads": 4},
        "small": {"width": 384, "depth": 6, "heads": 6},
        "base": {"width": 768, "depth": 12, "heads": 12},
        "large": {"width": 1024, "depth": 24, "heads": 16},
    }

    kind: Literal["transformer"] = "transformer"
    preset: Literal["tiny", "mini", "small", "base", "large"] | None = None
    """Sizes by name: tiny 2x128, mini 4x256, small 6x384, base 12x768, large 24x1024 (depth x width)."""
    width: int = Field(default=256, ge=8, le=16384)
    """Numbers in each vector (D)."""
    depth: int = Field(default=4, ge=0, le=256)
    """Blocks in the stack (L)."""
    heads: int = Field(default=4, ge=1, le=256)
    """Attention heads of a block (H); width must be a multiple."""
    mlp_width: int | None = Field(default=None, ge=8)
    """Inner width of the feed-forward layer; by default 4 x width, or 8/3 x width when gated."""
    norm: NormName = "layernorm"
    """layernorm, or rmsnorm (no mean, no bias)."""
    norm_place: Literal["pre", "post"] = "pre"
    """pre: norm before each branch (trains stably); post: after each sum, as in the original paper and BERT."""
    norm_epsilon: float = Field(default=1e-5, gt=0, lt=0.1)
    """Added to the variance before the square root."""
    activation: ActivationName = "gelu"
    """relu, gelu, silu, or gated: geglu, swiglu."""
    positions: Literal["none", "sinusoidal", "learned", "rotary"] = "rotary"
    """How order enters: a fixed table, a learned table, turned queries and keys, or not at all."""
    rotary_base: float = Field(default=10000.0, gt=1)
    """Base of the rotary angles; larger for longer texts."""
    max_length: int = Field(default=512, ge=4, le=1_000_000)
    """Longest document in tokens, special tokens included. Longer ones are split into windows."""
    pattern: PatternName = "full"
    """Who may look at whom inside a document: full, causal, or window."""
    window: int = Field(default=128, ge=1)
    """For pattern window: how far a token sees to either side."""
    global_every: int = Field(default=0, ge=0)
    """For pattern window: every n-th block looks at the whole document (ModernBERT uses 3); 0: none does."""
    bias: bool = True
    """Whether linear layers carry a bias."""
    drop_rate: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on embeddings and on the output of each branch."""
    attention_drop_rate: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the attention weights."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TransformerConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.positions == "rotary" and (self.width // self.heads) % 2:
            raise ValueError(f"rotary positions need an even head width, not {self.width // self.heads}")
        return self

    @property
    def inner_width(self) -> int:
        """Width inside the feed-forward layer, rounded to a multiple of 64 when it is a default."""
        if self.mlp_width is not None:
            return self.mlp_width
        if self.activation in ("geglu", "swiglu"):
            return max(64, round(self.width * 8 / 3 / 64) * 64)
        return 4 * self.width

    def pattern_of(self, block: int) -> Pattern:
        """The attention pattern of one block."""
        if self.pattern == "window" and self.global_every and block % self.global_every == 0:
            return Pattern("full")
        return Pattern(self.pattern, self.window if self.pattern == "window" else 0)


class Block(nn.Module):
    """One layer: attention, then feed-forward, each added to what went in: (P, D) -> (P, D).

    pre:   x + f(norm(x))     (Xiong et al. 2020)
    post:  norm(x + f(x))     ("Attention Is All You Need", section 3.1)
    """

    def __init__(self, config: TransformerConfig, index: int) -> None:
        super().__init__()
        self.pattern = config.pattern_of(index)
        self.post = config.norm_place == "post"
        self.drop_rate = config.drop_rate
        width, epsilon, bias = config.width, config.norm_epsilon, config.bias
        self.attention_norm = make_norm(config.norm, width, epsilon=epsilon, bias=bias)
        self.attention = Attention(width, config.heads, bias=bias, drop_rate=config.attention_drop_rate)
        self.mlp_norm = make_norm(config.norm, width, epsilon=epsilon, bias=bias)
        self.mlp = FeedForward(width, config.inner_width, activation=config.activation, bias=bias)

    def forward(self, x_PD: Tensor, layout: Layout, angles: Angles | None, at: Tensor | None = None) -> Tensor:
        """With `at` (M,) the vectors of these positions alone, (M, D); they still look at all the others."""
        seen_PD = x_PD if self.post else self.attention_norm(x_PD)
        change = self.attention(seen_PD, layout, self.pattern, angles, at)
        x = self._add(x_PD if at is None else x_PD[at], change)
        if self.post:
            x = self.attention_norm(x)
            return self.mlp_norm(self._add(x, self.mlp(x)))
        return self._add(x, self.mlp(self.mlp_norm(x)))

    def _add(self, x: Tensor, change: Tensor) -> Tensor:
        return add_dropped(x, change, self.drop_rate, self.training)


class Transformer(nn.Module):
    """States -> States: positions in, `depth` blocks, a last norm when norms stand before the branches."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.positions: nn.Module | None = None
        if config.positions == "sinusoidal":
            self.positions = SinusoidalPositions(config.max_length, config.width)
        elif config.positions == "learned":
            self.positions = LearnedPositions(config.max_length, config.width)
        self.rotary: Rotary | None = None
        if config.positions == "rotary":
            self.rotary = Rotary(config.max_length, config.width // config.heads, config.rotary_base)
        self.input_norm = make_norm(config.norm, config.width, epsilon=config.norm_epsilon, bias=config.bias)
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.depth))
        self.output_norm = (
            make_norm(config.norm, config.width, epsilon=config.norm_epsilon, bias=config.bias)
            if config.norm_place == "pre"
            else nn.Identity()
        )

    def initialise(self, generator: torch.Generator) -> None:
        initialise(self, std=0.02, depth=self.config.depth, generator=generator)

    def forward(self, states: States, at: Tensor | None = None) -> States:
        """All positions, or with `at` (M,) only these: vectors (M, D). The last block then works for them alone, which
        spares masked-word training most of its cost: 85 % of the vectors would be thrown away."""
        x_PD, layout = states.vectors, states.layout
        if self.positions is not None:
            x_PD = self.positions(x_PD, layout.position)
        # From here on vectors travel in the type of the products: half the memory traffic in bf16.
        x_PD = dropout(self.input_norm(x_PD).to(compute_dtype(x_PD)), self.config.drop_rate, self.training)
        angles = self.rotary.angles(layout.position, compute_dtype(x_PD)) if self.rotary else None
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            x_PD = block(x_PD, layout, angles, at if number == last else None)
        if last < 0 and at is not None:
            x_PD = x_PD[at]
        return States(self.output_norm(x_PD), layout)
