"""Attention from one text to another: the queries of a target, the keys and values of its source.

In learning both lie packed in rows, and document n of the target sees document n of the source. In writing each source
has a row of its own, and its keys and values are made once for all tokens that are written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.batch import Layout, States
from encodery.bricks.dropout import dropout, dropout_mask
from encodery.bricks.products import Linear
from encodery.encoders.options import TransformerConfig

PAIRS_UP_TO = 512 * 512
"""Target times source positions of a row up to which rows are computed at once, whatever documents they hold."""
DOCUMENTS_AT_ONCE = 32


@dataclass
class HeldSource:
    """N sources in rows of S positions. `real` (N, S) bool; `ids` (N, S) are their tokens; `kept` holds what each layer
    makes of them once. Each source serves the same number of neighbouring rows of the target (its beams)."""

    vectors: Tensor
    real: Tensor
    ids: Tensor
    kept: dict[object, tuple[Tensor, ...]] = field(default_factory=dict)

    def bias(self, dtype: torch.dtype) -> Tensor:
        """0 where a source has a token, -inf elsewhere: (N, S)."""
        return torch.zeros(self.real.shape, dtype=dtype, device=self.real.device).masked_fill_(~self.real, -torch.inf)

    def chosen(self, sources: Tensor) -> HeldSource:
        """Some of the sources (M,), in this order."""
        kept = {key: tuple(x.index_select(0, sources) for x in found) for key, found in self.kept.items()}
        return HeldSource(self.vectors[sources], self.real[sources], self.ids[sources], kept)


def held_source(states: States, ids_P: Tensor) -> HeldSource:
    """The documents of a layout, each in a row of its own; the room is a multiple of 16, so that shapes are few."""
    number, real = document_grid(states.layout, 16)
    return HeldSource(states.vectors[number], real, ids_P[number])


def document_grid(layout: Layout, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """The flat positions of every document as rows (N, T), and which of them are its own; elsewhere the first one's."""
    longest = int(layout.lengths.max()) if layout.documents else 0
    place = torch.arange(-(-longest // multiple) * multiple, device=layout.starts.device)
    real = place[None, :] < layout.lengths[:, None]
    return layout.starts[:, None] + place[None, :] * real, real


class SourceAttention(nn.Module):
    """Multi-head attention to a source: (P, D) -> (P, D) ("Attention Is All You Need", section 3.2.3)."""

    def __init__(self, config: TransformerConfig, source_width: int) -> None:
        super().__init__()
        self.heads, self.head_width = config.heads, config.key_width
        self.drop_rate = config.attention_drop_rate
        width = self.heads * self.head_width
        self.query = Linear(config.width, width, bias=config.bias)
        self.key_value = Linear(source_width, 2 * width, bias=config.bias)
        self.outer = Linear(width, config.width, bias=config.bias)

    def forward(self, x_PD: Tensor, layout: Layout, source: States | HeldSource, layer: int) -> Tensor:
        """`layout` is that of the target. The keys and values of a held source are kept with it under `layer`."""
        q_PHK = self.query(x_PD).view(-1, self.heads, self.head_width)
        if isinstance(source, HeldSource):
            return self.outer(self._held(q_PHK, source, layer))
        kv_S2HK = self.key_value(source.vectors).view(-1, 2, self.heads, self.head_width)
        return self.outer(attend_source(q_PHK, kv_S2HK, layout, source.layout, self.drop_rate if self.training else 0))

    def _held(self, q_PHK: Tensor, source: HeldSource, layer: int) -> Tensor:
        number, length = source.real.shape
        if layer not in source.kept:
            both = self.key_value(source.vectors).view(number, length, 2, self.heads, self.head_width)
            k, v = both.permute(2, 0, 3, 1, 4).contiguous().unbind(0)
            source.kept[layer] = (k, v)
        k_NHSK, v_NHSK = source.kept[layer]
        q = q_PHK.view(number, -1, self.heads, self.head_width).transpose(1, 2) / math.sqrt(self.head_width)
        score_NHQS = q @ k_NHSK.transpose(2, 3) + source.bias(q.dtype)[:, None, None, :]
        return (torch.softmax(score_NHQS, dim=-1) @ v_NHSK).transpose(1, 2).reshape(len(q_PHK), -1)


def attend_source(q_PHK: Tensor, kv_S2HK: Tensor, target: Layout, source: Layout, drop_rate: float) -> Tensor:
    """softmax(Q K^T / sqrt(K)) V from each document of the target to that of the same number of the source: (P, H K).

    Where each row of the target holds the documents of the same row of the source, whole rows are computed at once:
    a few large products in constant shapes. Else documents are, some at a time.
    """
    if target.length * source.length <= PAIRS_UP_TO and same_rows(target, source):
        if q_PHK.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                bias = source_bias(target, source, q_PHK.dtype)
                return cast(Tensor, _HeldPairs.apply(q_PHK, kv_S2HK, target.rows, bias, drop_rate))
        q, (k, v) = _by_rows(q_PHK, target), (_by_rows(x, source) for x in kv_S2HK.unbind(1))
        bias = source_bias(target, source, q.dtype)[:, None]
        return F.scaled_dot_product_attention(q, k, v, bias, drop_rate).transpose(1, 2).reshape(len(q_PHK), -1)
    return attend_documents(q_PHK, kv_S2HK, target, source, drop_rate)


def attend_documents(q_PHK: Tensor, kv_S2HK: Tensor, target: Layout, source: Layout, drop_rate: float) -> Tensor:
    """The same, some documents at a time, those of like length together: for long rows, and rows that do not match."""
    mixed_PHK = torch.zeros_like(q_PHK)
    parts, places = [], []
    order = torch.argsort(target.lengths * (source.lengths.max() + 1) + source.lengths, descending=True)
    for some in order.split(DOCUMENTS_AT_ONCE):
        asked, asks = document_grid(_some(target, some))
        seen, sees = document_grid(_some(source, some))
        q = q_PHK[asked].transpose(1, 2) / math.sqrt(q_PHK.shape[-1])
        k, v = (x.transpose(1, 2) for x in kv_S2HK[seen].unbind(2))
        score = (q @ k.transpose(2, 3)).masked_fill(~sees[:, None, None, :], -torch.inf)
        mixed = dropout(torch.softmax(score, dim=-1), drop_rate, True) @ v
        parts.append(mixed.transpose(1, 2)[asks])
        places.append(asked[asks])
    if parts:
        mixed_PHK = mixed_PHK.index_copy(0, torch.cat(places), torch.cat(parts).to(mixed_PHK.dtype))
    return mixed_PHK.flatten(1)


def same_rows(target: Layout, source: Layout) -> bool:
    """Whether each row of the target holds the documents of the same row of the source."""
    key = ("same rows", id(source))
    if key not in target.masks:
        alike = target.rows == source.rows and target.documents == source.documents
        rows = (target.starts // max(1, target.length), source.starts // max(1, source.length))
        target.masks[key] = alike and torch.equal(*rows)
    return target.masks[key]


def source_bias(target: Layout, source: Layout, dtype: torch.dtype) -> Tensor:
    """0 where a position of the target may look at one of the source in its row, -inf elsewhere: (B, T, S). Padding of
    the target looks at its whole row: its numbers are read by nobody, but must be numbers."""
    key = ("source", id(source), dtype)
    if key not in target.masks:
        with torch.inference_mode(False):
            asks = target.document.view(target.rows, -1, 1)
            pairs = (asks == source.document.view(source.rows, 1, -1)) | (asks < 0)
            bias = torch.zeros(pairs.shape, dtype=dtype, device=pairs.device).masked_fill_(~pairs, -torch.inf)
        target.masks[key] = bias
    return target.masks[key]


def _some(layout: Layout, documents: Tensor) -> Layout:
    """The same positions with some of the documents alone."""
    starts, lengths = layout.starts[documents], layout.lengths[documents]
    return Layout(layout.rows, layout.length, layout.document, layout.position, starts, lengths)


def _by_rows(x_PHK: Tensor, layout: Layout) -> Tensor:
    return x_PHK.view(layout.rows, layout.length, *x_PHK.shape[1:]).transpose(1, 2)


class _HeldPairs(torch.autograd.Function):
    """All rows at once on a CPU, with the gradient written out, as in kernels.py: softmax and dropout work in place."""

    @staticmethod
    def forward(ctx: Any, q_PHK: Tensor, kv_S2HK: Tensor, rows: int, bias_BTS: Tensor, drop_rate: float) -> Tensor:
        P, H, K = q_PHK.shape
        q = q_PHK.view(rows, P // rows, H, K).transpose(1, 2).reshape(rows * H, -1, K)
        kv = kv_S2HK.view(rows, -1, 2, H, K).permute(2, 0, 3, 1, 4).reshape(2, rows * H, -1, K)
        T, S = q.shape[1], kv.shape[2]
        weight = torch.empty(rows, H, T, S, dtype=q.dtype).copy_(bias_BTS[:, None]).view(rows * H, T, S)
        weight.baddbmm_(q, kv[0].transpose(1, 2), alpha=1 / math.sqrt(K))
        torch.softmax(weight, dim=-1, out=weight)
        mask = dropout_mask(weight, drop_rate) if drop_rate else None
        dropped = weight if mask is None else weight * mask
        ctx.save_for_backward(q, kv, weight, dropped, mask)
        ctx.rows = rows
        return torch.bmm(dropped, kv[1]).view(rows, H, T, K).transpose(1, 2).reshape(P, H * K)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, (k, v), weight, dropped, mask = ctx.saved_tensors
        rows, (BH, T, K) = ctx.rows, q.shape
        H, S = BH // rows, k.shape[1]
        grad = grads[0].view(rows, T, H, K).transpose(1, 2).reshape(BH, T, K)
        to_kv = torch.empty(2, BH, S, K, dtype=grad.dtype)
        torch.bmm(dropped.transpose(1, 2), grad, out=to_kv[1])
        to_weight = torch.bmm(grad, v.transpose(1, 2))
        if mask is not None:
            to_weight.mul_(mask)
        to_score = torch._softmax_backward_data(to_weight, weight, -1, weight.dtype)
        to_q = torch.bmm(to_score, k).mul_(1 / math.sqrt(K))
        torch.bmm(to_score.transpose(1, 2), q, out=to_kv[0]).mul_(1 / math.sqrt(K))
        flat_q = to_q.view(rows, H, T, K).transpose(1, 2).reshape(-1, H, K)
        flat_kv = to_kv.view(2, rows, H, S, K).permute(1, 3, 0, 2, 4).reshape(-1, 2, H, K)
        return flat_q, flat_kv, None, None, None
