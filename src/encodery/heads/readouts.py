"""Vectors become answers: the masked word, a label or number of a document, a vector."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from encodery.batch import Batch, Output, States
from encodery.bricks.dropout import dropout
from encodery.bricks.layers import ACTIVATIONS, initialise
from encodery.bricks.pooling import Pooling, PoolingName
from encodery.bricks.products import Linear, linear
from encodery.config import Config
from encodery.frontends.text import TextFrontend
from encodery.heads.lexical import LexicalScores


class WordReadoutConfig(Config):
    """Which word stands here: logits over the vocabulary, at the masked positions only."""

    kind: Literal["word"] = "word"
    tied: bool = True
    """Whether the output matrix is the embedding table, or one of its own."""
    activation: Literal["relu", "gelu", "gelu_tanh", "silu"] = "gelu"
    """Between the linear layer and the norm that stand before the output matrix."""
    bias: bool = True
    """Whether that linear layer and that norm carry a bias."""
    norm_epsilon: float = Field(default=1e-5, gt=0, lt=0.1)
    """Added to the variance before the square root."""


class DocumentReadoutConfig(Config):
    """One answer a document: its vectors are pooled and mapped to `outputs` numbers."""

    kind: Literal["document"] = "document"
    pooling: PoolingName = "mean"
    """first, mean, max or attention."""
    outputs: int = Field(default=2, ge=1)
    """C: classes, labels, or 1 for a number."""
    hidden: bool = False
    """Whether a linear layer with tanh stands between the pooled vector and the answer, as in BERT."""
    drop_rate: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on the pooled vector."""
    ngrams: int = Field(default=0, ge=0, le=5)
    """Beside the encoder, a linear answer from runs of up to this many tokens; 0: none."""
    ngram_buckets: int = Field(default=1 << 18, ge=1 << 8, le=1 << 26)
    """Rows of the table that runs of tokens and letters are hashed into."""
    letters: int = Field(default=0, ge=0, le=10)
    """With `ngrams`: runs of up to this many letters as well; 0: none."""


class VectorReadoutConfig(Config):
    """No answer but the document's vector itself, to be compared with others."""

    kind: Literal["vector"] = "vector"
    pooling: PoolingName = "mean"
    """first, mean, max or attention."""
    normalise: bool = True
    """Whether vectors are scaled to length 1, so that their product is the cosine."""


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
    """States -> the pooled vectors (N, D)."""

    def __init__(self, config: VectorReadoutConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.pooling = Pooling(config.pooling, width)

    def initialise(self, generator: torch.Generator) -> None:
        initialise(self, std=0.02, depth=1, generator=generator)

    def forward(self, states: States, batch: Batch) -> Output:
        del batch
        vectors_ND = self.pooling(states.summary or states)
        return Output(vectors=F.normalize(vectors_ND, dim=-1) if self.config.normalise else vectors_ND)
