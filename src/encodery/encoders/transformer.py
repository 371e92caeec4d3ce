"""The Transformer encoder: a stack of blocks of self-attention and feed-forward, States -> States."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from encodery.batch import Layout, States
from encodery.bricks.convolution import ConvolutionFeedForward
from encodery.bricks.dropout import add_dropped, dropout, random_starts, skip_documents
from encodery.bricks.experts import Experts
from encodery.bricks.layers import FeedForward, initialise, make_norm, normed
from encodery.bricks.positions import (
    Angles,
    GridPositions,
    LearnedPositions,
    RandomPositions,
    Rotary,
    SinusoidalPositions,
)
from encodery.bricks.products import Linear, compute_dtype
from encodery.bricks.relative import Alibi, DistanceBias, Distances, OnceBias, RelativeBuckets
from encodery.encoders.attention import Attention, Pass
from encodery.encoders.halving import halved, spread
from encodery.encoders.knowledge import Fusion, fusion_costs
from encodery.encoders.options import TransformerConfig
from encodery.encoders.past import Past
from encodery.encoders.source import HeldSource
from encodery.encoders.watch import Watch

__all__ = ["Block", "Transformer", "TransformerConfig"]


class Block(nn.Module):
    """One layer: attention, then feed-forward, each added to what went in: (P, D) -> (P, D).

    pre:   x + f(norm(x))           (Xiong et al. 2020)
    post:  norm(x + f(x))           ("Attention Is All You Need", section 3.1)
    both:  x + norm(f(norm(x)))     (Ding et al. 2021, CogView, Sandwich-LN)
    """

    def __init__(self, config: TransformerConfig, index: int) -> None:
        super().__init__()
        self.config = config
        self.post, self.both = config.norm_place == "post", config.norm_place == "both"
        width = config.width

        def norm() -> nn.Module:
            bias = config.biased_norms
            return make_norm(config.norm, width, epsilon=config.norm_epsilon, bias=bias)

        bare = index == 0 and not config.first_norm and not self.post
        self.attention_norm = nn.Identity() if bare else norm()
        self.attention = Attention(config)
        self.mlp_norm = norm()
        self.mlp = _feed_forward(config)
        self.attention_end_norm = norm() if self.both else None
        self.mlp_end_norm = norm() if self.both else None
        self.attention_scale = self.mlp_scale = None
        if config.layer_scale is not None:
            self.attention_scale = nn.Parameter(torch.full((width,), config.layer_scale))
            self.mlp_scale = nn.Parameter(torch.full((width,), config.layer_scale))

    def forward(self, x_PD: Tensor, run: Pass, layer: int, at: Tensor | None = None) -> Tensor:
        """As block number `layer` of the stack. With `at` (M,) the vectors of these positions alone, (M, D); they still
        look at all the others."""
        x, mixed = self.attended(x_PD, run, layer, at)
        return self.fed(x, mixed, run, layer, at)

    def attended(self, x_PD: Tensor, run: Pass, layer: int, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The first half, and what attention added."""
        config, real = self.config, run.real
        seen_PD = x_PD if self.post else normed(self.attention_norm, x_PD, real)
        far = config.looks_far(layer)
        mixed = self.attention(seen_PD, run, config.pattern_of(layer), far=far, at=at, layer=layer)
        if at is not None:
            x_PD = x_PD[at]
        x = self.joined(x_PD, mixed, self.attention_end_norm, self.attention_scale, run, layer, at)
        if self.post:
            x = normed(self.attention_norm, x, real if at is None else real[at])
        return x, mixed

    def fed(self, x: Tensor, mixed: Tensor, run: Pass, layer: int, at: Tensor | None = None) -> Tensor:
        """The second half: feed-forward."""
        real = run.real if at is None else run.real[at]
        change = self._fed_forward(x if self.post else normed(self.mlp_norm, x, real), run, real)
        after = self.joined(x, change, self.mlp_end_norm, self.mlp_scale, run, layer, at)
        if run.watch is not None:
            run.watch.measure(attention=mixed, feed_forward=change, sum=after)
        return normed(self.mlp_norm, after, real) if self.post else after

    def joined(
        self,
        x: Tensor,
        change: Tensor,
        end_norm: nn.Module | None,
        scale: Tensor | None,
        run: Pass,
        layer: int,
        at: Tensor | None = None,
    ) -> Tensor:
        """What went in, and what a branch adds to it."""
        config = self.config
        if end_norm is not None:
            change = normed(end_norm, change, run.real if at is None else run.real[at])
        if scale is not None:
            change = change * scale.to(change.dtype)
        if config.depth_drop_rate and self.training:
            rate = config.depth_drop_rate * (layer + 1) / config.depth
            document = run.layout.document if at is None else run.layout.document[at]
            change = skip_documents(change, document, run.layout.positions, rate)
        x = x if config.residual_scale == 1 else x * config.residual_scale
        return add_dropped(x, change, config.drop_rate, self.training)

    def flops(self, layer: int, length: int, share: float) -> float:
        """Forward FLOPs per token in documents of `length` tokens: 2 a weight, and attention's scores and mixing. All
        but queries, keys and values is done for a `share` of the positions."""
        config, attention = self.config, self.attention
        matrices = sum(p.numel() for p in self.mlp.parameters() if p.dim() == 2) + attention.outer.weight.numel()
        if isinstance(self.mlp, Experts):
            unused = (config.experts - config.experts_per_token) / config.experts
            matrices -= unused * sum(p.numel() for p in self.mlp.experts.parameters() if p.dim() == 2)
        pair = 2.0 * config.heads * (attention.key_width + attention.value_width)
        seen = config.pattern_of(layer).seen(length)
        return 2.0 * attention.qkv.weight.numel() + 2.0 * share * matrices + pair * seen

    def _fed_forward(self, x: Tensor, run: Pass, real: Tensor) -> Tensor:
        if isinstance(self.mlp, ConvolutionFeedForward):
            return self.mlp(x, run.layout)
        if isinstance(self.mlp, Experts):
            found, balance = self.mlp(x, real)
            run.balance.append(balance)
            return found
        return self.mlp(x)


