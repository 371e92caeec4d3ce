"""Questions whose answers stand in the text: cross-entropy of the begin and the end, or of the span as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from encodery.batch import Batch, Output
from encodery.config import Config, Count
from encodery.data.answers import AnswerField
from encodery.data.fields import Field as DataField
from encodery.data.sources import DataConfig, Labels
from encodery.heads.options import SpanReadoutConfig
from encodery.heads.spans import LOWEST, log_sum_by_document, null_scores
from encodery.objectives.masked import Loss
from encodery.trained import Task


class QuestionsConfig(Config):
    """How the answer to a question is looked for in its context."""

    kind: Literal["answer"] = "answer"
    ends: Literal["independent", "biaffine"] = "independent"
    """independent: begin and end are scored each alone; biaffine: also how well they go together."""
    rank: Count = Field(default=64, ge=1, le=1024)
    """For biaffine: numbers that a begin and an end are compared by."""
    longest: Count = Field(default=30, ge=1, le=512)
    """Tokens of the longest answer that is looked for; the report says how long those of the data are."""
    matches: bool = False
    """Whether it is told which words of the text stand in the question as well, and which of the question in the text:
    a small encoder that learns from little finds it hard to see."""
    overlap: int = Field(default=64, ge=0, le=4096)
    """Tokens that the windows of a long context share, so that an answer no longer than these stands whole in one."""
    drop_rate: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on the vectors that spans are read from."""
    ngrams: int = Field(default=0, ge=0, le=5)
    """Beside the encoder, a linear answer to whether the text answers the question, from runs of up to this many tokens
    of the two and from those that they share; fitted before training. It helps when questions are few. 0: none."""
    ngram_buckets: Count = Field(default=1 << 18, ge=1 << 8, le=1 << 26)
    """Rows of the table that these runs are hashed into."""

    @property
    def labels(self) -> Labels:
        """What the rows need as their label."""
        return "none"

    @property
    def compose(self) -> str:
        """How samples are made of the rows: windows that repeat the question."""
        return f"questions:{self.overlap}"

    def fields(self, data: DataConfig) -> tuple[DataField, ...]:
        """What the rows need beside their text and its question. Raises ValueError when it is not named."""
        if data.answers is None:
            raise ValueError("objective.kind answer needs data.answers: the column of the answers")
        if data.pair is None:
            raise ValueError(
                "objective.kind answer needs data.pair: the column of the question (data.text is the context)"
            )
        sources = (*data.train, *(data.validation or ()), *(data.test or ()))
        if any(isinstance(text, list) for text in (data.text, *(source.text for source in sources))):
            raise ValueError("objective.kind answer counts the characters of one column: data.text cannot be several")
        return (AnswerField(data.answers),)


