"""A student's vectors beside a teacher's: each mapped to the teacher's width by a matrix that learns with it.

    hidden       H_student W against H_teacher, at the embeddings and after each block     TinyBERT, Jiao et al. 2020,
                 of the student, each with its block of the teacher                        section 3
    attention    the shares with which tokens look at each other, in the last block        MiniLM, Wang et al. 2020, 3.1
    vectors      one vector a document                                                     Reimers and Gurevych 2020

The matrices are thrown away when learning is done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encodery.batch import Batch, Output
from encodery.bricks.layers import initialise
from encodery.bricks.pooling import Pooling
from encodery.bricks.products import Linear
from encodery.encoders.kinds import EncoderConfig
from encodery.encoders.options import TransformerConfig
from encodery.encoders.recurrent import RecurrentConfig
from encodery.encoders.watch import Watch
from encodery.errors import ConfigError
from encodery.heads.options import DistilReadoutConfig
from encodery.heads.passes import Encode, OwnPass, parameters_of


@dataclass(frozen=True)
class DistilOutput(Output):
    """`hidden`, (P, teacher's D) for the embeddings and each block of the student; `attention`, the shares (H, n, n) of
    each document in the last block; `vectors` (N, D) of the student, and `mapped` (N, teacher's) to be compared."""

    hidden: tuple[Tensor, ...] = ()
    attention: tuple[Tensor, ...] = ()
    mapped: Tensor | None = None


def teacher_block(block: int, depth: int, teacher_depth: int) -> int:
    """The block of the teacher, from 0 for the embeddings, that `block` of a student with `depth` blocks learns from:
    evenly spread, the last from the last (TinyBERT's uniform mapping)."""
    return round(block * teacher_depth / depth) if depth else 0


def check_comparable(config: EncoderConfig, match: tuple[str, ...], whose: str) -> None:
    """Raises ConfigError where an encoder has no such things as are to be compared, token by token."""
    fitting: dict[str, bool] = {
        "hidden": isinstance(config, RecurrentConfig)
        or (isinstance(config, TransformerConfig) and not config.halve_after),
        "attention": isinstance(config, TransformerConfig) and config.depth > 0 and not config.halve_after,
        "vectors": True,
    }
    for name in match:
        if not fitting[name]:
            raise ConfigError(
                f"objective.match has {name}, and the {whose} is an encoder of kind {config.kind} that has none to "
                "compare token by token",
                expected="match: [vectors], which every encoder has",
            )


class DistilReadout(OwnPass):
    """Batch -> DistilOutput."""

    def __init__(self, config: DistilReadoutConfig, encoder: EncoderConfig) -> None:
        super().__init__()
        check_comparable(encoder, config.match, "student")
        self.config = config
        width = encoder.width
        self.pooling = Pooling(config.pooling, width)
        levels = 1 + encoder.depth if "hidden" in config.match else 0
        self.hidden = nn.ModuleList(Linear(width, config.teacher_width) for _ in range(levels))
        self.vector = Linear(width, config.teacher_vector) if "vectors" in config.match else None

    def initialise(self, generator: torch.Generator) -> None:
        for part in (self.pooling, self.hidden, *([] if self.vector is None else [self.vector])):
            initialise(part, std=1 / math.sqrt(self.config.teacher_width), depth=1, generator=generator)

    def costs(self, length: int, share: float) -> list[tuple[str, int, float]]:
        del share
        matrices = sum(2.0 * part.weight.numel() for part in self.hidden if isinstance(part, Linear))
        vector = 0.0 if self.vector is None else 2.0 * self.vector.weight.numel() / max(1, length)
        number = parameters_of(self.hidden, self.vector)
        return [
            ("readout (vectors)", parameters_of(self.pooling), 0.0),
            ("maps to the teacher (thrown away)", number, matrices + vector),
        ]

    def run(self, encode: Encode, batch: Batch) -> DistilOutput:
        watch = Watch(live=True) if {"hidden", "attention"} & set(self.config.match) else None
        states = encode(batch, watch=watch)
        vectors_ND = self.pooling(states.summary or states)
        mapped = None if self.vector is None else self.vector(vectors_ND)
        hidden: tuple[Tensor, ...] = ()
        attention: tuple[Tensor, ...] = ()
        if watch is not None and self.hidden:
            # After the last block the vectors have passed its norm: that is what readers of the encoder see.
            hidden = tuple(part(x) for part, x in zip(self.hidden, [*watch.hidden[:-1], states.vectors]))
        if watch is not None and "attention" in self.config.match:
            attention = tuple(watch.weights[-1])
        return DistilOutput(
            vectors=vectors_ND, balance=states.balance, hidden=hidden, attention=attention, mapped=mapped
        )