class Transformer(nn.Module):
    """States -> States: positions in, `depth` blocks, a last norm when norms stand before the branches.

    `input_width` is the width of the vectors that come in, where that is not the encoder's own: they get their
    positions and their norm first and are widened then (ALBERT, Lan et al. 2020, section 3.1).
    """

    def __init__(self, config: TransformerConfig, input_width: int | None = None) -> None:
        super().__init__()
        self.config = config
        entering = input_width or config.width
        length = config.max_length + config.position_start + config.position_shift
        self.positions: nn.Module | None = None
        if config.positions == "sinusoidal":
            self.positions = SinusoidalPositions(length, entering)
        elif config.positions == "learned":
            self.positions = LearnedPositions(length, entering)
        elif config.positions == "random":
            self.positions = RandomPositions(length, entering)
        elif config.positions == "grid":
            self.positions = GridPositions(length, entering)
        self.rotary, self.near_rotary = self._rotary(config.rotary_base), None
        if config.rotary_base_local is not None and config.pattern_of(1).local:
            self.near_rotary = self._rotary(config.rotary_base_local)
        self.distance_bias: DistanceBias | None = None
        self.distances: Distances | None = None
        if config.positions == "alibi":
            self.distance_bias = Alibi(config.heads)
        elif config.positions == "relative":
            self.distance_bias = RelativeBuckets(config.heads, config.relative_buckets, config.relative_reach)
        elif config.positions == "disentangled":
            norm = self._norm(config.width) if config.distance_norm else nn.Identity()
            self.distances = Distances(config.width, config.relative_buckets, norm=norm)
        self.input_norm = self._norm(entering) if config.input_norm else nn.Identity()
        self.widen = Linear(entering, config.width) if entering != config.width else None
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.blocks))
        self.fusion = Fusion(config) if config.fusion is not None else None
        self.output_norm = nn.Identity() if config.norm_place == "post" else self._norm(config.width)
        self.working = config.depth
        """How many blocks of the stack work; fewer only while a run grows (training/growth.py)."""

    def _norm(self, width: int) -> nn.Module:
        config = self.config
        bias = config.biased_norms
        return make_norm(config.norm, width, epsilon=config.norm_epsilon, bias=bias)

    def _rotary(self, base: float) -> Rotary | None:
        config = self.config
        if config.positions not in ("rotary", "rotary_grid"):
            return None
        grid = config.positions == "rotary_grid"
        return Rotary(config.max_length, config.turned_width, base, stretch=config.rotary_stretch, grid=grid)

    def initialise(self, generator: torch.Generator) -> None:
        initialise(self, std=0.02, depth=self.config.depth, generator=generator)

    def forward(
        self, states: States, at: Tensor | None = None, watch: Watch | None = None, source: States | None = None
    ) -> States:
        """All positions, or with `at` (M,) only these: vectors (M, D). The last block then works for them alone, which
        spares masked-word training most of its cost: 85 % of the vectors would be thrown away. `source` is for blocks
        that look at one (heads/decoding/decoder.py)."""
        config, layout = self.config, states.layout
        x_PD = self.entered(states.vectors, layout)
        run = self.begin(layout, compute_dtype(x_PD), watch)
        run.source = source
        if watch is not None:
            watch.keep(x_PD, layout)
        last = self.working - 1
        in_last = at if self._last_can_choose() and watch is None else None
        named = None if self.fusion is None else self.fusion.begin(states.entity, layout, x_PD.dtype)
        full: tuple[Tensor, Layout] | None = None  # before the first halving
        for layer in range(self.working):
            block = self.blocks[layer * config.blocks // config.depth]
            chosen = in_last if layer == last else None
            x_PD = block(x_PD, run, layer, chosen)
            if self.fusion is not None:
                x_PD = self.fusion(layer + 1, x_PD, named, run.real if chosen is None else run.real[chosen], chosen)
            if layer + 1 in config.halve_after:
                full = full or (x_PD, layout)
                x_PD, shorter = halved(x_PD, run.layout)
                run = self.begin(shorter, x_PD.dtype, watch, run.balance)
            if watch is not None:
                watch.keep(x_PD, run.layout)
        if full is not None:
            x_PD = full[0] + spread(x_PD, layout, len(config.halve_after))
        if at is not None and in_last is None:
            x_PD = x_PD[at]
        real = layout.document >= 0 if at is None else layout.document[at] >= 0
        balance = torch.stack(run.balance).mean() if run.balance else None
        return States(normed(self.output_norm, x_PD, real), layout, balance=balance)

    def advance(self, x_PD: Tensor, past: Past, source: HeldSource | None = None) -> Tensor:
        """The next tokens of the texts of `past`, as many for each (N * T, D); they see all that was read before, and
        are kept with it. Only a causal stack can go on so."""
        config, layout = self.config, past.layout(len(x_PD))
        assert config.pattern == "causal", "tokens that were read before would have to see those to come"
        x_PD = self.entered(x_PD, layout)
        run = replace(self.begin(layout, compute_dtype(x_PD), None), past=past, source=source)
        for layer in range(self.working):
            x_PD = self.blocks[layer * config.blocks // config.depth](x_PD, run, layer)
        past.length += layout.length
        return normed(self.output_norm, x_PD, run.real)

    def grow(self, blocks: int) -> list[str]:
        """Let so many blocks work; those that join begin as copies of the ones below them (stacking, Gong et al. 2019).
        Returns the names of their parameters."""
        joined: list[str] = []
        for number in range(self.working, blocks):
            new, below = self.blocks[number], self.blocks[number % self.working]
            new.load_state_dict(below.state_dict(), strict=False)  # the first one may have no norm of its own
            joined += [f"blocks.{number}.{name}" for name, _ in new.named_parameters()]
        self.working = blocks
        return joined

    def costs(self, length: int, last_share: float) -> list[tuple[str, int, float]]:
        """Name, parameters and forward FLOPs per token of each part, for documents of `length` tokens, when the last
        block works for a share of the positions only. Weights that several blocks share are counted in the first."""
        config = self.config
        inside = sum(parameter.numel() for parameter in self.blocks.parameters())
        fused = [] if self.fusion is None else fusion_costs(self.fusion)
        inside += sum(parameters for _, parameters, _ in fused)
        rows = [("positions and norms", sum(parameter.numel() for parameter in self.parameters()) - inside, 0.0)]
        if self.widen is not None:
            rows[0] = (rows[0][0], rows[0][1], 2.0 * self.widen.weight.numel())
        for layer in range(config.depth):
            number = layer * config.blocks // config.depth
            block = self.blocks[number]
            assert isinstance(block, Block)
            new = layer == 0 or number != (layer - 1) * config.blocks // config.depth
            last = layer + 1 == config.depth and self._last_can_choose()
            shorter = 0.5 ** sum(after <= layer for after in config.halve_after)
            flops = block.flops(layer, max(1, int(length * shorter)), last_share if last else 1.0)
            parameters = sum(parameter.numel() for parameter in block.parameters()) if new else 0
            rows.append((f"block {layer + 1}", parameters, shorter * flops))
        return rows + fused

    def memory(self, length: int) -> tuple[float, float]:
        """Rough numbers for each position: kept for the gradient, and the widest moment of use.

        A block keeps two norms, queries, keys and values, mixed and projected vectors and two sums (10 D), both sides
        of the activation (2 I), and attention scores and shares (2 H T).
        """
        config = self.config
        inner, pairs = 2 * config.inner_width, 2 * config.heads * config.pattern_of(config.depth).seen(length)
        kept = config.depth * (10 * config.width + inner + pairs) + 6 * config.width
        if config.fusion is not None:  # each fusion layer: a norm, two sums and both sides of the activation
            kept += len(config.fused_after) * (3 * config.width + 2 * (config.fusion.inner_width or config.width))
        return kept, 6 * config.width + inner + pairs

    def _last_can_choose(self) -> bool:
        """Whether the last block may work for some positions alone: not where its answer depends on more than them."""
        config = self.config
        alone = config.mlp_kernel == 1 and not config.halve_after and config.norm != "batchnorm"
        return alone and config.depth > 0

    def entered(self, x_PD: Tensor, layout: Layout) -> Tensor:
        """What goes into the first block: vectors with their positions, normed and as wide as the blocks, (P, D)."""
        config = self.config
        if config.positions == "grid":
            assert self.positions is not None and layout.grid is not None, "grid positions need rows and columns"
            x_PD = self.positions(x_PD, layout.grid)
        elif self.positions is not None:
            position_P = layout.position + config.position_start
            if config.position_shift and self.training:
                position_P = position_P + random_starts(layout.document, layout.documents, config.position_shift)
            x_PD = self.positions(x_PD, position_P)
        x_PD = normed(self.input_norm, x_PD, layout.document >= 0)
        # From here on vectors travel in the type of the products: half the memory traffic in bf16.
        x_PD = dropout(x_PD.to(compute_dtype(x_PD)), config.drop_rate, self.training)
        return x_PD if self.widen is None else self.widen(x_PD)

    def begin(
        self, layout: Layout, dtype: torch.dtype, watch: Watch | None, balance: list[Tensor] | None = None
    ) -> Pass:
        """What the blocks share on their way through this layout."""
        angles: Angles | None = None
        near_angles: Angles | None = None
        if self.rotary is not None:
            where = layout.grid if self.rotary.grid else layout.position
            assert where is not None, "rotary_grid positions need rows and columns"
            angles = near_angles = self.rotary.angles(where, dtype)
            if self.near_rotary is not None:
                near_angles = self.near_rotary.angles(where, dtype)
        return Pass(
            layout,
            layout.document >= 0,
            angles,
            near_angles,
            None if self.distance_bias is None else OnceBias(self.distance_bias),
            None if self.distances is None else self.distances(),
            watch,
            [] if balance is None else balance,
        )


def _feed_forward(config: TransformerConfig) -> nn.Module:
    """The second half of a block, by the options."""
    width, inner, activation, bias = config.width, config.inner_width, config.activation, config.bias
    if config.mlp_kernel > 1:
        return ConvolutionFeedForward(width, inner, config.mlp_kernel, activation=activation, bias=bias)
    if config.experts:
        return Experts(width, inner, config.experts, config.experts_per_token, activation=activation, bias=bias)
    return FeedForward(width, inner, activation=activation, bias=bias)