class Questions:
    """The objective: hides nothing, needs a span readout, scores it against the answers that stand in each window.

    A window that does not hold an answer as a whole points at its first position. Of several answers any is right: the
    loss is minus the logarithm of the sum of their probabilities. `independent` ends: cross-entropy of the begin plus
    that of the end over the positions of the context and the first one (Devlin et al. 2019, sections 4.2 and 4.3).
    `biaffine`: cross-entropy over all spans of up to W positions and no answer; a window whose answers are all longer
    counts for nothing.
    """

    def __init__(self, config: QuestionsConfig) -> None:
        self.config = config

    def readout(self) -> SpanReadoutConfig:
        names = ("ends", "rank", "longest", "matches", "drop_rate", "ngrams", "ngram_buckets")
        return SpanReadoutConfig(**{name: getattr(self.config, name) for name in names})

    def task(self) -> Task:
        return Task("answer")

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        del rng, progress
        return batch

    def loss(self, output: Output, batch: Batch) -> Loss:
        """Loss summed over the documents of the batch; right are those whose most likely begin and end (or span) are
        an answer's."""
        assert output.logits is not None and output.spans is not None
        if self.config.ends == "biaffine":
            return self._of_spans(output.logits, output.spans, batch)
        logits_P2, layout = output.logits, batch.layout
        context_P = batch.values["context"]
        first_P = torch.zeros_like(context_P, dtype=torch.bool)
        first_P[layout.starts] = True
        begin_P, size_P = whole_answers(batch)
        answered_N = _any(begin_P, batch)
        unanswered_P = first_P & ~_at(answered_N, batch)
        end_P = torch.zeros_like(begin_P)
        end_P[(torch.arange(len(begin_P), device=begin_P.device) + size_P - 1)[begin_P]] = True
        total = logits_P2.new_zeros(())
        right_N = torch.ones_like(answered_N)
        for column, gold_P in enumerate((begin_P, end_P)):
            x_P, possible_P = logits_P2[:, column].float(), (context_P > 0) | first_P
            gold_P = gold_P | unanswered_P
            total = (
                total + (log_sum_by_document(x_P, possible_P, layout) - log_sum_by_document(x_P, gold_P, layout)).sum()
            )
            right_N = right_N & (_largest(x_P, gold_P, batch) >= _largest(x_P, possible_P, batch))
        return Loss(total, torch.tensor(float(layout.documents)), right_N.sum())

    def _of_spans(self, logits_P2: Tensor, spans_PW: Tensor, batch: Batch) -> Loss:
        layout, longest = batch.layout, spans_PW.shape[1]
        begin_P, size_P = whole_answers(batch)
        place = (size_P - 1).clamp(0, longest - 1)
        gold_P = spans_PW.float().gather(1, place[:, None])[:, 0]
        known_P = begin_P & (size_P <= longest)
        answered_N, known_N = _any(begin_P, batch), _any(known_P, batch)
        null_N = null_scores(logits_P2.float(), layout)
        all_N = torch.logaddexp(log_sum_by_document(spans_PW.float(), spans_PW > LOWEST / 2, layout), null_N)
        gold_N = torch.where(answered_N, log_sum_by_document(gold_P, known_P, layout), null_N)
        counts_N = known_N | ~answered_N
        best_N = torch.maximum(_largest(spans_PW.float().amax(1), batch.values["context"] > 0, batch), null_N)
        right_N = counts_N & (torch.where(answered_N, _largest(gold_P, known_P, batch), null_N) >= best_N)
        loss_N = torch.where(counts_N, all_N - gold_N, torch.zeros_like(all_N))
        return Loss(loss_N.sum(), counts_N.sum().float(), right_N.sum())


def with_answers_as_labels(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same batches, each document labelled 1 where an answer stands in it as a whole, else 0."""
    for batch in batches:
        begin_P, _ = whole_answers(batch)
        yield replace(batch, truth={**batch.truth, "label": _any(begin_P, batch).long()})


def whole_answers(batch: Batch) -> tuple[Tensor, Tensor]:
    """Where answers begin that stand in their window as a whole, (P,) bool, and how many positions they have (P,)."""
    context_P, size_P = batch.values["context"], batch.values["answer"]
    last_P = torch.arange(len(size_P), device=size_P.device) + size_P - 1
    inside = (size_P > 0) & (last_P < len(size_P))
    last_P = torch.where(inside, last_P, torch.zeros_like(last_P))
    document_P = batch.layout.document
    goes_on = (document_P[last_P] == document_P) & (context_P[last_P] == context_P + size_P - 1)
    return inside & goes_on & (context_P > 0), size_P


def _any(is_P: Tensor, batch: Batch) -> Tensor:
    """(N,) whether it holds anywhere in each document."""
    counts = torch.zeros(batch.layout.documents + 1, dtype=torch.int64, device=is_P.device)
    return counts.index_add(0, batch.layout.document + 1, is_P.long())[1:] > 0


def _at(of_N: Tensor, batch: Batch) -> Tensor:
    """What holds of each document, at its positions; False at padding."""
    return torch.cat([of_N.new_zeros(1), of_N])[batch.layout.document + 1]


def _largest(x_P: Tensor, kept_P: Tensor, batch: Batch) -> Tensor:
    """(N,) the largest of the kept positions of each document, LOWEST where none is."""
    lowest = torch.full((batch.layout.documents + 1,), LOWEST, device=x_P.device)
    kept_P = kept_P & (batch.layout.document >= 0)
    return lowest.scatter_reduce(0, (batch.layout.document + 1)[kept_P], x_P.detach()[kept_P], "amax")[1:]
