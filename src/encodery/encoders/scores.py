"""Attention for any way to score a key: the plain road, for scores that the kernels do not know and for watching."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from encodery.batch import Layout
from encodery.bricks.dropout import dropout
from encodery.bricks.relative import OnceBias
from encodery.encoders.pattern_rules import Pattern
from encodery.encoders.patterns import attention_bias, pair_bias

Score = Callable[[Tensor, Tensor, int], Tensor]
"""Queries (..., H, Q, K), keys (..., H, T, K) and the place of the first query among the keys -> (..., H, Q, T)."""
ROWS_UP_TO = 512
"""Positions of a row up to which all rows are computed at once."""
QUERIES_AT_ONCE = 256


def dot_score(distance_bias: OnceBias | None) -> Score:
    """`q . k / sqrt(K)`, plus what the distance adds."""

    def score(q: Tensor, k: Tensor, first: int) -> Tensor:
        found = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)
        if distance_bias is None:
            return found
        far_HTT = distance_bias.square(k.shape[-2], k.device)
        return found + far_HTT[:, first : first + q.shape[-2]].to(found.dtype)

    return score


def attend_by_scores(
    q_PHK: Tensor,
    k_PHK: Tensor,
    v_PHK: Tensor,
    layout: Layout,
    pattern: Pattern,
    score: Score,
    drop_rate: float,
    weights: list[Tensor] | None = None,
) -> Tensor:
    """softmax(score) v inside each document, (P, H * K). The attention weights of each document, (H, n, n), are added
    to `weights` when that list is given."""
    if layout.traced or layout.length <= ROWS_UP_TO:
        q, k, v = (x.view(layout.rows, layout.length, *x.shape[1:]).transpose(1, 2) for x in (q_PHK, k_PHK, v_PHK))
        share_BHTT = torch.softmax(score(q, k, 0) + attention_bias(layout, pattern, q.dtype), dim=-1)
        if weights is not None:
            for start, size in zip(layout.starts.tolist(), layout.lengths.tolist()):
                row, begin = divmod(start, layout.length)
                weights.append(share_BHTT[row, :, begin : begin + size, begin : begin + size].float())
        mixed = dropout(share_BHTT, drop_rate, True) @ v
        return mixed.transpose(1, 2).reshape(layout.positions, -1)
    mixed_PHK = torch.zeros_like(v_PHK)
    parts, places = [], []
    for start, size in zip(layout.starts.tolist(), layout.lengths.tolist()):
        span = slice(start, start + size)
        q, k, v = (x[span].transpose(0, 1) for x in (q_PHK, k_PHK, v_PHK))
        bias = pair_bias(layout, start, size, pattern, q.dtype)
        parts.append(_one_document(q, k, v, None if bias is None else bias[0], score, drop_rate, weights))
        places.append(torch.arange(start, start + size, device=v_PHK.device))
    if parts:
        mixed_PHK = mixed_PHK.index_copy(0, torch.cat(places), torch.cat(parts))
    return mixed_PHK.flatten(1)


def _one_document(
    q_HTK: Tensor,
    k_HTK: Tensor,
    v_HTK: Tensor,
    bias_1TT: Tensor | None,
    score: Score,
    drop_rate: float,
    weights: list[Tensor] | None,
) -> Tensor:
    """(n, H, K), some hundred queries at a time; their scores are made again for the gradient."""
    shares: list[Tensor] = []

    def mixed(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, first: int) -> Tensor:
        found = score(q, k, first)
        share = torch.softmax(found if bias is None else found + bias, dim=-1)
        if weights is not None:
            shares.append(share.float())
        return dropout(share, drop_rate, True) @ v

    found = []
    for first in range(0, q_HTK.shape[1], QUERIES_AT_ONCE):
        rows = slice(first, first + QUERIES_AT_ONCE)
        given = (q_HTK[:, rows], k_HTK, v_HTK, None if bias_1TT is None else bias_1TT[:, rows], first)
        again = torch.is_grad_enabled() and weights is None
        found.append(checkpoint(mixed, *given, use_reentrant=False) if again else mixed(*given))
    if weights is not None:
        weights.append(torch.cat(shares, dim=1))
    return torch.cat(found, dim=1).transpose(0, 1)
