"""Hierarchical encoders for long documents: words are read inside segments, segments inside documents."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encodery.batch import States
from encodery.bricks.layers import initialise
from encodery.bricks.pooling import Pooling
from encodery.encoders.attention import Pass
from encodery.encoders.hierarchical_options import HierarchicalConfig
from encodery.encoders.options import TransformerConfig
from encodery.encoders.recurrent import Recurrent, RecurrentConfig
from encodery.encoders.segments import Segments, cut
from encodery.encoders.transformer import Transformer
from encodery.encoders.watch import Watch


def make_hierarchical(
    config: HierarchicalConfig, input_width: int | None = None
) -> HierarchicalAttention | HierarchicalTransformer:
    """The encoder of the config's style, for vectors of `input_width` numbers."""
    return (HierarchicalAttention if config.style == "han" else HierarchicalTransformer)(config, input_width)


def _level(config: TransformerConfig | RecurrentConfig, input_width: int | None = None) -> Transformer | Recurrent:
    return (Transformer if isinstance(config, TransformerConfig) else Recurrent)(config, input_width)  # type: ignore[arg-type]


class HierarchicalAttention(nn.Module):
    """States -> States: an encoder over the words of each segment, attention pooling, an encoder over the segments of
    each document (Yang et al. 2016, "Hierarchical Attention Networks for Document Classification", section 2.2,
    equations 1 to 8; the second attention pooling, equations 8 to 10, is that of the readout).

    A token's vector is that of its word plus that of its segment, which has seen the whole document.
    """

    def __init__(self, config: HierarchicalConfig, input_width: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.words = _level(config.word_level, input_width)
        self.pooling = Pooling("attention", config.width, hidden=True)
        self.segments = _level(config.segment_level)

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers over words, then those over segments."""
        return [*self.words.blocks, *self.segments.blocks]

    def initialise(self, generator: torch.Generator) -> None:
        self.words.initialise(generator)
        initialise(self.pooling, std=0.02, depth=1, generator=generator)
        self.segments.initialise(generator)

    def forward(self, states: States, at: Tensor | None = None, watch: Watch | None = None) -> States:
        """All positions, or with `at` (M,) only these: vectors (M, D). `summary` holds the vectors of the segments."""
        layout = states.layout
        parts = cut(layout, self.config.segment, states.ends)
        words = self.words(States(states.vectors, parts.words), watch=watch)
        pooled_SD = self.pooling(words).to(words.vectors.dtype)
        above = self.segments(States(parts.placed(pooled_SD), parts.layout), watch=watch)
        context_PD = parts.spread(above.vectors)
        if at is None:
            return States(words.vectors + context_PD, layout, summary=above)
        return States(words.vectors[at] + context_PD[at], layout, summary=above)

    def memory(self, length: int) -> tuple[float, float]:
        """Rough numbers for each position: kept for the gradient, and the widest moment of use. The pooling keeps its
        hidden layer on both sides of tanh and the weighted vectors (3 D)."""
        kept, widest = _memory_of_levels(self.config, self.words, self.segments, length)
        return kept + 3 * self.config.width, widest

    def costs(self, length: int, last_share: float) -> list[tuple[str, int, float]]:
        """Name, parameters and forward FLOPs per token of each part. All words are read whatever is asked for, since
        each is a part of its segment's vector."""
        del last_share
        matrices = sum(parameter.numel() for parameter in self.pooling.parameters() if parameter.dim() == 2)
        pooling = ("pooling", sum(parameter.numel() for parameter in self.pooling.parameters()), 2.0 * matrices)
        words, above = _costs_of_levels(self.config, self.words, self.segments, length, 1.0)
        return [*words, pooling, *above]


class HierarchicalTransformer(nn.Module):
    """States -> States: Transformer blocks inside of segments; after every `cross_every` of them the first vectors of
    all segments of a document go through a block of their own and back to their places (Chalkidis et al. 2022, "An
    Exploration of Hierarchical Attention Transformers for Efficient Long Document Classification", section 3.2,
    interleaved). So every token sees, in the next block, what its segment has learned from the others.

    The paper sets a [CLS] token before each segment. Here the first token of a segment has that office besides its own:
    a learned vector (`lead`) is added to it.
    """

    def __init__(self, config: HierarchicalConfig, input_width: int | None = None) -> None:
        super().__init__()
        self.config = config
        words, segments = config.word_level, config.segment_level
        assert isinstance(words, TransformerConfig) and isinstance(segments, TransformerConfig)
        self.lead = nn.Parameter(torch.zeros(config.width))
        self.words = Transformer(words, input_width)
        self.words.output_norm = nn.Identity()  # words and segments leave together, by the norm of the other level
        self.segments = Transformer(segments)

    @property
    def blocks(self) -> list[nn.Module]:
        """In the order of their use."""
        found: list[nn.Module] = []
        for number, block in enumerate(self.words.blocks, start=1):
            found.append(block)
            if number % self.config.cross_every == 0:
                found.append(self.segments.blocks[number // self.config.cross_every - 1])
        return found

    def initialise(self, generator: torch.Generator) -> None:
        self.words.initialise(generator)
        self.segments.initialise(generator)
        nn.init.normal_(self.lead, 0.0, 0.02, generator=generator)

    def forward(self, states: States, at: Tensor | None = None, watch: Watch | None = None) -> States:
        """All positions, with the first vectors of the segments as `summary`; or with `at` (M,) only these: vectors
        (M, D), without a summary. A last block that is one over words works for them alone then."""
        config, layout = self.config, states.layout
        parts = cut(layout, config.segment, states.ends)
        x_PD = self.words.entered(states.vectors, parts.words)
        starts_S = parts.words.starts
        x_PD = x_PD.index_add(0, starts_S, self.lead.to(x_PD.dtype).expand(starts_S.shape[0], -1))
        inside = self.words.begin(parts.words, x_PD.dtype, watch)
        across = self.segments.begin(parts.layout, x_PD.dtype, watch)
        if watch is not None:
            watch.keep(x_PD, parts.words)
        in_last = at if self._last_can_choose and watch is None else None
        for layer, block in enumerate(self.words.blocks):
            x_PD = block(x_PD, inside, layer, in_last if layer + 1 == config.depth else None)
            if watch is not None:
                watch.keep(x_PD, parts.words)
            if (layer + 1) % config.cross_every == 0:
                x_PD = self._crossed(x_PD, layer // config.cross_every, parts, across)
        norm = self.segments.output_norm
        if at is not None:
            return States(norm(x_PD if in_last is not None else x_PD[at]), layout)
        vectors_PD = norm(x_PD)
        return States(vectors_PD, layout, summary=States(parts.placed(vectors_PD[starts_S]), parts.layout))

    def _crossed(self, x_PD: Tensor, number: int, parts: Segments, across: Pass) -> Tensor:
        """One block over segments, from the first vectors of these and back to them."""
        starts_S = parts.words.starts
        seen_QD = self.segments.blocks[number](parts.placed(x_PD[starts_S]), across, number)
        if across.watch is not None:
            across.watch.keep(seen_QD, parts.layout)
        return x_PD.index_copy(0, starts_S, seen_QD[parts.place])

    @property
    def _last_can_choose(self) -> bool:
        """Whether the last block is one over words, which may work for some positions alone."""
        return self.config.depth % self.config.cross_every != 0

    def memory(self, length: int) -> tuple[float, float]:
        """Rough numbers for each position: kept for the gradient, and the widest moment of use."""
        return _memory_of_levels(self.config, self.words, self.segments, length)

    def costs(self, length: int, last_share: float) -> list[tuple[str, int, float]]:
        """Name, parameters and forward FLOPs per token of each part."""
        share = last_share if self._last_can_choose else 1.0
        words, above = _costs_of_levels(self.config, self.words, self.segments, length, share)
        return [("mark of a segment's start", self.lead.numel(), 0.0), *words, *above]


def _memory_of_levels(
    config: HierarchicalConfig, words: Transformer | Recurrent, segments: Transformer | Recurrent, length: int
) -> tuple[float, float]:
    """Of both levels for each position, in a document of `length` tokens."""
    number = -(-length // config.segment)
    kept, widest = words.memory(min(length, config.segment))
    kept_above, widest_above = segments.memory(number)
    return kept + kept_above * number / length, max(widest, widest_above * number / length)


def _costs_of_levels(
    config: HierarchicalConfig,
    words: Transformer | Recurrent,
    segments: Transformer | Recurrent,
    length: int,
    last_share: float,
) -> tuple[list[tuple[str, int, float]], list[tuple[str, int, float]]]:
    """The lines of each level, FLOPs per token of a document of `length` tokens."""
    number = -(-length // config.segment)
    below = words.costs(min(length, config.segment), last_share)
    above = segments.costs(number, 1.0)
    return (
        [(f"words, {name}", parameters, flops) for name, parameters, flops in below],
        [(f"segments, {name}", parameters, flops * number / length) for name, parameters, flops in above],
    )
