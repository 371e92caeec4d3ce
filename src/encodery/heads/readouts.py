"""Vectors become answers: the masked word, a label or number of a document, a vector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.batch import Batch, Output, States
from encodery.bricks.dropout import dropout
from encodery.bricks.layers import ACTIVATIONS, initialise
from encodery.bricks.pooling import Pooling
from encodery.bricks.products import Linear, linear
from encodery.frontends.text import TextFrontend
from encodery.heads.late_interaction import LearnedScale
from encodery.heads.lexical import LexicalScores
from encodery.heads.options import DenseConfig, DocumentReadoutConfig, VectorReadoutConfig, WordReadoutConfig

DENSE_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **{name: ACTIVATIONS[name] for name in ("relu", "gelu", "silu")},
    "none": lambda x: x,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class WordReadout(nn.Module):
    """States of the masked positions (M, D) -> logits (M, V) (Devlin et al. 2019, section 3.1).

    Only the masked positions are asked for: the product with the vocabulary is the largest of the model. The output
    matrix is the embedding table (Press and Wolf 2017), asked of the frontend so that it is one parameter.
    """

    def __init__(self, config: WordReadoutConfig, width: int, frontend: TextFrontend) -> None:
        super().__init__()
        self.transform = Linear(width, frontend.width, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]
        self.norm = nn.LayerNorm(frontend.width, eps=config.norm_epsilon, bias=config.bias)
        self.bias = nn.Parameter(torch.zeros(frontend.vocab_size))
        self.words = None if config.tied else nn.Parameter(torch.empty(frontend.vocab_size, frontend.width))
        # Kept outside the module's parameters: they belong to the model.
        self._frontend = [frontend]

    def initialise(self, generator: torch.Generator) -> None:
        initialise(self, std=0.02, depth=1, generator=generator)

    def flops(self, share: float) -> float:
        """Forward FLOPs per token when a `share` of the positions is asked for."""
        frontend = self._frontend[0]
        return share * 2.0 * frontend.width * (self.transform.in_features + frontend.vocab_size)

    def forward(self, states: States, batch: Batch) -> Output:
        del batch
        x_ME = self.norm(self.activation(self.transform(states.vectors)))
        matrix_VE = self._frontend[0].matrix() if self.words is None else self.words
        return Output(logits=linear(x_ME, matrix_VE, self.bias), balance=states.balance)


class DocumentReadout(nn.Module):
    """States -> logits (N, C) and the pooled vectors (N, D). `vocabulary` (V) is needed for runs of letters."""

    mix: Tensor

    def __init__(self, config: DocumentReadoutConfig, width: int, vocabulary: int = 0) -> None:
        super().__init__()
        self.config = config
        self.pooling = Pooling(config.pooling, width)
        self.hidden = Linear(width, width) if config.hidden else None
        self.answer = Linear(width, config.outputs)
        self.lexical = (
            LexicalScores(
                config.outputs,
                longest=config.ngrams,
                buckets=config.ngram_buckets,
                letters=config.letters,
                vocabulary=vocabulary,
                sides=config.sides,
            )
            if config.ngrams
            else None
        )
        if self.lexical is not None:
            # What each of the two answers weighs; fitted on validation rows when training is done.
            self.register_buffer("mix", torch.full((2,), 0.5))

    def initialise(self, generator: torch.Generator) -> None:
        initialise(self, std=0.02, depth=1, generator=generator)
        if self.lexical is not None:
            nn.init.zeros_(self.lexical.weight)

    def forward(self, states: States, batch: Batch) -> Output:
        vectors_ND = self.pooling(states.summary or states)
        x_ND: Tensor = vectors_ND
        # The last step runs in float32: it is tiny, and N changes from batch to batch.
        with torch.autocast(x_ND.device.type, enabled=False):
            if self.hidden is not None:
                x_ND = torch.tanh(self.hidden(x_ND))
            logits_NC = self.answer(dropout(x_ND, self.config.drop_rate, self.training))
            if self.lexical is None:
                return Output(logits_NC, vectors_ND, balance=states.balance)
            lexical_NC = self.lexical(batch)
            mixed_NC = self.mix[0] * logits_NC + self.mix[1] * lexical_NC
            return Output(mixed_NC, vectors_ND, (logits_NC, lexical_NC), states.balance)


class VectorReadout(nn.Module):
    """States -> one vector a document: pooled, then through the linear layers of `dense`, (N, D) or (N, outputs)."""

    def __init__(self, config: VectorReadoutConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.pooling = Pooling(config.pooling, width)
        widths = [width, *(layer.outputs for layer in config.dense)]
        self.width = widths[-1]
        self.dense = _layers(width, config.dense)
        self.first_dense = None if config.first_dense is None else _layers(width, config.first_dense)
        self.scale = None if config.scale is None else LearnedScale(config.scale)

    def initialise(self, generator: torch.Generator) -> None:
        initialise(self, std=0.02, depth=1, generator=generator)

    def vectors(self, states: States, parts: np.ndarray | None = None) -> Tensor:
        """Before they are scaled to length 1. `parts` (N,) tell which text of its row each document is, 0 for the
        first; without them all are first ones."""
        pooled_ND = self.pooling(states.summary or states)
        # The last steps run in float32: they are tiny, and N changes from batch to batch.
        with torch.autocast(pooled_ND.device.type, enabled=False):
            x_ND = _through(pooled_ND, self.dense, self.config.dense)
            if self.first_dense is None or self.config.first_dense is None:
                return x_ND
            first_ND = _through(pooled_ND, self.first_dense, self.config.first_dense)
            if parts is None:
                return first_ND
            is_first = torch.from_numpy(parts == 0).to(x_ND.device)
            return torch.where(is_first[:, None], first_ND, x_ND)

    def forward(self, states: States, batch: Batch) -> Output:
        vectors = self.vectors(states, batch.parts)
        scale = None if self.scale is None else self.scale()
        normal = F.normalize(vectors, dim=-1) if self.config.normalise else vectors
        return Output(vectors=normal, scale=scale, balance=states.balance)


def _layers(width: int, config: tuple[DenseConfig, ...]) -> nn.ModuleList:
    widths = [width, *(layer.outputs for layer in config)]
    return nn.ModuleList(Linear(inputs, layer.outputs, bias=layer.bias) for inputs, layer in zip(widths, config))


def _through(x_ND: Tensor, layers: nn.ModuleList, config: tuple[DenseConfig, ...]) -> Tensor:
    for layer, one in zip(layers, config):
        x_ND = DENSE_ACTIVATIONS[one.activation](layer(x_ND))
    return x_ND
