"""The wiring: frontend, encoder and readout make one model; sizes, parameters and cost of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encodery.batch import Batch, Output, States
from encodery.bricks.products import products_in
from encodery.config import Config
from encodery.encoders.kinds import EncoderConfig, asks_for_ends, make_encoder
from encodery.encoders.options import TransformerConfig
from encodery.encoders.visible_tree import check_reads_trees
from encodery.encoders.watch import Watch
from encodery.frontends.options import TextConfig, VisionConfig
from encodery.frontends.text import TextFrontend
from encodery.frontends.vision import VisionFrontend
from encodery.heads.decoding.decoder import Decoder
from encodery.heads.decoding.options import DecoderConfig
from encodery.heads.kinds import make_readout
from encodery.heads.options import (
    ReadoutConfig,
    SeveralReadoutConfig,
    VectorReadoutConfig,
    WordReadoutConfig,
    kept_readout,
)
from encodery.heads.passes import OwnPass, answered
from encodery.heads.readouts import VectorReadout, WordReadout
from encodery.heads.replaced import ReplacedReadout


class ModelConfig(Config):
    """A whole model: what turns data into vectors, what lets them see each other, what reads an answer."""

    frontend: TextConfig = TextConfig()
    encoder: EncoderConfig = TransformerConfig()
    readout: ReadoutConfig = WordReadoutConfig()


def with_own_matrix(readout: ReadoutConfig, frontend: TextConfig) -> ReadoutConfig:
    """The readout, with a matrix of its own for words whose vectors would cost more than the encoder to make anew at
    each step (a convolution over the characters of the whole vocabulary)."""
    if isinstance(readout, SeveralReadoutConfig):
        return readout.model_copy(update={"parts": tuple(with_own_matrix(part, frontend) for part in readout.parts)})
    if isinstance(readout, WordReadoutConfig | DecoderConfig) and frontend.makes_anew:
        return readout.model_copy(update={"tied": False})
    return readout


class Model(nn.Module):
    """Batch -> Output. `encode` stops before the readout."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.frontend = TextFrontend(config.frontend, config.encoder.width, marks_ends=asks_for_ends(config.encoder))
        self.encoder = make_encoder(config.encoder, self.frontend.width)
        self.readout = make_readout(config.readout, config.encoder, self.frontend)

    def initialise(self, seed: int) -> Model:
        """Draw all weights from `seed`; the same seed gives the same weights."""
        generator = torch.Generator().manual_seed(seed)
        for part in (self.frontend, self.encoder, self.readout):
            part.initialise(generator)
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def encode(self, batch: Batch, watch: Watch | None = None) -> States:
        """Vectors in context (P, D), before any readout. A `watch` is filled with what the encoder thought."""
        return self.encoder(self._entered(batch), watch=watch)

    def forward(self, batch: Batch) -> Output:
        return answered(self.readout, self._encoded, batch)

    def _encoded(
        self, batch: Batch, at: Tensor | None = None, *, watch: Watch | None = None, words: Tensor | None = None
    ) -> States:
        return self.encoder(self._entered(batch, words), at, watch)

    def _entered(self, batch: Batch, words: Tensor | None = None) -> States:
        if batch.layout.branch is not None:
            check_reads_trees(self.config.encoder)
        return self.frontend(batch, words)


class VisionModelConfig(Config):
    """A whole model of pictures."""

    frontend: VisionConfig = VisionConfig()
    encoder: TransformerConfig = TransformerConfig(positions="learned", input_norm=False, qk_norm=False, max_length=197)
    """By default that of ViT."""
    readout: VectorReadoutConfig = VectorReadoutConfig(pooling="first")


class VisionModel(nn.Module):
    """Batch of pictures -> Output. `encode` stops before the readout."""

    def __init__(self, config: VisionModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder.width
        self.frontend = VisionFrontend(config.frontend, width)
        self.encoder = make_encoder(config.encoder, width)
        self.readout = VectorReadout(config.readout, width)

    def initialise(self, seed: int) -> VisionModel:
        """Draw all weights from `seed`; the same seed gives the same weights."""
        generator = torch.Generator().manual_seed(seed)
        for part in (self.frontend, self.encoder, self.readout):
            part.initialise(generator)
        return self

    def encode(self, batch: Batch, watch: Watch | None = None) -> States:
        """Vectors in context (P, D), before any readout. A `watch` is filled with what the encoder thought."""
        return self.encoder(self.frontend(batch), watch=watch)

    def forward(self, batch: Batch) -> Output:
        return self.readout(self.encode(batch), batch)


@dataclass(frozen=True)
class PartCost:
    """One line of the parameter table: `flops` are multiply-adds x 2 of a forward pass, per token."""

    name: str
    parameters: int
    flops: float


def cost_table(model: Model, *, length: int, mask_share: float = 0.15) -> list[PartCost]:
    """Parameters and forward FLOPs per token of each part, for documents of `length` tokens.

    A training step costs about three times the forward pass. The word readout, and where the encoder can do so the last
    block, work on the masked share only.
    """
    words, passes = isinstance(model.readout, WordReadout), 1
    if isinstance(model.readout, OwnPass):
        passes = model.readout.passes
    rows = [PartCost(f"frontend ({model.frontend.describe()})", count(model.frontend), model.frontend.flops())]
    for name, parameters, flops in model.encoder.costs(length, mask_share if words else 1.0):
        rows.append(PartCost(f"encoder: {name}", parameters, passes * flops))
    if isinstance(model.readout, WordReadout):
        shared = "matrix shared" if model.readout.words is None else "matrix of its own"
        rows.append(PartCost(f"readout (words, {shared})", count(model.readout), model.readout.flops(mask_share)))
    elif isinstance(model.readout, Decoder):
        size = count(model.readout)
        rows.append(PartCost("decoder (per token of the target)", size, 2.0 * (size + model.readout.borrowed)))
    elif isinstance(model.readout, OwnPass):
        rows += [PartCost(*row) for row in model.readout.costs(length, mask_share)]
    else:
        rows.append(PartCost("readout", count(model.readout), 2.0 * count(model.readout) / max(1, length)))
    return rows


def count(module: nn.Module) -> int:
    """How many numbers the module learns; a shared parameter counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def answering(model: Model, dtype: torch.dtype) -> Iterator[None]:
    """Inside, the model answers and does not learn: no dropout, no gradients, products in `dtype`."""
    model.eval()
    with torch.inference_mode(), products_in(dtype, model.device):
        yield


def load_matching(model: Model, weights: dict[str, Tensor]) -> list[str]:
    """Copy every weight whose name and shape fit; return the names of the model that found none."""
    own = model.state_dict()
    fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    return sorted(set(own) - set(fitting))


def without_companions(model: Model) -> Model:
    """The model as it is kept when learning is done, in the mode it is in: what only taught the encoder (a generator, a
    decoder, maps to a teacher) is left out. The model itself, where it has nothing of the kind."""
    readout = kept_readout(model.config.readout)
    if readout == model.config.readout:
        return model
    for part in model.modules():
        if isinstance(part, ReplacedReadout):
            part.settle()
    made = Model(model.config.model_copy(update={"readout": readout})).to(model.device)
    weights = {name.replace("readout.parts.0.", "readout.", 1): value for name, value in model.state_dict().items()}
    missing = load_matching(made, weights)
    assert not missing, f"no weights for {missing}"
    return made.train(model.training)
