"""The kernels of attention: several ways to the same numbers, and the rule that picks the fastest for a layout.

All take `qkv` (P, 3, H, K), the queries, keys and values of every position, and give the mixed values (P, H * K).
`attend_plainly` is the definition that the others are held against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from encodery.batch import Layout
from encodery.bricks.dropout import dropout, dropout_mask
from encodery.bricks.positions import Angles, rotate
from encodery.bricks.relative import OnceBias
from encodery.encoders.pattern_rules import Pattern
from encodery.encoders.patterns import attention_bias, block_bias, pair_bias
from encodery.encoders.sparse import attend_blocks

# In bf16 on a processor with avx512_bf16 whole score matrices took half the time of PyTorch's fused kernel, or less, at
# every length up to 2,048; what limits them is memory. On one with AMX the fused kernel drew level at about 512.
ROWS_UP_TO = 512
"""Positions of a row up to which all rows are computed at once, whatever documents they hold."""
SCORES_UP_TO = 2048
"""Tokens of a document up to which its scores are held in memory; above, those of some queries at a time."""
QUERIES_AT_ONCE = 512

Norms = tuple[nn.Module, nn.Module]
"""Of queries and of keys: (P, H, K) -> (P, H, K)."""


@dataclass(frozen=True)
class Meeting:
    """How queries and keys meet: all that a kernel is told besides them.

    `norms` come first, then both are turned by `angles`; `distance_bias` is what positions add to the scores, for those
    kinds of positions that do; `drop_rate` is that of the weights.
    """

    layout: Layout
    pattern: Pattern
    angles: Angles | None = None
    drop_rate: float = 0.0
    distance_bias: OnceBias | None = None
    norms: Norms | None = None

    def prepared(self, qkv_P3HK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys as they meet, and values: (P, H, K) each."""
        return _turned(qkv_P3HK, self.angles, self.norms)

    def by_rows(self, qkv_P3HK: Tensor) -> tuple[Tensor, ...]:
        """The same as rows of positions: (B, H, T, K) each."""
        shape = (self.layout.rows, self.layout.length, *qkv_P3HK.shape[2:])
        return tuple(x.view(shape).transpose(1, 2) for x in self.prepared(qkv_P3HK))

    def row_bias(self, dtype: torch.dtype) -> Tensor:
        """What pattern and distances add to the scores of whole rows: (B, 1 or H, T, T)."""
        bias = attention_bias(self.layout, self.pattern, dtype)
        if self.distance_bias is None:
            return bias
        return bias + self.distance_bias.square(self.layout.length, bias.device).to(dtype)


def attend(qkv_P3HK: Tensor, meeting: Meeting) -> Tensor:
    """Norm queries and keys, turn them, then equation 1 of attention.py inside each document: (P, D)."""
    layout, pattern = meeting.layout, meeting.pattern
    if layout.traced:
        return attend_plainly(qkv_P3HK, meeting)
    if pattern.local and pattern.worth_from <= layout.length:
        return attend_windows(qkv_P3HK, meeting) if pattern.plain_window else attend_sparsely(qkv_P3HK, meeting)
    if qkv_P3HK.device.type != "cpu":
        return attend_fused(qkv_P3HK, meeting)
    return attend_rows(qkv_P3HK, meeting) if layout.length <= ROWS_UP_TO else attend_documents(qkv_P3HK, meeting)


def has_constant_shapes(pattern: Pattern, device: torch.device) -> bool:
    """Whether `attend` does the same products in every step. If not, their shapes follow the documents of the batch:
    blocks of each document where the pattern is sparse, on a CPU one document after the other in long rows."""
    return device.type != "cpu" and (not pattern.local or pattern.plain_window)


def attend_plainly(qkv_P3HK: Tensor, meeting: Meeting) -> Tensor:
    """Two matrix products around a softmax, as it is written in the books."""
    q_BHTK, k_BHTK, v_BHTK = meeting.by_rows(qkv_P3HK)
    score_BHTT = (q_BHTK / math.sqrt(q_BHTK.shape[-1])) @ k_BHTK.transpose(-1, -2)
    score_BHTT = score_BHTT + meeting.row_bias(score_BHTT.dtype)
    mixed_BHTK = dropout(torch.softmax(score_BHTT, dim=-1), meeting.drop_rate, True) @ v_BHTK
    return mixed_BHTK.transpose(1, 2).reshape(meeting.layout.positions, -1)


