"""Causal language modelling: each token is learned from those before it, at every position of the encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch

from encodery.batch import Batch, Output
from encodery.config import Config
from encodery.data.fields import Field as DataField
from encodery.data.sources import DataConfig, Labels
from encodery.encoders.kinds import EncoderConfig
from encodery.encoders.options import TransformerConfig
from encodery.encoders.recurrent import RecurrentConfig
from encodery.heads.decoding.generation_options import GenerationConfig
from encodery.heads.options import WordReadoutConfig
from encodery.objectives.cross_entropy import IGNORED, cross_entropy
from encodery.objectives.masked import Loss
from encodery.trained import Task


class CausalConfig(Config):
    """A language model: an encoder that sees only what stands before, and the next token at each position."""

    kind: Literal["causal"] = "causal"
    generation: GenerationConfig = GenerationConfig(sample=True, top_p=0.9)
    """How it goes on from a prompt when nothing else is asked for."""
    compose: ClassVar[str] = "joined"

    @property
    def labels(self) -> Labels:
        """What the rows need as their label."""
        return "none"

    def fields(self, data: DataConfig) -> tuple[DataField, ...]:
        """What the rows need beside their text."""
        del data
        return ()


def forward_problem(encoder: EncoderConfig) -> str:
    """Why an encoder cannot be a language model, and what would do; empty where it can."""
    if isinstance(encoder, TransformerConfig):
        if encoder.pattern == "causal":
            return ""
        return f"objective.kind: causal needs encoder.pattern: causal; {encoder.pattern} sees the token to be guessed"
    if isinstance(encoder, RecurrentConfig):
        if encoder.directions == "forward":
            return ""
        return "objective.kind: causal needs encoder.directions: forward; both see the token to be guessed"
    return "objective.kind: causal needs encoder.kind: transformer with pattern: causal, or recurrent with forward"


class Causal:
    """The objective: needs a word readout at every position, scores the token that follows by cross-entropy.

    A text begins and ends with special tokens: its first token follows the one, and the other tells that it ends. A
    text that fills all positions was cut there, so its end is not learned.
    """

    def __init__(self, config: CausalConfig, max_length: int) -> None:
        self.config = config
        self.max_length = max_length

    def readout(self) -> WordReadoutConfig:
        return WordReadoutConfig()

    def task(self) -> Task:
        """What is needed to go on from a prompt."""
        return Task("causal", detail={"generation": self.config.generation.model_dump(mode="json")})

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        """`truth` gets `at` (P,), every position, and `target` (P,), the token that follows there."""
        del rng, progress
        layout, ids = batch.layout, batch.values["ids"].numpy()
        document = layout.document.numpy()
        target = np.full(ids.size, IGNORED, dtype=np.int64)
        follows = (document[:-1] == document[1:]) & (document[:-1] >= 0)
        target[:-1][follows] = ids[1:][follows]
        full = layout.lengths.numpy() >= self.max_length
        target[(layout.starts + layout.lengths - 2).numpy()[full]] = IGNORED
        truth = {"at": torch.arange(ids.size), "target": torch.from_numpy(target)}
        return replace(batch, truth={**batch.truth, **truth})

    def loss(self, output: Output, batch: Batch) -> Loss:
        """Cross-entropy summed over the tokens, in nats; `correct` counts those that were the likeliest."""
        assert output.logits is not None
        target = batch.truth["target"]
        total, correct = cross_entropy(output.logits, target)
        return Loss(total, (target != IGNORED).sum(), correct)
