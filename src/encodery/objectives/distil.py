"""Distillation: a student encoder learns to see texts as a teacher does, which may be wider and deeper.

    hidden       mean square of H_student W - norm(H_teacher), for the embeddings and each block
    attention    KL(A_teacher || A_student) in the last block, a mean over heads and tokens
    vectors      1 - cosine of the vectors of documents

TinyBERT (Jiao et al. 2020, section 3) for hidden vectors, but the teacher's get mean 0 and deviation 1, so that blocks
weigh alike; MiniLM (Wang et al. 2020, section 3.1) for attention, where heads that differ in number meet in their mean;
Reimers and Gurevych 2020 for vectors, who take the squared distance.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from encodery.batch import Batch, Output, States
from encodery.bricks.choices import PoolingName
from encodery.bricks.pooling import Pooling
from encodery.encoders.watch import Watch
from encodery.heads.distil import DistilOutput, check_comparable, teacher_block
from encodery.heads.options import DistilReadoutConfig, MatchName
from encodery.heads.readouts import VectorReadout
from encodery.model import Model
from encodery.objectives.masked import Loss
from encodery.objectives.texts_alone import TextsAlone
from encodery.typed_paths import a_path


class DistilConfig(TextsAlone):
    """Whom the encoder learns from, and what of it."""

    kind: Literal["distil"] = "distil"
    teacher: Annotated[str, a_path] = Field(min_length=1)
    """Model folder of the teacher; its tokenizer is that of the run."""
    match: tuple[MatchName, ...] = ("hidden",)
    """What is learned: hidden (vectors between blocks), attention (of the last block), vectors (of documents)."""
    hidden_weight: float = Field(default=1.0, gt=0, le=1000)
    """Of the loss of hidden vectors."""
    attention_weight: float = Field(default=1.0, gt=0, le=1000)
    """Of the loss of attention."""
    vector_weight: float = Field(default=1.0, gt=0, le=1000)
    """Of the loss of documents' vectors."""
    pooling: PoolingName = "mean"
    """For vectors: how those of a text become one in the student. The teacher pools as it was trained to, else by
    their mean."""

    @model_validator(mode="after")
    def _something_to_match(self) -> DistilConfig:
        if not self.match or len(set(self.match)) < len(self.match):
            raise ValueError("match must name at least one of hidden, attention, vectors, each once")
        return self


class Distil:
    """The objective: hides nothing, has a readout with the matrices between student and teacher. The teacher belongs to
    the objective: it is part of the truth, learns nothing, and is in no checkpoint."""

    def __init__(self, config: DistilConfig, teacher: Model) -> None:
        check_comparable(teacher.config.encoder, config.match, "teacher")
        self.config = config
        self.teacher = teacher.eval().requires_grad_(False)
        width = teacher.config.encoder.width
        own = teacher.readout if isinstance(teacher.readout, VectorReadout) else None
        self._pooling = None if own is not None else Pooling("mean", width)
        self.vector_width = width if own is None else own.width

    def readout(self) -> DistilReadoutConfig:
        encoder = self.teacher.config.encoder
        return DistilReadoutConfig(
            match=self.config.match,
            pooling=self.config.pooling,
            teacher_width=encoder.width,
            teacher_depth=encoder.depth,
            teacher_vector=self.vector_width,
        )

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        del rng, progress
        return batch

    def loss(self, output: Output, batch: Batch) -> Loss:
        """The weighted sum of what is compared, each a mean over tokens or documents; `count` is the real tokens."""
        assert isinstance(output, DistilOutput)
        self.teacher.to(batch.layout.document.device)
        match, config = self.config.match, self.config
        watch = Watch() if {"hidden", "attention"} & set(match) else None
        with torch.no_grad():
            states = self.teacher.encode(batch, watch)
        count = batch.layout.lengths.sum()
        total = torch.zeros((), device=count.device)
        parts: dict[str, Tensor] = {}
        if "hidden" in match and watch is not None:
            wanted = [*watch.hidden[:-1], states.vectors.float()]
            found, cosine = hidden_loss(output.hidden, wanted, batch.layout.document >= 0)
            total = total + config.hidden_weight * found
            parts |= {"hidden_loss": found.detach(), "hidden_cosine": cosine}
        if "attention" in match and watch is not None:
            found = attention_loss(output.attention, watch.weights[-1], count)
            total = total + config.attention_weight * found
            parts["attention_loss"] = found.detach()
        if "vectors" in match:
            assert output.mapped is not None
            cosine = F.cosine_similarity(output.mapped.float(), self._vectors(states), dim=-1)
            found = (1 - cosine).sum() / max(1, len(cosine))
            total = total + config.vector_weight * found
            parts["vector_cosine"] = cosine.detach().sum() / max(1, len(cosine))
        return Loss(total * count, count, parts=parts)

    def _vectors(self, states: States) -> Tensor:
        """The teacher's vector of each document, (N, teacher's)."""
        with torch.no_grad():
            if self._pooling is not None:
                return self._pooling(states.summary or states)
            assert isinstance(self.teacher.readout, VectorReadout)
            return self.teacher.readout.vectors(states)


def hidden_loss(student: tuple[Tensor, ...], teacher: list[Tensor], real_P: Tensor) -> tuple[Tensor, Tensor]:
    """The mean square difference over real positions, numbers and blocks, and the mean cosine of the last ones.

    `student` (P, D) for the embeddings and each of its blocks, already mapped to the teacher's width; `teacher` (P, D)
    for its embeddings and blocks.
    """
    depth, weight = len(student) - 1, real_P.float() / real_P.sum().clamp_min(1)
    total = torch.zeros((), device=real_P.device)
    cosine = total
    for block, mine in enumerate(student):
        wanted = teacher[teacher_block(block, depth, len(teacher) - 1)].float()
        wanted = F.layer_norm(wanted, wanted.shape[-1:])
        total = total + ((mine.float() - wanted).square().mean(-1) * weight).sum() / len(student)
        cosine = (F.cosine_similarity(mine.detach().float(), wanted, dim=-1) * weight).sum()
    return total, cosine


def attention_loss(student: tuple[Tensor, ...], teacher: list[Tensor], count: Tensor) -> Tensor:
    """KL(teacher || student) in nats, a mean over the heads and `count` tokens. Both give (H, n, n) for each document;
    what a token cannot see has no share in either."""
    total = torch.zeros((), device=count.device)
    for mine, wanted in zip(student, teacher):
        if len(mine) != len(wanted):
            mine, wanted = mine.mean(0, keepdim=True), wanted.mean(0, keepdim=True)
        apart = torch.xlogy(wanted, wanted) - wanted * mine.clamp_min(1e-9).log()
        total = total + apart.sum() / len(mine)
    return total / count.clamp_min(1)
