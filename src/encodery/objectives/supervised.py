"""Labels given by people: one class, several labels, or a number for each text or pair of texts."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from encodery.batch import Batch, Output
from encodery.bricks.choices import PoolingName
from encodery.config import Config, Count
from encodery.data.fields import Field as DataField
from encodery.data.sources import DataConfig, Labels
from encodery.heads.options import DocumentReadoutConfig
from encodery.objectives.divergence import divergence
from encodery.objectives.masked import Loss
from encodery.trained import Task


class SupervisedConfig(Config):
    """What is asked of each document, and how its answer is scored."""

    kind: Literal["classify", "multilabel", "regress"] = "classify"
    """classify: one of several classes; multilabel: any number of labels; regress: a number."""
    pooling: PoolingName = "mean"
    """How the vectors of a text become one: first, mean, max, attention."""
    hidden: bool = False
    """An extra layer with tanh before the answer, as in BERT."""
    drop_rate: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on the pooled vector."""
    ngrams: int = Field(default=0, ge=0, le=5)
    """Beside the encoder, a linear answer from runs of up to this many tokens, fitted before training and
    mixed with the encoder's; it helps when labelled rows are few. 0: none."""
    ngram_buckets: Count = Field(default=1 << 18, ge=1 << 8, le=1 << 26)
    """Rows of the table that runs of tokens and letters are hashed into."""
    letters: int = Field(default=0, ge=0, le=10)
    """With `ngrams`: runs of letters of this length, and of the three lengths below it, count as well; 0: none."""
    class_weights: Literal["none", "balanced"] | dict[str, float] = "none"
    """Weight of each class in the loss: none, balanced (inverse to its frequency), or a number by label."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread evenly over the classes (Szegedy et al. 2016)."""

    compose: ClassVar[str] = "joined"

    @property
    def labels(self) -> Labels:
        """What the rows need as their label."""
        kinds: dict[str, Labels] = {"classify": "class", "multilabel": "classes", "regress": "number"}
        return kinds[self.kind]

    def fields(self, data: DataConfig) -> tuple[DataField, ...]:
        """What the rows need beside it."""
        del data
        return ()

    @model_validator(mode="after")
    def _letters_stand_beside_tokens(self) -> SupervisedConfig:
        if self.letters and not self.ngrams:
            raise ValueError("letters needs ngrams of 1 or more beside it")
        return self


class Supervised:
    """The objective: hides nothing, needs a document readout, scores its logits against `truth['label']`.

    classify: label (N,) int64, cross-entropy. multilabel: label (N, C) of 0 and 1, binary cross-entropy averaged
    over the labels. regress: label (N,) float, standardised by `center` and `scale`, squared error.
    """

    def __init__(
        self,
        config: SupervisedConfig,
        *,
        labels: list[str],
        counts: np.ndarray | None = None,
        center: float = 0.0,
        scale: float = 1.0,
        paired: bool = False,
    ) -> None:
        self.config = config
        self.paired = paired
        self.labels = labels
        self.center = center
        self.scale = scale
        self.weights = self._class_weights(counts)

    def readout(self) -> DocumentReadoutConfig:
        outputs = 1 if self.config.kind == "regress" else len(self.labels)
        return DocumentReadoutConfig(
            pooling=self.config.pooling,
            outputs=outputs,
            hidden=self.config.hidden,
            drop_rate=self.config.drop_rate,
            ngrams=self.config.ngrams,
            ngram_buckets=self.config.ngram_buckets,
            letters=self.config.letters,
            sides=self.paired and self.config.ngrams > 0,
        )

    def task(self) -> Task:
        """What is needed to read the answers again."""
        return Task(self.config.kind, tuple(self.labels), center=self.center, scale=self.scale)

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        del rng, progress
        return batch

    def loss(self, output: Output, batch: Batch) -> Loss:
        """Loss summed over the documents of the batch; `count` is their weight.

        Of an answer made of parts (`output.parts`) only the first, the encoder's, learns by gradient: the loss is its
        loss, and what is right is counted on the whole answer.
        """
        assert output.logits is not None
        if not output.parts:
            return self._loss(output.logits.float(), batch)
        joint = self._loss(output.logits.detach().float(), batch)
        return Loss(self._loss(output.parts[0].float(), batch).total, joint.count, joint.correct)

    def disagreement(self, one: Output, other: Output, batch: Batch) -> Tensor:
        """How far two answers to the same documents are apart, summed over them: for classes and labels the mean of the
        Kullback-Leibler divergence either way, for numbers half the squared difference."""
        del batch
        a_NC, b_NC = ((out.parts[0] if out.parts else out.logits) for out in (one, other))
        assert a_NC is not None and b_NC is not None
        if self.config.kind == "regress":
            return (a_NC.float() - b_NC.float()).square().sum() / 2
        if self.config.kind == "multilabel":
            # Each label is a choice between two, averaged over the labels as the loss is.
            a_NC, b_NC = (torch.stack([x, torch.zeros_like(x)], dim=-1) for x in (a_NC, b_NC))
            return divergence(a_NC.flatten(0, 1), b_NC.flatten(0, 1)).sum() / max(1, a_NC.shape[1])
        return divergence(a_NC, b_NC).sum()

    def _loss(self, logits_NC: Tensor, batch: Batch) -> Loss:
        label = batch.truth["label"]
        smoothing = self.config.label_smoothing
        documents = torch.tensor(float(batch.layout.documents))
        if self.config.kind == "regress":
            wanted = ((label.double() - self.center) / self.scale).float()
            return Loss((logits_NC[:, 0] - wanted).square().sum(), documents)
        weights = None if self.weights is None else self.weights.to(logits_NC.device)
        if self.config.kind == "multilabel":
            wanted = label.float() * (1 - smoothing) + smoothing / 2
            loss = F.binary_cross_entropy_with_logits(logits_NC, wanted, weight=weights, reduction="sum")
            correct = ((logits_NC > 0) == (label > 0.5)).all(dim=1).sum()
            return Loss(loss / max(1, logits_NC.shape[1]), documents, correct)
        loss = F.cross_entropy(logits_NC, label, weight=weights, label_smoothing=smoothing, reduction="sum")
        correct = (logits_NC.detach().argmax(dim=1) == label).sum()
        return Loss(loss, documents if weights is None else weights[label].sum(), correct)

    def _class_weights(self, counts: np.ndarray | None) -> torch.Tensor | None:
        if self.config.class_weights == "none" or self.config.kind == "regress":
            return None
        if self.config.class_weights == "balanced":
            assert counts is not None, "balanced class weights need the label counts of the training data"
            safe = np.maximum(counts, 1)
            return torch.tensor(safe.sum() / (safe.size * safe), dtype=torch.float32)
        given = self.config.class_weights
        return torch.tensor([given.get(label, 1.0) for label in self.labels], dtype=torch.float32)
