"""Vectors become spans: where in its document an answer begins and ends, and the search for the best ones.

A document asks something of its context, the positions where `batch.values["context"]` counts from 1. That nothing
there answers it is a span too: the first position of the document, [CLS] (Devlin et al. 2019, section 4.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.batch import Batch, Layout, Output, States
from encodery.bricks.dropout import dropout
from encodery.bricks.layers import initialise
from encodery.bricks.pooling import sum_by_document
from encodery.bricks.products import Linear
from encodery.heads.lexical import LexicalScores
from encodery.heads.options import SpanReadoutConfig

LOWEST = -1e30
"""The score of what is no span: far below any, and still a number."""


class SpanReadout(nn.Module):
    """States -> logits (P, 2) of a begin and an end at each position, and `spans` (P, W): the score of the span that
    begins at p and has w + 1 positions, LOWEST where the context has none such. All in float32.

    The score of a span is begin + end; with `biaffine` ends also b_p^T e_q / sqrt(K) of two projections (Dozat and
    Manning 2017, equation 2; of spans: Yu et al. 2020, section 3). That there is no answer scores begin + end at the
    first position of the document, see `null_scores`. With `matches` the scores also see which tokens of the context
    stand in the question, and which of the question in the context (the exact match of DrQA, Chen et al. 2017).

    With `ngrams` a linear answer says of each document whether there is an answer at all: `parts` has its log odds
    (N,), but while learning. What it weighs beside the score of a span is `mix`, see `weighed`.
    """

    mix: Tensor

    def __init__(self, config: SpanReadoutConfig, width: int) -> None:
        super().__init__()
        self.config = config
        # The softmax over spans does not see what is added to all of their scores, so there is no bias.
        self.edges = Linear(width, 2, bias=False)
        self.pairs = Linear(width, 2 * config.rank) if config.ends == "biaffine" else None
        self.matches = Matches(width) if config.matches else None
        self.lexical = (
            LexicalScores(2, longest=config.ngrams, buckets=config.ngram_buckets, sides=True) if config.ngrams else None
        )
        if self.lexical is not None:
            self.register_buffer("mix", torch.full((2,), 0.5))

    def initialise(self, generator: torch.Generator) -> None:
        initialise(self, std=0.02, depth=1, generator=generator)
        if self.lexical is not None:
            nn.init.zeros_(self.lexical.weight)

    def forward(self, states: States, batch: Batch) -> Output:
        assert "context" in batch.values, "the data has no contexts: data.answers was not read"
        x_PD = dropout(states.vectors, self.config.drop_rate, self.training)
        with torch.autocast(x_PD.device.type, enabled=False):
            x_PD = x_PD.float()
            logits_P2 = self.edges(x_PD)
            if self.matches is not None:
                logits_P2 = logits_P2 + self.matches(x_PD, batch)
            spans_PW = logits_P2[:, :1] + ahead(logits_P2[:, 1], self.config.longest)
            if self.pairs is not None:
                begin_PK, end_PK = self.pairs(x_PD).chunk(2, dim=-1)
                # (P, 1, K) by (P, K, W): every begin by the ends of the W positions from it on.
                together = torch.bmm(begin_PK[:, None], ahead(end_PK.contiguous(), self.config.longest))[:, 0]
                spans_PW = spans_PW + together / math.sqrt(self.config.rank)
            inside_PW = span_mask(batch.values["context"], states.layout.document, self.config.longest)
            output = Output(logits_P2, spans=spans_PW.masked_fill(~inside_PW, LOWEST), balance=states.balance)
            if self.lexical is None or self.training:
                return output
            none_N, some_N = self.lexical(batch).unbind(1)
            return replace(output, parts=(some_N - none_N,))


NEAR = 5
"""Positions on both sides from which a match is seen."""


class Matches(nn.Module):
    """What tokens that stand on both sides add to the scores of begin and end: (P, 2).

    Every token has a weight, told by its vector. A position of the context sees its own match and the mean of those
    near it; the first position, no answer, the share of the question's weight that the context holds.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weigh = Linear(width, 1)
        self.context = nn.Linear(2, 2, bias=False)
        self.none = nn.Linear(1, 2, bias=False)

    def forward(self, x_PD: Tensor, batch: Batch) -> Tensor:
        layout, ids = batch.layout, batch.values["ids"]
        within_P = batch.values["context"] > 0
        asked_P = (layout.document >= 0) & ~within_P
        asked_P[layout.starts] = False
        # Equal tokens of one document have equal keys.
        key_P = layout.document * (int(ids.max()) + 1) + ids
        in_question_P = torch.isin(key_P, key_P[asked_P]) & within_P
        in_context_P = torch.isin(key_P, key_P[within_P]) & asked_P
        weight_P = torch.sigmoid(self.weigh(x_PD))[:, 0]
        match_P = weight_P * in_question_P
        sides = 2 * NEAR + 1
        around, owner = (F.pad(x, (NEAR, NEAR), value=-1).unfold(0, sides, 1) for x in (match_P, layout.document))
        near_P = (around * (owner == layout.document[:, None])).sum(1) / sides
        seen_P2 = self.context(torch.stack([match_P, near_P], 1)) * within_P[:, None]
        held_N, whole_N = (sum_by_document(weight_P * part, layout) for part in (in_context_P, asked_P))
        share_N1 = (held_N / whole_N.clamp_min(1e-6))[:, None]
        return seen_P2.index_add(0, layout.starts, self.none(share_N1))


