"""Writing token by token: greedy, beam search and sampling, for many texts at a time, whatever says what comes next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from encodery.heads.decoding.generation_options import GenerationConfig

Array = np.ndarray


class Steps(Protocol):
    """Texts in the making, `texts` in a row for each of some sources."""

    def next(self, tokens_RT: Tensor) -> Tensor:
        """Log-probabilities of what follows the next tokens (R, T) of each text: (R, V) float32."""
        ...

    def chosen(self, rows: Tensor) -> None:
        """Go on with the texts `rows` (R,) in this order, each still one of its own source."""
        ...

    def kept(self, sources: Tensor, rows: Tensor) -> None:
        """Go on with some of the sources, and of their texts."""
        ...


@dataclass(frozen=True)
class Written:
    """A text: its tokens without those it began with and the one that ends it, log p of them (the end included), and
    `rank`, by which a beam compares them."""

    ids: tuple[int, ...]
    score: float
    rank: float


@dataclass(frozen=True)
class Rules:
    """What holds for every text of a model: the token that ends one, and tokens that are never written."""

    end_id: int
    never: Tensor


def length_penalty(tokens: Array | float, power: float) -> Array | float:
    """((5 + n) / 6)^power (Wu et al. 2016, equation 14)."""
    return ((5.0 + tokens) / 6.0) ** power


def search(
    steps: Steps,
    begins: Sequence[Array],
    limits: Sequence[int],
    options: GenerationConfig,
    rules: Rules,
    places: Sequence[int] | None = None,
) -> list[list[Written]]:
    """The texts of N sources, best first: each goes on from `begins[n]`, by at most `limits[n]` tokens.

    Begins of different lengths are read together as far as the shortest goes; what is left of the longer ones is then
    written as if it had been chosen. `places` are those of the sources in the whole list, from which samples follow.
    """
    making = _Making(steps, begins, limits, options, rules, range(len(begins)) if places is None else places)
    choose = making.draw if options.sample else making.extend
    while making.goes_on():
        choose()
    return [sorted(found, key=lambda one: -one.rank)[: options.beam] for found in making.finished]


@dataclass
class _Making:
    """The state of a search. `tokens` (N, K, L) are K texts for each source that is not done, `score` (N, K)."""

    steps: Steps
    begins: Sequence[Array]
    limits: Sequence[int]
    options: GenerationConfig
    rules: Rules
    places: Sequence[int]
    finished: list[list[Written]] = field(default_factory=list)

    def __post_init__(self) -> None:
        width, device = self.options.beam, self.rules.never.device
        self.finished = [[] for _ in self.begins]
        self.source = np.arange(len(self.begins))  # which of the sources each row is of
        self.sizes = np.array([begin.size for begin in self.begins])
        shared = int(self.sizes.min())
        tokens = np.stack([begin[:shared] for begin in self.begins])
        self.tokens = torch.from_numpy(tokens.astype(np.int64)).to(device)[:, None].repeat(1, width, 1)
        self.score = torch.full((len(self.begins), width), -torch.inf, device=device)
        self.score[:, 0] = 0.0  # all texts of a source are still the same: one of them counts
        self.done = np.zeros(len(self.begins), dtype=bool)
        self.logp = self.steps.next(self.tokens.flatten(0, 1))
        if self.options.sample:
            self.draws = self._draws()

    def goes_on(self) -> bool:
        """Whether a source is not done. Rows of those that are go once they are half of all: each change of the number
        of rows is a change of shapes."""
        left = np.flatnonzero(~self.done)
        if not left.size:
            return False
        if 2 * left.size <= self.done.size:
            sources = torch.from_numpy(left).to(self.tokens.device)
            width = self.tokens.shape[1]
            rows = (sources[:, None] * width + torch.arange(width, device=sources.device)).flatten()
            self.steps.kept(sources, rows)
            self.tokens, self.score, self.logp = self.tokens[sources], self.score[sources], self.logp[rows]
            self.source, self.done = self.source[left], self.done[left]
        return True

    def extend(self) -> None:
        """One step of a beam (greedy with a beam of 1): of all ways to go on, those of the highest log p. Ends among
        the best K are finished; a source is done when it has K of them."""
        N, K, L = self.tokens.shape
        logp = self._ruled()
        total = (self.score[:, :, None] + logp.view(N, K, -1)).flatten(1)
        best, where = total.topk(min(2 * K, total.shape[1]), dim=1)
        V = logp.shape[1]
        origin, token = where // V, where % V
        ends = (token == self.rules.end_id) & self._free()[:, None]
        counted = (ends & (best > -torch.inf))[:, :K].cpu().numpy()
        for row, place in np.argwhere(counted).tolist():
            if not self.done[row]:
                self._finish(row, int(origin[row, place]), float(best[row, place]))
        self.score, place = best.masked_fill(ends, -torch.inf).topk(K, dim=1)
        origin, token = origin.gather(1, place), token.gather(1, place)
        self.tokens = torch.cat([self.tokens.gather(1, origin[:, :, None].expand(-1, -1, L)), token[:, :, None]], dim=2)
        lost = (self.score[:, 0] == -torch.inf).cpu().numpy()
        full = np.array([len(self.finished[source]) >= K for source in self.source])
        self.done |= full | lost
        self._read(origin)

    def draw(self) -> None:
        """One step of sampling: a token from the distribution as the options shape it."""
        logp = self._ruled()
        shaped = shaped_distribution(logp, self.options)
        order = shaped.sort(dim=-1, descending=True)
        written = self.tokens.shape[2] - self.sizes[self.source]
        given = self.draws[self.source, np.clip(written, 0, self.draws.shape[1] - 1)]
        summed = order.values.double().cumsum(-1)
        drawn = torch.from_numpy(given).to(summed)[:, None] * summed[:, -1:]
        place = torch.searchsorted(summed, drawn, right=True).clamp_max(shaped.shape[1] - 1)
        token = order.indices.gather(1, place)
        ends = ((token[:, 0] == self.rules.end_id) & self._free()).cpu().numpy()
        self.score = self.score + logp.gather(1, token)
        for row in np.flatnonzero(ends & ~self.done).tolist():
            self._finish(row, 0, float(self.score[row, 0]))
        self.done |= ends
        self.tokens = torch.cat([self.tokens, token[:, :, None]], dim=2)
        self._read(torch.zeros_like(token))

    def _read(self, origin: Tensor) -> None:
        """Let the steps read the tokens that were chosen, each behind the text it goes on from."""
        if self.done.all():
            return
        N, K = origin.shape
        if K > 1:
            rows = (torch.arange(N, device=origin.device)[:, None] * K + origin).flatten()
            self.steps.chosen(rows)
        self.logp = self.steps.next(self.tokens[:, :, -1].reshape(-1, 1))

    def _finish(self, row: int, text: int, score: float) -> None:
        source = int(self.source[row])
        ids = self.tokens[row, text, int(self.sizes[source]) :].tolist()
        penalty = float(length_penalty(len(ids) + 1, self.options.length_penalty))
        self.finished[source].append(Written(tuple(ids), score, score / penalty))

    def _free(self) -> Tensor:
        """Which rows are past what they begin with: (N,) bool."""
        return torch.from_numpy(self.sizes[self.source] <= self.tokens.shape[2]).to(self.tokens.device)

    def _ruled(self) -> Tensor:
        """Log-probabilities with what the options, the limits and the begins allow: (N * K, V)."""
        options, end = self.options, self.rules.end_id
        N, K, L = self.tokens.shape
        logp = self.logp.index_fill(1, self.rules.never, -torch.inf)
        if options.repetition_penalty > 1:
            logp = repeated_less(logp, self.tokens.flatten(0, 1), options.repetition_penalty)
        if options.no_repeat_ngram:
            logp = without_repeats(logp, self.tokens.flatten(0, 1), options.no_repeat_ngram)
        written = L - self.sizes[self.source]
        rows = np.repeat(np.arange(N), K)
        early = np.flatnonzero((written < options.min_tokens)[rows])
        if early.size:
            logp[torch.from_numpy(early).to(logp.device), end] = -torch.inf
        last = np.flatnonzero((written >= np.array(self.limits)[self.source])[rows])
        # Where nothing else is allowed the text ends as well, whatever the log-probability that is left.
        stuck = np.flatnonzero(~torch.isfinite(logp.amax(dim=1)).cpu().numpy())
        for which in (last, stuck):
            if which.size:
                at = torch.from_numpy(which).to(logp.device)
                own = self.logp[at, end]
                logp[at] = -torch.inf
                logp[at, end] = own
        begun = np.flatnonzero((written < 0)[rows])
        if begun.size:
            given = np.array([self.begins[source][L] for source in self.source[rows[begun]]], dtype=np.int64)
            at = torch.from_numpy(begun).to(logp.device)
            logp[at] = -torch.inf
            logp[at, torch.from_numpy(given).to(logp.device)] = 0.0
        return logp

    def _draws(self) -> Array:
        """For each source its own numbers from 0 to 1, so that its text does not depend on those beside it."""
        most = max(self.limits) + 1
        seeds = ([self.options.seed, place] for place in self.places)
        return np.stack([np.random.default_rng(seed).random(most) for seed in seeds])


def repeated_less(logp_RV: Tensor, tokens_RL: Tensor, penalty: float) -> Tensor:
    """Log-probabilities of the tokens that a text has already, times `penalty`."""
    return logp_RV.scatter(1, tokens_RL, logp_RV.gather(1, tokens_RL) * penalty)


def without_repeats(logp_RV: Tensor, tokens_RL: Tensor, size: int) -> Tensor:
    """-inf for tokens that would complete a run of `size` tokens which the text has already."""
    length = tokens_RL.shape[1]
    if length < size:
        return logp_RV
    runs = tokens_RL.unfold(1, size, 1)  # (R, L - size + 1, size)
    again = (runs[:, :, :-1] == tokens_RL[:, None, length - size + 1 :]).all(-1)
    row, place = again.nonzero(as_tuple=True)
    logp_RV = logp_RV.clone()
    logp_RV[row, runs[row, place, -1]] = -torch.inf
    return logp_RV


def shaped_distribution(logp_RV: Tensor, options: GenerationConfig) -> Tensor:
    """Probabilities to draw from, (R, V) with 0 for what top_k and top_p leave out."""
    logits = logp_RV / options.temperature
    if 0 < options.top_k < logits.shape[1]:
        least = logits.topk(options.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probability = torch.softmax(logits, dim=-1)
    if options.top_p < 1:
        order = probability.sort(dim=-1, descending=True)
        before = order.values.cumsum(-1) - order.values
        # The token with which the sum passes top_p still belongs to it.
        kept = torch.zeros_like(probability, dtype=torch.bool).scatter(1, order.indices, before < options.top_p)
        probability = probability * kept
    return probability / probability.sum(-1, keepdim=True)


def in_groups(sizes: Sequence[int], options: GenerationConfig, most_rows: int, most_tokens: int) -> list[list[int]]:
    """The numbers of the sources in groups that are written together, longest first: alike in length, so that little is
    computed for nothing; at most `most_rows` texts in the making and `most_tokens` positions of sources."""
    order = sorted(range(len(sizes)), key=lambda number: (-sizes[number], number))
    groups: list[list[int]] = []
    for number in order:
        rows = max(1, most_rows // options.beam)
        fits = groups and len(groups[-1]) < rows and (len(groups[-1]) + 1) * sizes[groups[-1][0]] <= most_tokens
        if fits:
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups


def all_written(
    count: int, groups: Sequence[Sequence[int]], write: Callable[[Sequence[int]], list[list[Written]]]
) -> list[list[Written]]:
    """What `write` gives for each group, in the order of the sources."""
    found: list[list[Written]] = [[] for _ in range(count)]
    for group in groups:
        for number, texts in zip(group, write(group)):
            found[number] = texts
    return found
