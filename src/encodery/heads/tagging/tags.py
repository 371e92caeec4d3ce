"""Vectors become tags: one for each unit of a ragged batch, and a class for each text beside them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from encodery.batch import Batch, Output, States
from encodery.bricks.dropout import dropout
from encodery.bricks.layers import initialise
from encodery.bricks.pooling import Pooling
from encodery.bricks.products import Linear
from encodery.data.tags import allowed
from encodery.heads.lexical import LexicalScores
from encodery.heads.tagging.crf import Chain
from encodery.heads.tagging.options import TagReadoutConfig
from encodery.heads.tagging.words import WordScores

_LOWEST = -1e4
_CLASS_TOKENS, _CLASS_LETTERS = 2, 5
"""Longest runs that the linear answer about a whole text looks at."""


class TagReadout(nn.Module):
    """States -> logits (U, C) at the units of a batch, in order, and with `classes` also `classes` (N, K).

    With `linear` both answers are weighted sums of these and of linear ones (words.py here, lexical.py for the class),
    which are in `parts` and `class_parts`.

    A unit is read at its first token (Devlin et al. 2019, section 5.3): where `batch.values["tags"]` is above 0. The
    Output has the `chain` as well.
    """

    begin_allowed: Tensor
    end_allowed: Tensor
    between_allowed: Tensor
    mix: Tensor
    class_mix: Tensor

    def __init__(self, config: TagReadoutConfig, width: int, vocabulary: int = 0) -> None:
        super().__init__()
        self.config = config
        tags = len(config.tags)
        self.answer = Linear(width, tags)
        self.begin, self.end, self.between = (
            nn.Parameter(torch.zeros(size)) if config.crf else None for size in ((tags,), (tags,), (tags, tags))
        )
        for name, mask in zip(("begin", "end", "between"), allowed(config.tags, config.scheme)):
            self.register_buffer(f"{name}_allowed", torch.from_numpy(mask), persistent=False)
        self.lexical = (
            WordScores(
                tags, buckets=config.linear_buckets, vocabulary=vocabulary, characters=config.units == "characters"
            )
            if config.linear
            else None
        )
        if self.lexical is not None:
            # What each of the two answers weighs; fitted on validation rows when training is done.
            self.register_buffer("mix", torch.full((2,), 0.5))
        self.pooling = Pooling(config.pooling, width) if config.classes else None
        self.classes = Linear(width, config.classes) if config.classes else None
        self.class_lexical = (
            LexicalScores(
                config.classes,
                longest=_CLASS_TOKENS,
                buckets=config.linear_buckets,
                letters=_CLASS_LETTERS,
                vocabulary=vocabulary,
            )
            if config.linear and config.classes
            else None
        )
        if self.class_lexical is not None:
            self.register_buffer("class_mix", torch.full((2,), 0.5))

    def initialise(self, generator: torch.Generator) -> None:
        initialise(self, std=0.02, depth=1, generator=generator)
        for part in (self.begin, self.end, self.between):
            if part is not None:
                nn.init.zeros_(part)

    def chains(self) -> list[Chain]:
        """What begins and ends a text and what follows what, for the encoder and, where there is one, for the linear
        answer: learned, or 0; -inf where the scheme forbids it."""
        learned = [(self.begin, self.end, self.between)]
        if self.lexical is not None:
            learned.append((self.lexical.begin, self.lexical.end, self.lexical.between))
        return [self._allowed(*parts) for parts in learned]

    def chain(self) -> Chain:
        """That of the whole answer."""
        encoder, *linear = self.chains()
        return self.mixed(encoder, linear[0]) if linear else encoder

    def mixed(self, encoder: Chain, linear: Chain) -> Chain:
        """The chains of the two answers, weighed by `mix`."""
        pairs = zip(encoder, linear)
        # What is forbidden stays so, whatever the weights are.
        return self._allowed(
            *(self.mix[0] * a.clamp_min(_LOWEST) + self.mix[1] * b.clamp_min(_LOWEST) for a, b in pairs)
        )

    def _allowed(self, begin: Tensor | None, end: Tensor | None, between: Tensor | None) -> Chain:
        masks = (self.begin_allowed, self.end_allowed, self.between_allowed)
        parts = [mask.float() * 0 if one is None else one for one, mask in zip((begin, end, between), masks)]
        return Chain(*(part.masked_fill(~mask, -torch.inf) for part, mask in zip(parts, masks)))

    def forward(self, states: States, batch: Batch) -> Output:
        assert "tags" in batch.values, "the data has no units: data.tags or data.spans was not read"
        vectors_UD = states.vectors[units_of(batch)]
        # The last steps run in float32: they are small, and U and N change from batch to batch.
        with torch.autocast(vectors_UD.device.type, enabled=False):
            rate = self.config.drop_rate
            own_UC = self.answer(dropout(vectors_UD.float(), rate, self.training))
            output = Output(own_UC, balance=states.balance, chain=self.chains()[0])
            # While the encoder learns it answers alone.
            if self.lexical is not None and not self.training:
                linear_UC = self.lexical(batch)
                mixed_UC = self.mix[0] * own_UC + self.mix[1] * linear_UC
                output = replace(output, logits=mixed_UC, parts=(own_UC, linear_UC), chain=self.chain())
            if self.pooling is None or self.classes is None:
                return output
            pooled_ND = self.pooling(states.summary or states)
            classes_NK = self.classes(dropout(pooled_ND.float(), rate, self.training))
            output = replace(output, vectors=pooled_ND, classes=classes_NK)
            if self.class_lexical is None or self.training:
                return output
            lexical_NK = self.class_lexical(batch)
            mixed_NK = self.class_mix[0] * classes_NK + self.class_mix[1] * lexical_NK
            return replace(output, classes=mixed_NK, class_parts=(classes_NK, lexical_NK))


def units_of(batch: Batch) -> Tensor:
    """The positions at which units are read, (U,), ascending."""
    return batch.values["tags"].nonzero()[:, 0]
