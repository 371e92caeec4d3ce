"""Vectors become tags: one for each unit of a ragged batch, and a class for each text beside them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encodery.batch import Batch, Output, States
from encodery.bricks.dropout import dropout
from encodery.bricks.layers import initialise
from encodery.bricks.pooling import Pooling
from encodery.bricks.products import Linear
from encodery.data.tags import allowed
from encodery.heads.crf import Chain
from encodery.heads.tagging_options import TagReadoutConfig


class TagReadout(nn.Module):
    """States -> logits (U, C) at the units of a batch, in order, and with `classes` also `classes` (N, K).

    A unit is read at its first token (Devlin et al. 2019, section 5.3): where `batch.values["tags"]` is above 0. The
    Output has the `chain` as well.
    """

    begin_allowed: Tensor
    end_allowed: Tensor
    between_allowed: Tensor

    def __init__(self, config: TagReadoutConfig, width: int) -> None:
        super().__init__()
        self.config = config
        tags = len(config.tags)
        self.answer = Linear(width, tags)
        self.begin, self.end, self.between = (
            nn.Parameter(torch.zeros(size)) if config.crf else None for size in ((tags,), (tags,), (tags, tags))
        )
        for name, mask in zip(("begin", "end", "between"), allowed(config.tags, config.scheme)):
            self.register_buffer(f"{name}_allowed", torch.from_numpy(mask), persistent=False)
        self.pooling = Pooling(config.pooling, width) if config.classes else None
        self.classes = Linear(width, config.classes) if config.classes else None

    def initialise(self, generator: torch.Generator) -> None:
        initialise(self, std=0.02, depth=1, generator=generator)
        for part in (self.begin, self.end, self.between):
            if part is not None:
                nn.init.zeros_(part)

    def chain(self) -> Chain:
        """What begins and ends a text and what follows what: learned, or 0; -inf where the scheme forbids it."""
        masks = (self.begin_allowed, self.end_allowed, self.between_allowed)
        learned = (self.begin, self.end, self.between)
        parts = [mask.float() * 0 if one is None else one for one, mask in zip(learned, masks)]
        return Chain(*(part.masked_fill(~mask, -torch.inf) for part, mask in zip(parts, masks)))

    def forward(self, states: States, batch: Batch) -> Output:
        assert "tags" in batch.values, "the data has no units: data.tags or data.spans was not read"
        vectors_UD = states.vectors[units_of(batch)]
        # The last steps run in float32: they are small, and U and N change from batch to batch.
        with torch.autocast(vectors_UD.device.type, enabled=False):
            rate = self.config.drop_rate
            logits_UC = self.answer(dropout(vectors_UD.float(), rate, self.training))
            if self.pooling is None or self.classes is None:
                return Output(logits_UC, balance=states.balance, chain=self.chain())
            pooled_ND = self.pooling(states.summary or states)
            classes_NK = self.classes(dropout(pooled_ND.float(), rate, self.training))
            return Output(logits_UC, pooled_ND, balance=states.balance, chain=self.chain(), classes=classes_NK)


def units_of(batch: Batch) -> Tensor:
    """The positions at which units are read, (U,), ascending."""
    return batch.values["tags"].nonzero()[:, 0]
