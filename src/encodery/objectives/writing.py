"""Writing a target for a source: each next token is learned with those before it given (teacher forcing)."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from encodery.batch import Batch, Output
from encodery.config import Config
from encodery.data.loader import Loader
from encodery.data.source_config import DataConfig
from encodery.data.store import TokenStore
from encodery.data.targets import TargetField, TargetFrame, TargetLoader, shape_of, target_facts
from encodery.data.tokenizers import Tokenizer, TokenizerConfig
from encodery.heads.decoding.generation_options import GenerationConfig
from encodery.heads.decoding.options import DecoderConfig
from encodery.objectives.cross_entropy import IGNORED, row_losses
from encodery.objectives.divergence import divergence
from encodery.objectives.masked import Loss
from encodery.trained import Task

MetricName = Literal["bleu", "chrf", "rouge_l"]


class WritingConfig(Config):
    """What is written, how it is learned and how it is tried out."""

    kind: Literal["write"] = "write"
    decoder: DecoderConfig = DecoderConfig()
    """What writes; by default like the encoder."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """For an own vocabulary of the decoder: the tokenizer of the targets."""
    smoothing: float | None = Field(default=None, ge=0, lt=1)
    """Label smoothing (Szegedy et al. 2016; 0.1 in "Attention Is All You Need"): 0.1 by default, 0 with a pointer."""
    most_tokens: int | None = Field(default=None, ge=4)
    """Longest target in tokens, with the one that begins it; longer ones lose their end. By default what the decoder
    can hold."""
    metric: MetricName = "bleu"
    """What runs are compared by: bleu or chrf for translations, rouge_l for summaries."""
    generation: GenerationConfig = GenerationConfig(beam=4)
    """How the held texts are written when the run is measured."""
    tried: int = Field(default=200, ge=0)
    """At each validation so many texts are written greedily, for the metric; the loss chooses the weights. 0: none."""

    compose: ClassVar[str] = "joined"

    @model_validator(mode="after")
    def _possible(self) -> WritingConfig:
        if self.decoder.pointer and self.smoothing:
            raise ValueError("with a pointer the mixture is learned as it is: leave smoothing out, or set it to 0")
        stack = self.decoder.stack
        if stack is not None and self.most_tokens is not None and stack.max_length < self.most_tokens:
            raise ValueError(f"most_tokens {self.most_tokens} is more than decoder.stack.max_length {stack.max_length}")
        return self

    @property
    def longest(self) -> int | None:
        """Positions of the longest target; None: as many as the encoder has."""
        if self.most_tokens is not None:
            return self.most_tokens
        return None if self.decoder.stack is None else self.decoder.stack.max_length

    @property
    def smoothed(self) -> float:
        """The smoothing that is used."""
        if self.smoothing is not None:
            return self.smoothing
        return 0.0 if self.decoder.pointer else 0.1

    @property
    def labels(self) -> Literal["none"]:
        """There are no labels: the target is a text of the row."""
        return "none"

    def fields(self, data: DataConfig) -> tuple[TargetField, ...]:
        """What rows carry beside their text. Raises ValueError when the recipe names no target."""
        if data.target is None:
            raise ValueError("objective.kind: write needs data.target, the column of what is to be written")
        return (target_field(data, data.target, own=self.decoder.vocabulary == "own"),)


def target_field(data: DataConfig, column: str, *, own: bool) -> TargetField:
    """The field of the targets."""
    texts = (data.text,) if isinstance(data.text, str) else tuple(data.text)
    return TargetField(column, texts, None, own)


class Writing:
    """The objective: needs a decoder, scores each token it is to write by cross-entropy."""

    def __init__(self, config: WritingConfig, store: TokenStore, tokenizer: Tokenizer, detail: dict[str, Any]) -> None:
        self.config = config
        self.store = store
        self.tokenizer = tokenizer
        self.detail = detail

    def readout(self) -> DecoderConfig:
        own = self.config.decoder.vocabulary == "own"
        return self.config.decoder.model_copy(update={"vocab_size": self.tokenizer.vocab_size if own else None})

    def task(self) -> Task:
        """What is needed to write, and to score what is written."""
        return Task("write", detail=self.detail)

    @property
    def facts(self) -> dict[str, int]:
        """What the report says of the targets."""
        return target_facts(self.store, self.tokenizer, self.config.longest or 1 << 30)

    def loader(self, loader: Loader) -> TargetLoader:
        """The loader with targets beside the sources. The lengths of its rows follow from the training rows, so they
        are the same at every call."""
        frame = TargetFrame.of(self.tokenizer, self.config.longest or loader.maker.max_length)
        shape = shape_of(self.store, loader.maker, frame, loader.budget)
        return TargetLoader(
            **{part.name: getattr(loader, part.name) for part in fields(Loader)}, frame=frame, shape=shape
        )

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        del rng, progress
        return batch

    def loss(self, output: Output, batch: Batch) -> Loss:
        """Cross-entropy summed over the tokens to be written, in nats; `correct` counts those that were the likeliest.
        The part `surprise` is without smoothing."""
        assert batch.target is not None
        wanted = batch.target.truth["target"]
        loss_P, surprise_P, right_P = writing_losses(output, wanted, self.config.smoothed)
        count = (wanted != IGNORED).sum()
        parts = {"surprise": surprise_P.sum() / count.clamp_min(1)} if self.config.smoothed else {}
        return Loss(loss_P.sum(), count, right_P.sum(), parts)

    def disagreement(self, one: Output, other: Output, batch: Batch) -> torch.Tensor:
        """How far two answers are apart in what they would write next, summed over the tokens to be written."""
        assert batch.target is not None and one.logits is not None and other.logits is not None
        written = (batch.target.truth["target"] != IGNORED).nonzero()[:, 0]
        return divergence(one.logits[written], other.logits[written]).sum()


def writing_losses(
    output: Output, target_P: torch.Tensor, smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, surprise in nats and whether it was the likeliest, of each token that is to be written: (P,); 0 elsewhere.

    Where words can be copied the surprise is that of the mixture, -log(g p_vocabulary + (1 - g) p_copied)
    (See et al. 2017, equations 9 and 6).
    """
    assert output.logits is not None
    loss_P, surprise_P, right_P = row_losses(output.logits, target_P, smoothing)
    if output.copied is None:
        return loss_P, surprise_P, right_P
    gate_P, copied_P = output.copied
    mixed_P = gate_P * torch.exp(-loss_P) + (1 - gate_P) * copied_P
    loss_P = -torch.log(mixed_P.clamp_min(1e-12)) * (target_P != IGNORED)
    return loss_P, loss_P.detach(), right_P