def ahead(x: Tensor, size: int) -> Tensor:
    """What stands at p, p + 1, ... p + size - 1: (P,) -> (P, size), (P, K) -> (P, K, size); 0 behind the last."""
    padding = (0, 0) * (x.dim() - 1) + (0, size - 1)
    return F.pad(x, padding).unfold(0, size, 1)


def span_mask(context_P: Tensor, document_P: Tensor, longest: int) -> Tensor:
    """(P, W) bool: whether positions p to p + w are neighbouring tokens of one context."""
    steps = torch.arange(longest, device=context_P.device)
    on = ahead(context_P, longest) == context_P[:, None] + steps
    # Two windows of one row may stand side by side, and the second go on counting by chance: documents must agree.
    same = ahead(document_P + 1, longest) == document_P[:, None] + 1
    return on & same & (context_P > 0)[:, None]


def null_scores(logits_P2: Tensor, layout: Layout) -> Tensor:
    """The score of no answer in each document: (N,)."""
    return logits_P2[layout.starts].sum(-1)


def log_sum_by_document(x_P: Tensor, kept_P: Tensor, layout: Layout) -> Tensor:
    """log(sum(exp(x))) over the kept positions of each document, (P,) or (P, W) -> (N,); LOWEST where none is kept."""
    if x_P.dim() == 2:
        x_P = torch.logsumexp(x_P.masked_fill(~kept_P, LOWEST), dim=1)
        kept_P = kept_P.any(1)
    kept_P = kept_P & (layout.document >= 0)
    index = (layout.document + 1)[kept_P]
    x_M = x_P[kept_P]
    largest = torch.full((layout.documents + 1,), LOWEST, device=x_P.device, dtype=x_P.dtype)
    largest = largest.scatter_reduce(0, index, x_M.detach(), "amax")
    total = torch.zeros_like(largest).index_add(0, index, (x_M - largest[index]).exp())
    # Where nothing was kept the sum is 0; its logarithm must neither be infinite nor have a slope.
    empty = total == 0
    return torch.where(empty, largest, largest + total.masked_fill(empty, 1.0).log())[1:]


@dataclass(frozen=True)
class FoundSpans:
    """The best spans of some documents, best first within each: arrays of one length, numpy.

    `owner` is the document (or, merged, the row); [start, stop) are tokens of its context, counted from 0; `score` is
    how much better than no answer (a logit: 0 is as good). `null` (N,) is the score of no answer, by itself.
    """

    owner: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    score: np.ndarray
    null: np.ndarray

    def of(self, owner: int) -> slice:
        """Where the spans of one owner stand."""
        return slice(*np.searchsorted(self.owner, [owner, owner + 1]).tolist())


