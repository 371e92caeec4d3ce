"""The wiring: frontend, encoder and readout make one model; sizes, parameters and cost of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from encodery.batch import Batch, Output, States
from encodery.config import Config
from encodery.encoders.transformer import Transformer, TransformerConfig
from encodery.frontends.text import TextConfig, TextFrontend
from encodery.heads.readouts import (
    DocumentReadout,
    DocumentReadoutConfig,
    VectorReadout,
    VectorReadoutConfig,
    WordReadout,
    WordReadoutConfig,
)

ReadoutConfig = Annotated[WordReadoutConfig | DocumentReadoutConfig | VectorReadoutConfig, Field(discriminator="kind")]


class ModelConfig(Config):
    """A whole model: what turns data into vectors, what lets them see each other, what reads an answer."""

    frontend: TextConfig = TextConfig()
    encoder: TransformerConfig = TransformerConfig()
    readout: ReadoutConfig = WordReadoutConfig()


class Model(nn.Module):
    """Batch -> Output. `encode` stops before the readout."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder.width
        self.frontend = TextFrontend(config.frontend, width)
        self.encoder = Transformer(config.encoder)
        self.readout: WordReadout | DocumentReadout | VectorReadout
        if isinstance(config.readout, WordReadoutConfig):
            self.readout = WordReadout(config.readout, width, self.frontend.words)
        elif isinstance(config.readout, VectorReadoutConfig):
            self.readout = VectorReadout(config.readout, width)
        else:
            self.readout = DocumentReadout(config.readout, width, self.frontend.words.num_embeddings)

    def initialise(self, seed: int) -> Model:
        """Draw all weights from `seed`; the same seed gives the same weights."""
        generator = torch.Generator().manual_seed(seed)
        for part in (self.frontend, self.encoder, self.readout):
            part.initialise(generator)
        return self

    def encode(self, batch: Batch) -> States:
        """Vectors in context (P, D), before any readout."""
        return self.encoder(self.frontend(batch))

    def forward(self, batch: Batch) -> Output:
        # The flat positions of the masked words, `truth["at"]` (M,), are all that the word readout asks for.
        at = batch.truth["at"] if isinstance(self.readout, WordReadout) else None
        return self.readout(self.encoder(self.frontend(batch), at), batch)


@dataclass(frozen=True)
class PartCost:
    """One line of the parameter table: `flops` are multiply-adds x 2 of a forward pass, per token."""

    name: str
    parameters: int
    flops: float


def cost_table(model: Model, *, length: int, mask_share: float = 0.15) -> list[PartCost]:
    """Parameters and forward FLOPs per token of each part, for documents of `length` tokens.

    Linear layers cost 2 FLOPs a weight; attention adds 4 * length * D a token for scores and mixing (half of it
    when causal). The training step costs about three times the forward pass. The word readout, and all of the last
    block that is behind its attention, work on the masked share only.
    """
    config = model.config
    width, vocab = config.encoder.width, model.frontend.words.num_embeddings
    rows = [PartCost("frontend (embeddings)", count(model.frontend), 0.0)]
    positions = count(model.encoder) - count(model.encoder.blocks)
    rows.append(PartCost("encoder: positions and norms", positions, 0.0))
    for index, block in enumerate(model.encoder.blocks):
        pattern = config.encoder.pattern_of(index)
        seen = min(length, 2 * pattern.radius + 1) if pattern.name == "window" else length
        seen = seen / 2 if pattern.name == "causal" else seen
        matrices = float(sum(parameter.numel() for parameter in block.parameters() if parameter.dim() == 2))
        if index + 1 == len(model.encoder.blocks) and isinstance(model.readout, WordReadout):
            spared = matrices - 3 * width * width
            matrices -= (1 - mask_share) * spared
        rows.append(PartCost(f"encoder: block {index + 1}", count(block), 2.0 * matrices + 4.0 * seen * width))
    if isinstance(model.readout, WordReadout):
        flops = mask_share * 2.0 * (width * width + width * vocab)
        rows.append(PartCost("readout (words, matrix shared)", count(model.readout), flops))
    else:
        rows.append(PartCost("readout", count(model.readout), 2.0 * count(model.readout) / max(1, length)))
    return rows


def count(module: nn.Module) -> int:
    """How many numbers the module learns; a shared parameter counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


def load_matching(model: Model, weights: dict[str, Tensor]) -> list[str]:
    """Copy every weight whose name and shape fit; return the names of the model that found none."""
    own = model.state_dict()
    fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    return sorted(set(own) - set(fitting))