def attend_fused(qkv_P3HK: Tensor, meeting: Meeting) -> Tensor:
    """PyTorch's fused kernel, which never holds the scores in memory."""
    q_BHTK, k_BHTK, v_BHTK = meeting.by_rows(qkv_P3HK)
    bias = meeting.row_bias(q_BHTK.dtype)
    mixed_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, bias, meeting.drop_rate)
    return mixed_BHTK.transpose(1, 2).reshape(meeting.layout.positions, -1)


def attend_rows(qkv_P3HK: Tensor, meeting: Meeting) -> Tensor:
    """All rows at once: a few large products, everything between them in place."""
    layout = meeting.layout
    bias_B1TT = attention_bias(layout, meeting.pattern, qkv_P3HK.dtype)
    return _attend_held(qkv_P3HK, layout.rows, meeting, meeting.angles, bias_B1TT, layout.length)


def attend_documents(qkv_P3HK: Tensor, meeting: Meeting) -> Tensor:
    """One document after the other, for long rows: no work is done between documents that share a row."""
    layout, angles = meeting.layout, meeting.angles
    starts, lengths = layout.starts.tolist(), layout.lengths.tolist()
    sizes: list[int] = []  # of documents and, between them, of padding
    at = 0
    for start, length in zip([*starts, layout.positions], [*lengths, 0]):
        sizes += [start - at, length]
        at = start + length
    turned = [None] * len(sizes)
    if angles is not None:
        turned = list(zip(*(angle.split(sizes) for angle in angles)))
    found = []
    for number, (part, turn) in enumerate(zip(qkv_P3HK.split(sizes), turned)):
        length, document = sizes[number], number % 2 == 1
        if not document or not length:
            found.append(part.new_zeros(length, part[0, 0].numel() if length else qkv_P3HK[0, 0].numel()))
            continue
        bias = pair_bias(layout, starts[number // 2], length, meeting.pattern, part.dtype)
        if length <= SCORES_UP_TO:
            found.append(_attend_held(part, 1, meeting, turn, bias, length))
        else:
            found.append(_attend_long(part, meeting, turn, bias))
    return torch.cat(found)


def _attend_long(part: Tensor, meeting: Meeting, angles: Angles | None, bias: Tensor | None) -> Tensor:
    """A long document, some hundred queries at a time: their scores are made again for the gradient, so that no more
    than those of one block are ever held. PyTorch's fused kernel, which does the same, took 1.4 to 2 times as long
    in bf16 on a processor with avx512_bf16."""
    q_HTK, k_HTK, v_HTK = (x.transpose(0, 1) for x in _turned(part, angles, meeting.norms))
    if meeting.distance_bias is not None:
        far_HTT = meeting.distance_bias.square(len(part), part.device)
        bias = far_HTT[None].to(part.dtype) + (0 if bias is None else bias)
    bias_HTT = None if bias is None else bias[0]

    def mixed(q_HQK: Tensor, k_HTK: Tensor, v_HTK: Tensor, bias_HQT: Tensor | None) -> Tensor:
        score_HQT = (q_HQK / math.sqrt(q_HQK.shape[-1])) @ k_HTK.transpose(-1, -2)
        if bias_HQT is not None:
            score_HQT = score_HQT + bias_HQT
        return dropout(torch.softmax(score_HQT, dim=-1), meeting.drop_rate, True) @ v_HTK

    found = []
    for first in range(0, len(part), QUERIES_AT_ONCE):
        rows = slice(first, first + QUERIES_AT_ONCE)
        given = (q_HTK[:, rows], k_HTK, v_HTK, None if bias_HTT is None else bias_HTT[:, rows])
        found.append(checkpoint(mixed, *given, use_reentrant=False) if torch.is_grad_enabled() else mixed(*given))
    return torch.cat(found, dim=1).transpose(0, 1).reshape(len(part), -1)


def attend_windows(qkv_P3HK: Tensor, meeting: Meeting) -> Tensor:
    """Sliding windows in linear time: positions are cut into blocks no shorter than the window's radius, and the
    queries of a block see the keys of their own block and of its two neighbours."""
    size = meeting.pattern.grain
    P, _, H, K = qkv_P3HK.shape
    q_PHK, k_PHK, v_PHK = meeting.prepared(qkv_P3HK)
    blocks = P // size

    def with_neighbours(x_PHK: Tensor) -> Tensor:
        """(blocks, H, 3 * size, K)"""
        padded = F.pad(x_PHK, (0, 0, 0, 0, size, size)).view(blocks + 2, size, H, K)
        return torch.cat([padded[:-2], padded[1:-1], padded[2:]], dim=1).transpose(1, 2)

    q = q_PHK.view(blocks, size, H, K).transpose(1, 2)
    score = (q / math.sqrt(K)) @ with_neighbours(k_PHK).transpose(-1, -2)
    score = score + block_bias(meeting.layout, meeting.pattern, score.dtype)
    if meeting.distance_bias is not None:
        # Three blocks of keys begin one block before the queries.
        place = torch.arange(3 * size, device=score.device)
        score = score + meeting.distance_bias(place[None, :] - size - place[:size, None]).to(score.dtype)
    weight = torch.softmax(score, dim=-1)
    mixed = dropout(weight, meeting.drop_rate, True) @ with_neighbours(v_PHK)
    return mixed.transpose(1, 2).reshape(P, H * K)


def attend_sparsely(qkv_P3HK: Tensor, meeting: Meeting) -> Tensor:
    """All other local patterns in linear time: sparse.py."""
    as_given = meeting.angles is None and meeting.norms is None
    turned = qkv_P3HK if as_given else torch.stack(meeting.prepared(qkv_P3HK), dim=1)
    return attend_blocks(turned, meeting.layout, meeting.pattern, meeting.drop_rate, meeting.distance_bias)


def _turned(qkv_P3HK: Tensor, angles: Angles | None, norms: Norms | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys as they meet, and values."""
    q_PHK, k_PHK, v_PHK = qkv_P3HK.unbind(1)
    if norms is not None:
        q_PHK, k_PHK = norms[0](q_PHK), norms[1](k_PHK)
    return (q_PHK, k_PHK, v_PHK) if angles is None else (rotate(q_PHK, *angles), rotate(k_PHK, *angles), v_PHK)


def _attend_held(
    qkv: Tensor, rows: int, meeting: Meeting, angles: Angles | None, bias: Tensor | None, length: int
) -> Tensor:
    """(P, 3, H, K) as `rows` rows of `length` positions -> (P, D), with the scores held in memory."""
    far, norms = meeting.distance_bias, meeting.norms
    far_HTT = None if far is None else far.square(length, qkv.device)
    inside: list[Tensor | None] = []
    epsilon = 0.0
    if norms is not None and all(type(norm) is nn.LayerNorm for norm in norms):
        for norm in norms:
            assert isinstance(norm, nn.LayerNorm)
            inside += [norm.weight, norm.bias]
            epsilon = norm.eps
    elif norms is not None:
        qkv = torch.stack(_turned(qkv, None, norms), dim=1)
    with torch.autocast("cpu", enabled=False):
        return cast(Tensor, _Held.apply(qkv, rows, angles, bias, far_HTT, meeting.drop_rate, epsilon, *inside))


class _Held(torch.autograd.Function):
    """Norms, rotation, equation 1 and the way back to flat positions, with the gradient written out.

    Written by hand because most of the time between the products goes into passes over memory: queries and keys are
    turned while they are sorted by head, the bias is where the product adds up, and softmax and dropout work in place.
    `far` is what distances add to the scores; `norms` are weight and bias of the LayerNorm of queries, then of that of
    keys, or nothing.
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        rows: int,
        angles: Angles | None,
        bias_B1TT: Tensor | None,
        far_HTT: Tensor | None,
        drop_rate: float,
        epsilon: float,
        *norms: Tensor | None,
    ) -> Tensor:
        P, _, H, K = qkv.shape
        B, T = rows, P // rows
        heads = qkv.view(B, T, 3, H, K).permute(2, 0, 3, 1, 4)
        meeting, of_norms = heads[:2], []
        if norms:
            raw_2PHK = qkv[:, :2].transpose(0, 1).contiguous()
            normed_2PHK = torch.empty_like(raw_2PHK)
            of_norms = [raw_2PHK]
            for number in range(2):
                gain, shift = norms[2 * number : 2 * number + 2]
                found = torch.native_layer_norm(raw_2PHK[number], (K,), gain, shift, epsilon)
                normed_2PHK[number] = found[0]
                of_norms += found[1:]
            meeting = normed_2PHK.view(2, B, T, H, K).transpose(2, 3)
        sorted_3BHTK = torch.empty(3, B, H, T, K, dtype=qkv.dtype)
        if angles is None:
            sorted_3BHTK[:2].copy_(meeting)
        else:
            _turn(meeting, *_of_rows(angles, B), out=sorted_3BHTK[:2])
        sorted_3BHTK[2].copy_(heads[2])
        q, k, v = sorted_3BHTK.view(3, B * H, T, K).unbind(0)
        scale = 1 / math.sqrt(K)
        if bias_B1TT is None:
            weight = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
        else:
            weight = torch.empty(B, H, T, T, dtype=qkv.dtype).copy_(bias_B1TT).view(B * H, T, T)
            weight.baddbmm_(q, k.transpose(1, 2), alpha=scale)
        if far_HTT is not None:
            weight.view(B, H, T, T).add_(far_HTT)
        torch.softmax(weight, dim=-1, out=weight)
        mask = dropout_mask(weight, drop_rate) if drop_rate else None
        dropped = weight if mask is None else weight * mask
        ctx.save_for_backward(q, k, v, weight, dropped, mask, *(angles or (None, None)), *of_norms, *norms)
        ctx.rows, ctx.to_far = B, far_HTT is not None and ctx.needs_input_grad[4]
        return torch.bmm(dropped, v).view(B, H, T, K).transpose(1, 2).reshape(P, H * K)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weight, dropped, mask, cosine, sine, *of_norms = ctx.saved_tensors
        B, (BH, T, K) = ctx.rows, q.shape
        H, scale = BH // B, 1 / math.sqrt(K)
        grad = grads[0].view(B, T, H, K).transpose(1, 2).reshape(BH, T, K)
        sorted_3BHTK = torch.empty(3, B, H, T, K, dtype=grad.dtype)
        to_q, to_k, to_v = sorted_3BHTK.view(3, BH, T, K).unbind(0)
        torch.bmm(dropped.transpose(1, 2), grad, out=to_v)
        to_weight = torch.bmm(grad, v.transpose(1, 2))
        if mask is not None:
            to_weight.mul_(mask)
        to_score = torch._softmax_backward_data(to_weight, weight, -1, weight.dtype)
        to_far = to_score.view(B, H, T, T).sum(0, dtype=torch.float32) if ctx.to_far else None
        torch.baddbmm(to_q, to_score, k, beta=0, alpha=scale, out=to_q)
        torch.baddbmm(to_k, to_score.transpose(1, 2), q, beta=0, alpha=scale, out=to_k)
        to_qkv = torch.empty(B, T, 3, H, K, dtype=grad.dtype)
        heads = to_qkv.permute(2, 0, 3, 1, 4)
        to_normed_2PHK = torch.empty(2, B * T, H, K, dtype=grad.dtype) if of_norms else None
        meeting = heads[:2] if to_normed_2PHK is None else to_normed_2PHK.view(2, B, T, H, K).transpose(2, 3)
        if cosine is None:
            meeting.copy_(sorted_3BHTK[:2])
        else:
            cosine, sine = _of_rows((cosine, sine), B)
            # The gradient of a turn is the turn back; the signed sines of the two halves are each other's negative.
            _turn(sorted_3BHTK[:2], cosine, -sine, out=meeting)
        heads[2].copy_(sorted_3BHTK[2])
        to_qkv = to_qkv.view(B * T, 3, H, K)
        to_norms: list[Tensor | None] = []
        if to_normed_2PHK is not None:
            raw_2PHK, *moments = of_norms[:5]
            for number in range(2):
                gain, shift = of_norms[5 + 2 * number : 7 + 2 * number]
                given = (to_normed_2PHK[number], raw_2PHK[number], (K,), *moments[2 * number : 2 * number + 2])
                wanted = [True, True, shift is not None]
                found = torch.ops.aten.native_layer_norm_backward(*given, gain, shift, wanted)
                to_qkv[:, number] = found[0]
                to_norms += found[1:]
        return to_qkv, None, None, None, to_far, None, None, *to_norms


def _of_rows(angles: Angles, rows: int) -> Angles:
    """Cosines and sines (P, 1, K) as (B, 1, T, K)."""
    cosine, sine = (angle.view(rows, 1, -1, angle.shape[-1]) for angle in angles)
    return cosine, sine


def _turn(x: Tensor, cosine: Tensor, sine: Tensor, out: Tensor) -> None:
    """`positions.rotate`, from one memory order into another. To exchange the halves beforehand costs a copy, but each
    half by itself is too short for the wide registers of a processor: five times slower in heads of 32."""
    half = x.shape[-1] // 2
    torch.mul(x, cosine, out=out)
    out.addcmul_(torch.cat([x[..., half:], x[..., :half]], dim=-1), sine)
