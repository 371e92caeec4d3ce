"""The options of the Transformer encoder: every choice has a name, a meaning and a source."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from encodery.bricks.choices import ActivationName, NormName, is_gated
from encodery.config import Config
from encodery.encoders.pattern_rules import Pattern, PatternName

PositionsName = Literal[
    "none", "sinusoidal", "learned", "random", "rotary", "alibi", "relative", "disentangled", "grid", "rotary_grid"
]
TURNING = ("rotary", "rotary_grid")


def unfitting_heads(width: int, heads: int) -> str:
    """Why the width cannot be divided among the heads, and the nearest number of heads that can be."""
    fitting = [number for number in range(1, width + 1) if width % number == 0]
    near = min(fitting, key=lambda number: abs(number - heads))
    return f"width {width} is not a multiple of heads {heads}; heads {near} fit"


class FusionConfig(Config):
    """Vectors of entities, fused into the words that name them (ERNIE, Zhang et al. 2019, section 3.3)."""

    entities: int | None = Field(default=None, ge=1)
    """Rows of the table of entities. Taken from `data.knowledge` when left out."""
    after: tuple[int, ...] | None = None
    """After these blocks, counted from 1; by default after each block of the upper half, as in ERNIE."""
    width: int = Field(default=100, ge=2, le=16384)
    """Numbers in the vector of an entity; that of the file when `data.knowledge.vectors` names one."""
    heads: int = Field(default=4, ge=0, le=256)
    """Heads by which the entities of a document look at each other; 0: they do not."""
    inner_width: int | None = Field(default=None, ge=8)
    """Width of the layer in which words and entities meet; by default that of the encoder."""
    activation: Literal["relu", "gelu", "gelu_tanh", "silu"] = "gelu"
    """Of that layer."""
    frozen: bool = False
    """Whether the table stays as it was read from the file, as in ERNIE, or learns."""


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
    max_length: int = Field(default=512, ge=4, le=1_000_000)
    """Longest document in tokens, special tokens included. Longer ones are split into windows."""

    # -- attention
    heads: int = Field(default=4, ge=1, le=256)
    """Attention heads of a block (H)."""
    head_width: int | None = Field(default=None, ge=1, le=4096)
    """Numbers in the query and key of a head (K); by default width / heads, which must then divide."""
    value_width: int | None = Field(default=None, ge=1, le=4096)
    """Numbers in the value of a head; by default as many as in its key."""
    kv_heads: int | None = Field(default=None, ge=1, le=256)
    """Heads of keys and values (G) that the query heads share: 1 is multi-query (Shazeer 2019), more is grouped
    (Ainslie et al. 2023); by default each query head has its own."""
    score: Literal["dot", "additive"] = "dot"
    """How a query meets a key: by their product, or by a small network (Bahdanau et al. 2015)."""
    score_scale: bool = True
    """Whether products are divided by sqrt(K); T5 does not."""
    qk_norm: bool = True
    """A norm on each query and key (Henry et al. 2020; Dehghani et al. 2023), RMSNorm where `norm` is and LayerNorm
    elsewhere: scores cannot grow without bound. Most architectures of others have none: false, to export to these."""
    pattern: PatternName = "full"
    """Who may look at whom inside a document: full, causal, window, dilated, block, or random (BigBird)."""
    window: int = Field(default=128, ge=1)
    """For window, dilated and random: how many tokens (dilated: steps) a token sees to either side."""
    dilation: int = Field(default=2, ge=1)
    """For dilated: the size of a step."""
    block: int = Field(default=128, ge=2)
    """For block and random: tokens of a block."""
    random_blocks: int = Field(default=2, ge=0)
    """For random: blocks of its document, drawn once for all, that each block sees beside its neighbours."""
    global_tokens: int = Field(default=0, ge=0, le=256)
    """For all but full and causal: so many tokens at the start of a document see all others and are seen by all
    (Longformer, Beltagy et al. 2020)."""
    global_every: int = Field(default=0, ge=0)
    """For all but full and causal: every n-th block looks at the whole document (ModernBERT uses 3); 0: none does."""

    # -- feed-forward
    mlp_width: int | None = Field(default=None, ge=8)
    """Inner width of the feed-forward layer; by default 4 x width, or 8/3 x width when gated."""
    activation: ActivationName = "gelu"
    """relu, gelu, gelu_tanh, silu, or gated: geglu, geglu_tanh, swiglu."""
    mlp_kernel: int = Field(default=1, ge=1, le=63)
    """Tokens that the first feed-forward layer sees at a time; more than 1 makes it a convolution inside each document
    (FastSpeech, Ren et al. 2019). Odd."""
    experts: int = Field(default=0, ge=0, le=1024)
    """Feed-forward layers to choose from for each token (Shazeer et al. 2017); 0: one for all."""
    experts_per_token: int = Field(default=2, ge=1, le=64)
    """How many of them a token goes through."""

    # -- norms and residuals
    norm: NormName = "layernorm"
    """layernorm, rmsnorm (no mean, no bias), or batchnorm (statistics over real positions alone)."""
    norm_place: Literal["pre", "post", "both"] = "pre"
    """pre: norm before each branch (trains stably); post: after each sum, as in the original paper and BERT; both:
    before each branch and at its end."""
    norm_epsilon: float = Field(default=1e-5, gt=0, lt=0.1)
    """Added to the variance before the square root."""
    norm_bias: bool | None = None
    """Whether norms add a learned vector; by default as the linear layers."""
    input_norm: bool = True
    """Whether the embeddings pass a norm before the first block."""
    first_norm: bool = True
    """For norms before the branches: whether the first block has one before its attention (ModernBERT has not)."""
    residual_scale: float = Field(default=1.0, gt=0, le=100)
    """What a block multiplies its input with before it adds a branch (DeepNorm, Wang et al. 2022: (2 L)^(1/4))."""
    layer_scale: float | None = Field(default=None, gt=0, le=10)
    """Start of a learned factor for each channel at the end of each branch (Touvron et al. 2021); none by default."""
    bias: bool = True
    """Whether linear layers carry a bias."""

    # -- positions
    positions: PositionsName = "rotary"
    """How order enters: not at all (none); a table that is added: sinusoidal, learned, random (drawn once, fixed),
    grid (sines of row and column); turned queries and keys: rotary, rotary_grid; or the distance in the score: alibi,
    relative (T5), disentangled (DeBERTa)."""
    rotary_base: float = Field(default=10000.0, gt=1)
    """Base of the rotary angles; larger for longer texts."""
    rotary_base_local: float | None = Field(default=None, gt=1)
    """Base in blocks that do not look at the whole document; by default the same."""
    rotary_stretch: float = Field(default=1.0, ge=1)
    """Makes a model read texts this many times longer than it was trained on: the base grows so that the slowest
    angle stays where it was (NTK-aware scaling, bloc97 2023)."""
    rotary_share: float = Field(default=1.0, gt=0, le=1)
    """Share of each query and key that is turned."""
    relative_buckets: int = Field(default=32, ge=4, le=4096)
    """For relative and disentangled: distances that are told apart."""
    relative_reach: int = Field(default=128, ge=4)
    """For relative and disentangled: distance from which on all count as one."""
    disentangled: tuple[Literal["content_position", "position_content"], ...] = ("content_position", "position_content")
    """For disentangled: which of the two terms the score has beside the product of the contents."""
    share_position_keys: bool = True
    """For disentangled: whether distances go through the same matrices as contents (DeBERTa-v3)."""
    distance_norm: bool = True
    """For disentangled: whether the vectors of the distances pass a norm (DeBERTa-v2 and later)."""
    position_start: int = Field(default=0, ge=0)
    """Number of the first position in a table; RoBERTa counts from 2."""
    position_shift: int = Field(default=0, ge=0)
    """For tables: while learning, each document starts at a place drawn from 0 to this (SHAPE, Kiyono et al. 2021)."""

    # -- depth
    distinct_blocks: int | None = Field(default=None, ge=1)
    """Blocks that have weights of their own; the stack of `depth` uses each several times in a row (ALBERT: 1)."""
    halve_after: tuple[int, ...] = ()
    """After these blocks (counted from 1) neighbouring tokens are averaged in pairs (Funnel-Transformer, Dai et al.
    2020); at the end the vectors are spread again and added to those before the first halving."""

    # -- knowledge
    fusion: FusionConfig | None = None
    """Fuse vectors of entities into the words that name them; `data.knowledge` says which words do."""

    # -- dropping
    drop_rate: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on embeddings and on the output of each branch."""
    attention_drop_rate: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the attention weights."""
    depth_drop_rate: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth (Huang et al. 2016): share of the documents that skip a branch of the last block while learning;
    earlier blocks skip in proportion to their place."""

    @model_validator(mode="after")
    def _possible(self) -> TransformerConfig:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> list[str]:
        """Combinations that cannot be, each with the nearest thing that works."""
        found: list[str] = []
        if self.head_width is None and self.width % self.heads:
            return [unfitting_heads(self.width, self.heads) + ", or set head_width"]
        if self.kv_heads is not None and self.heads % self.kv_heads:
            found.append(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if self.positions in TURNING and self.turned_width % (4 if self.positions == "rotary_grid" else 2):
            found.append(f"{self.positions} positions need an even head width, not {self.turned_width}")
        if self.positions in TURNING and self.score == "additive":
            found.append(f"{self.positions} positions need score: dot; with score: additive use positions: relative")
        if self.positions == "disentangled" and self.score == "additive":
            found.append("disentangled positions need score: dot")
        if self.positions == "disentangled" and not self.disentangled:
            found.append("disentangled positions need at least one of content_position, position_content")
        if self.pattern in ("full", "causal"):
            for name in ("global_tokens", "global_every"):
                if getattr(self, name):
                    found.append(f"{name} needs a local pattern, such as pattern: window; {self.pattern} has none")
        if self.mlp_kernel % 2 == 0:
            found.append(f"mlp_kernel {self.mlp_kernel} is even; {self.mlp_kernel + 1} sees as far to both sides")
        if self.mlp_kernel > 1 and self.experts:
            found.append("mlp_kernel and experts are two kinds of feed-forward layer: choose one")
        if self.mlp_kernel > 1 and self.pattern == "causal":
            found.append("a convolution sees the tokens to come: pattern: causal needs mlp_kernel: 1")
        if self.experts and self.experts < self.experts_per_token:
            found.append(f"experts_per_token {self.experts_per_token} is more than experts {self.experts}")
        if self.distinct_blocks is not None and self.distinct_blocks > max(1, self.depth):
            found.append(f"distinct_blocks {self.distinct_blocks} is more than depth {self.depth}")
        if list(self.halve_after) != sorted({n for n in self.halve_after if 1 <= n < self.depth}):
            found.append(f"halve_after must name blocks from 1 to {self.depth - 1}, each once, in order")
        if self.fusion is not None:
            found += self._fusion_problems(self.fusion)
        if self.halve_after and self.pattern == "causal":
            found.append("halve_after averages a token with the next one: it cannot be used with pattern: causal")
        if self.position_shift and self.positions not in ("sinusoidal", "learned", "random"):
            found.append("position_shift needs a table of positions: sinusoidal, learned or random")
        if self.norm == "batchnorm" and self.norm_place == "post" and not self.depth:
            found.append("batchnorm needs at least one block")
        return found

    def _fusion_problems(self, fusion: FusionConfig) -> list[str]:
        found: list[str] = []
        last = self.halve_after[0] if self.halve_after else self.depth
        if not self.fused_after or list(self.fused_after) != sorted({n for n in self.fused_after if 1 <= n <= last}):
            where = "the blocks before the first halving, from" if self.halve_after else "blocks from"
            found.append(f"fusion.after must name {where} 1 to {last}, each once, in order")
        if fusion.heads and fusion.width % fusion.heads:
            found.append(f"fusion.{unfitting_heads(fusion.width, fusion.heads).replace('heads', 'fusion.heads')}")
        if self.pattern == "causal" and fusion.heads:
            found.append("entities that look at each other see those to come: pattern: causal needs fusion.heads: 0")
        return found

    @property
    def fused_after(self) -> tuple[int, ...]:
        """The blocks, counted from 1, that entities are fused after."""
        if self.fusion is None:
            return ()
        return tuple(range(self.depth // 2 + 1, self.depth + 1)) if self.fusion.after is None else self.fusion.after

    @property
    def biased_norms(self) -> bool:
        """Whether norms add a learned vector."""
        return self.bias if self.norm_bias is None else self.norm_bias

    @property
    def key_width(self) -> int:
        """K: numbers in the query and key of a head."""
        return self.head_width or self.width // self.heads

    @property
    def turned_width(self) -> int:
        """How many of them rotary positions turn."""
        return int(self.key_width * self.rotary_share)

    @property
    def inner_width(self) -> int:
        """Width inside the feed-forward layer, rounded to a multiple of 64 when it is a default."""
        if self.mlp_width is not None:
            return self.mlp_width
        if is_gated(self.activation):
            return max(64, round(self.width * 8 / 3 / 64) * 64)
        return 4 * self.width

    @property
    def blocks(self) -> int:
        """Blocks with weights of their own."""
        return self.distinct_blocks or self.depth

    def looks_far(self, block: int) -> bool:
        """Whether a block (counted from 0) looks at the whole document."""
        return self.pattern in ("full", "causal") or bool(self.global_every and block % self.global_every == 0)

    def pattern_of(self, block: int) -> Pattern:
        """The attention pattern of one block, counted from 0."""
        if self.pattern not in ("full", "causal") and self.looks_far(block):
            return Pattern("full")
        return Pattern(
            self.pattern,
            radius=self.window if self.pattern in ("window", "dilated", "random") else 0,
            dilation=self.dilation if self.pattern == "dilated" else 1,
            block=self.block if self.pattern in ("block", "random") else 0,
            random_blocks=self.random_blocks if self.pattern == "random" else 0,
            global_tokens=self.global_tokens,
        )
