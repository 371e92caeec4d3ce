"""Every kind of encoder by its config, and what all of them have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from encodery.batch import States
from encodery.encoders.hierarchical import HierarchicalAttention, HierarchicalTransformer, make_hierarchical
from encodery.encoders.hierarchical_options import HierarchicalConfig
from encodery.encoders.options import TransformerConfig
from encodery.encoders.recurrent import Recurrent, RecurrentConfig
from encodery.encoders.transformer import Transformer
from encodery.encoders.watch import Watch

EncoderConfig = Annotated[TransformerConfig | RecurrentConfig | HierarchicalConfig, Field(discriminator="kind")]


class Encoder(Protocol):
    """States -> States."""

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """Its layers, in the order of their use: what is trained at rates of its own and compiled. What else it has
        belongs to the layers that it was made after."""
        ...

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights from the generator."""
        ...

    def __call__(self, states: States, at: Tensor | None = None, watch: Watch | None = None) -> States:
        """The vectors in context of all positions, or with `at` (M,) of these alone."""
        ...

    def memory(self, length: int) -> tuple[float, float]:
        """Rough numbers for each position: kept for the gradient, and the widest moment of use."""
        ...

    def costs(self, length: int, last_share: float) -> list[tuple[str, int, float]]:
        """Name, parameters and forward FLOPs per token of each part, for documents of `length` tokens, when vectors are
        asked for at a share of the positions."""
        ...


def asks_for_ends(config: EncoderConfig) -> bool:
    """Whether the encoder must be told which tokens end sentences."""
    return isinstance(config, HierarchicalConfig) and config.segment_at == "sentences"


def with_dropout(config: EncoderConfig, drop_rate: float, attention_drop_rate: float | None = None) -> EncoderConfig:
    """The same encoder with other dropout; attention's stays as it is when it is not given."""
    wanted = {"drop_rate": drop_rate, "attention_drop_rate": attention_drop_rate}
    fitting = {key: rate for key, rate in wanted.items() if rate is not None and key in type(config).model_fields}
    return config.model_copy(update=fitting)


def make_encoder(
    config: EncoderConfig, input_width: int
) -> Transformer | Recurrent | HierarchicalAttention | HierarchicalTransformer:
    """The encoder of a config, without weights of its own yet, for vectors of `input_width` numbers."""
    if isinstance(config, HierarchicalConfig):
        return make_hierarchical(config, input_width)
    if isinstance(config, RecurrentConfig):
        return Recurrent(config, input_width)
    return Transformer(config, input_width)