def best_spans(output: Output, batch: Batch, top: int) -> FoundSpans:
    """The `top` best spans of each document, fewer where its context has fewer.

    The best n spans begin at no more than n positions, and at those whose own best span is among the n best: first
    these are chosen, then the spans that begin there are compared. No loop, whatever the documents.
    """
    assert output.spans is not None and output.logits is not None, "only a span readout finds spans"
    layout, spans_PW = batch.layout, output.spans.float()
    best_P = spans_PW.amax(1)
    at_N, rank_N = _first_of_each(best_P, layout, top)
    table = torch.full((layout.documents, top), -1, dtype=torch.int64, device=best_P.device)
    table[layout.document[at_N], rank_N] = at_N
    width = spans_PW.shape[1]
    rows = spans_PW[table.clamp_min(0)].masked_fill((table < 0)[..., None], LOWEST).flatten(1)
    score_NT, cell_NT = rows.topk(min(top, rows.shape[1]), dim=1)
    owner, place = (score_NT > LOWEST / 2).nonzero(as_tuple=True)
    cell = cell_NT[owner, place]
    start = batch.values["context"][table[owner, cell // width]] - 1
    null_N = null_scores(output.logits.float(), layout)
    found = (owner, start, start + cell % width + 1, score_NT[owner, place] - null_N[owner], null_N)
    return FoundSpans(*(part.cpu().numpy() for part in found))


def _first_of_each(score_P: Tensor, layout: Layout, top: int) -> tuple[Tensor, Tensor]:
    """Positions of the `top` highest scores of each document, and their ranks in it."""
    order = torch.argsort(score_P, descending=True, stable=True)
    order = order[torch.argsort(layout.document[order], stable=True)]
    document = layout.document[order]
    counts = torch.bincount(document + 1, minlength=layout.documents + 1)
    before = torch.cumsum(counts, 0) - counts
    rank = torch.arange(len(order), device=order.device) - before[document + 1]
    kept = (document >= 0) & (rank < top) & (score_P[order] > LOWEST / 2)
    return order[kept], rank[kept]


def merge_windows(found: list[FoundSpans], uids: list[np.ndarray], rows: int, top: int) -> FoundSpans:
    """The best spans of each row from those of its windows; `uids` say which row each document is.

    A span that several windows have seen counts by the best of its scores. That a row has no answer scores as in the
    window where it is least likely (Devlin et al. 2019: windows that do not hold the answer say nothing of the row).
    """
    owner = np.concatenate([uid[one.owner] for one, uid in zip(found, uids)] or [np.zeros(0, np.int64)])
    start, stop, score = (
        np.concatenate([getattr(one, name) for one in found] or [np.zeros(0, np.int64)])
        for name in ("start", "stop", "score")
    )
    null = np.full(rows, np.inf)
    for one, uid in zip(found, uids):
        np.minimum.at(null, uid, one.null)
    order = np.lexsort((-score, stop, start, owner))
    owner, start, stop, score = (part[order] for part in (owner, start, stop, score))
    again = (np.diff(owner) == 0) & (np.diff(start) == 0) & (np.diff(stop) == 0)
    once = np.append(True, ~again)[: len(owner)]
    owner, start, stop, score = (part[once] for part in (owner, start, stop, score))
    order = np.lexsort((stop, start, -score, owner))
    owner, start, stop, score = (part[order] for part in (owner, start, stop, score))
    kept = np.arange(len(owner)) - np.searchsorted(owner, owner) < top
    return FoundSpans(owner[kept], start[kept], stop[kept], score[kept], null)


def weighed(found: FoundSpans, linear: np.ndarray | None, mix: np.ndarray | None) -> FoundSpans:
    """The same spans, their scores added up with what the linear answer says of their row (rows,), weighed by `mix`."""
    if linear is None or mix is None:
        return found
    return replace(found, score=mix[0] * found.score + mix[1] * linear[found.owner])


def probabilities(score_S: np.ndarray, temperature: float = 1.0) -> tuple[np.ndarray, float]:
    """The probability of each of the spans of one row, and that of no answer: softmax over them and it."""
    logits = np.append(score_S.astype(np.float64), 0.0) / temperature
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    return shares[:-1], float(shares[-1])
