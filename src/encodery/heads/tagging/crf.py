"""Linear-chain conditional random field over ragged documents: partition function, marginals, best path, spans.

A document of tags y_1 .. y_n has the score (Lafferty et al. 2001; Lample et al. 2016, section 2.2)

    begin[y_1] + sum_t emission[t, y_t] + sum_t between[y_t, y_t+1] + end[y_n]

Units of all documents lie one after the other, (U, C); `document_U` numbers their documents, ascending. The loops go
over positions, never over documents: these are sorted by length, so that those still running are always the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOST_BELOW = 700
"""exp of minus this is the smallest that float64 holds, nearly."""
_FEW = 4
"""Tags that can come from no more than so many others are looked at together."""


class Chain(NamedTuple):
    """What neighbouring tags say: `begin` (C,), `end` (C,), `between` (C, C) [before, after]; -inf is forbidden."""

    begin: Tensor
    end: Tensor
    between: Tensor


@dataclass(frozen=True)
class Steps:
    """Documents laid along time: `index` (2, T, N) is the unit of each step, read forwards and backwards, U where a
    document is over; documents come longest first. `running` says how many of them each step still has, and
    `order` (N,) which; documents without units are left out."""

    index: Tensor
    running: list[int]
    order: Tensor
    first: Tensor
    last: Tensor
    documents: int


def lay_out(document_U: Tensor, documents: int) -> Steps:
    """The Steps of units that belong to these documents."""
    lengths = torch.bincount(document_U, minlength=documents)
    starts = lengths.cumsum(0) - lengths
    lengths, order = lengths.sort(descending=True, stable=True)
    kept = int((lengths > 0).sum())
    lengths, order = lengths[:kept], order[:kept]
    first = starts[order]
    last = first + lengths - 1
    time = torch.arange(int(lengths[0]) if kept else 0, device=document_U.device)[:, None]
    going = time < lengths
    index = torch.stack([first + time, last - time]).masked_fill(~going, document_U.numel())
    return Steps(index, going.sum(1).tolist(), order, first, last, documents)


def log_partition(emission_UC: Tensor, chain: Chain, steps: Steps) -> Tensor:
    """log of the sum of exp(score) over all paths of each document (N,), 0 for documents without units.

    Differentiable by emissions and chain; the gradient is made of the marginals (forward-backward), not by going back
    through the steps.
    """
    return cast(Tensor, _LogPartition.apply(emission_UC, *chain, steps))


def path_score(emission_UC: Tensor, tag_U: Tensor, chain: Chain, steps: Steps, document_U: Tensor) -> Tensor:
    """The score of one path a document, (N,)."""
    per_unit = emission_UC.double().gather(1, tag_U[:, None])[:, 0]
    total = per_unit.new_zeros(steps.documents).index_add(0, document_U, per_unit)
    inside = document_U[1:] == document_U[:-1]
    before, after, owner = tag_U[:-1][inside], tag_U[1:][inside], document_U[1:][inside]
    total = total.index_add(0, owner, chain.between.double()[before, after])
    ends = chain.begin.double()[tag_U[steps.first]] + chain.end.double()[tag_U[steps.last]]
    return total.index_add(0, steps.order, ends)


class Passes(NamedTuple):
    """Forward and backward scores (U, C), the emission of the unit in both, and log Z (N,); all float64."""

    forward: Tensor
    backward: Tensor
    log_z: Tensor


def forward_backward(emission_UC: Tensor, chain: Chain, steps: Steps) -> Passes:
    """Both passes at once: the backward one is the forward one of the reversed documents.

    A step adds up exp(score) as a product of matrices in float64, the largest score of each document taken off. That
    loses what lies more than 700 nats below the best. In the schemes of data/tags.py every tag can be left for every
    other within three steps, so scores of one unit differ by no more than four steps can make them; where that may be
    too much, sums are done in logarithms.
    """
    widest = _width(emission_UC, dim=1) + max(_width(part.flatten(), dim=0) for part in chain)
    return _passes(emission_UC, chain, steps, exact=not 4 * widest < LOST_BELOW)


def _width(scores: Tensor, dim: int) -> float:
    """The largest difference between finite scores."""
    if not scores.numel():
        return 0.0
    forbidden = scores == -torch.inf
    lowest = scores.masked_fill(forbidden, torch.inf).amin(dim)
    return float((scores.amax(dim) - lowest).max())


def _passes(emission_UC: Tensor, chain: Chain, steps: Steps, *, exact: bool) -> Passes:
    emission = emission_UC.detach().double()
    units, tags = emission.shape
    begin, end, between = (part.detach().double() for part in chain)
    steep = torch.stack([between, between.T])
    laid = torch.cat([emission, emission.new_zeros(1, tags)])[steps.index]
    scores = torch.empty_like(laid)
    weights = steep.exp()
    for time, running in enumerate(steps.running):
        if time == 0:
            scores[:, 0] = laid[:, 0] + torch.stack([begin, end])[:, None]
            continue
        before = scores[:, time - 1, :running]
        if exact:
            arrived = torch.logsumexp(before[..., None] + steep[:, None], dim=2)
        else:
            largest = before.amax(-1, keepdim=True)
            arrived = torch.bmm((before - largest).exp(), weights).log() + largest
        scores[:, time, :running] = arrived + laid[:, time, :running]
    flat = emission.new_empty(2, units + 1, tags)
    flat.scatter_(1, steps.index.flatten(1)[..., None].expand(-1, -1, tags), scores.flatten(1, 2))
    forward, backward = flat[0, :units], flat[1, :units]
    log_z = emission.new_zeros(steps.documents)
    log_z[steps.order] = torch.logsumexp(forward[steps.last] + end, dim=1)
    return Passes(forward, backward, log_z)


def marginals(emission_UC: Tensor, chain: Chain, document_U: Tensor, documents: int) -> Tensor:
    """The probability of each tag at each unit, (U, C) float64."""
    passes = forward_backward(emission_UC, chain, lay_out(document_U, documents))
    return _unit_marginals(passes, emission_UC, document_U)


def _unit_marginals(passes: Passes, emission_UC: Tensor, document_U: Tensor) -> Tensor:
    return (passes.forward + passes.backward - emission_UC.detach().double() - passes.log_z[document_U][:, None]).exp()


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, emission_UC: Tensor, begin_C: Tensor, end_C: Tensor, between_CC: Tensor, steps: Steps
    ) -> Tensor:
        chain = Chain(begin_C, end_C, between_CC)
        passes = forward_backward(emission_UC, chain, steps)
        ctx.save_for_backward(emission_UC, between_CC, *passes)
        ctx.steps = steps
        return passes.log_z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        emission_UC, between_CC, forward, backward, log_z = ctx.saved_tensors
        steps: Steps = ctx.steps
        # The number of its document for each unit: the documents stand in the order of their first units.
        number = torch.zeros(len(emission_UC), dtype=torch.int64, device=emission_UC.device)
        number[steps.first] = 1
        in_order = steps.order[steps.first.argsort()]
        document_U = in_order[number.cumsum(0) - 1]
        weight_U1 = grads[0].double()[document_U][:, None]
        share_UC = _unit_marginals(Passes(forward, backward, log_z), emission_UC, document_U) * weight_U1
        inside = document_U[1:] == document_U[:-1]
        # P(i, j) = exp(forward_t[i] + between[i, j] + backward_t+1[j] - log Z), added up over all neighbours.
        before, after = forward[:-1][inside], backward[1:][inside]
        largest = before.amax(1, keepdim=True)
        left = (before - largest).exp() * weight_U1[1:][inside]
        right = (after + largest - log_z[document_U[1:][inside]][:, None]).clamp_max(600).exp()
        pairs_CC = (left.T @ right) * between_CC.double().exp()
        found = (share_UC, share_UC[steps.first].sum(0), share_UC[steps.last].sum(0), pairs_CC)
        dtype = emission_UC.dtype
        return *(grad.to(dtype if place == 0 else between_CC.dtype) for place, grad in enumerate(found)), None


def viterbi(emission_UC: Tensor, chain: Chain, document_U: Tensor, documents: int) -> tuple[Tensor, Tensor]:
    """The best path of each document: its tags (U,) and its score (N,) (Viterbi 1967)."""
    steps = lay_out(document_U, documents)
    emission = emission_UC.detach()
    emission = emission if emission.dtype == torch.float64 else emission.float()
    units, tags = emission.shape
    begin, end, between = (part.detach().to(emission.dtype) for part in chain)
    score = torch.zeros(documents, dtype=torch.float64, device=emission.device)
    if not units:
        return document_U.new_zeros(0), score
    moves = _Moves(between)
    laid = torch.cat([emission, emission.new_zeros(1, tags)])[steps.index[0]]
    best = laid[0] + begin
    came_from = document_U.new_zeros(laid.shape)
    total = score[steps.order]
    for time, running in enumerate(steps.running[1:], start=1):
        # The best so far is taken off, so that scores stay small and exact however long the document is.
        highest = best[:running].amax(1, keepdim=True)
        step, came_from[time, :running] = moves.best(best[:running] - highest)
        best[:running] = step + laid[time, :running]
        total[:running] += highest[:, 0]
    last, now = (best + end).max(dim=1)
    score[steps.order] = total + last
    path = document_U.new_zeros(units + 1)
    # Back in time: a document joins at its last step.
    for time in reversed(range(len(steps.running))):
        running = steps.running[time]
        path[steps.index[0, time, :running]] = now[:running]
        if time:
            now[:running] = came_from[time, :running].gather(1, now[:running, None])[:, 0]
    return path[:units], score


class _Moves:
    """Which tags each tag can come from. Tags that can come from the same ones are looked at together, those that can
    come from few all at once: of the pairs of BIOES three quarters are forbidden and cost nothing."""

    def __init__(self, between: Tensor) -> None:
        self.tags = len(between)
        sets, group = torch.unique((between > -torch.inf).T, dim=0, return_inverse=True)
        self.large: list[tuple[Tensor, Tensor, Tensor]] = []
        few: list[Tensor] = []
        for number, members in enumerate(sets):
            after, before = (group == number).nonzero()[:, 0], members.nonzero()[:, 0]
            if len(before) <= _FEW:
                few.append(after)
            else:
                self.large.append((after, before, between[before][:, after].T.contiguous()))
        self.after = torch.cat(few) if few else group[:0]
        self.score, self.before = between[:, self.after].T.topk(min(_FEW, self.tags), dim=1)

    def best(self, score_NC: Tensor) -> tuple[Tensor, Tensor]:
        """The best score of each tag after this step and the tag that it comes from, (N, C) each."""
        value, source = (
            torch.empty_like(score_NC),
            torch.zeros(score_NC.shape, dtype=torch.int64, device=score_NC.device),
        )
        for after, before, scores in self.large:
            found, place = (score_NC[:, before][:, None] + scores).max(dim=2)
            value[:, after], source[:, after] = found, before[place]
        if len(self.after):
            found, place = (score_NC[:, self.before] + self.score).max(dim=2)
            value[:, self.after] = found
            source[:, self.after] = self.before.expand(len(place), -1, -1).gather(2, place[..., None])[..., 0]
        return value, source


def span_probability(
    emission_UC: Tensor,
    chain: Chain,
    document_U: Tensor,
    documents: int,
    tag_U: Tensor,
    spans_S2: Tensor,
    goes_on_CC: Tensor,
) -> Tensor:
    """How probable it is that exactly these units have these tags and that the span ends there, (S,) float64.

    `spans_S2` are [start, stop) of units that `tag_U` gives the tags of one span, and `goes_on_CC` [last, next] is true
    where a tag behind the span would still belong to it. Exact: what stands before and behind is summed over.
    """
    steps = lay_out(document_U, documents)
    passes = forward_backward(emission_UC, chain, steps)
    emission, between = emission_UC.detach().double(), chain.between.detach().double()
    start, last = spans_S2[:, 0], spans_S2[:, 1] - 1
    inside = torch.zeros(len(tag_U), dtype=torch.float64, device=tag_U.device)
    same = document_U[1:] == document_U[:-1]
    move = between[tag_U[:-1], tag_U[1:]] + emission[1:].gather(1, tag_U[1:, None])[:, 0]
    inside[1:] = torch.where(same & (move > -torch.inf), move, 0.0)
    inside = inside.cumsum(0)
    head = passes.forward[start, tag_U[start]] + inside[last] - inside[start]
    behind = torch.clamp(last + 1, max=len(tag_U) - 1)
    open_end = (last + 1 < len(tag_U)) & (document_U[behind] == document_U[last])
    onward = between[tag_U[last]].masked_fill(goes_on_CC[tag_U[last]], -torch.inf) + passes.backward[behind]
    tail = torch.where(open_end, torch.logsumexp(onward, dim=1), chain.end.detach().double()[tag_U[last]])
    return (head + tail - passes.log_z[document_U[last]]).exp()
