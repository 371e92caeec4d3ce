"""Documents of half the length: neighbouring vectors averaged in pairs, and spread again (Funnel-Transformer).

Dai et al. 2020, section 2.2. The first vector of a document stays alone, so that a [CLS] token keeps its own.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from encodery.batch import Layout, layout_of
from encodery.bricks.pooling import sum_by_owner

ROUNDED_TO = 16
"""Rows of a shortened layout are a multiple of this long, so that few shapes are seen."""


def halved(x_PD: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
    """(P, D) -> vectors of the halved documents and their layout."""
    shorter = _halved_layout(layout)
    owner = _owners(layout, shorter)
    total = sum_by_owner(x_PD, owner, shorter.positions)
    number = sum_by_owner(torch.ones_like(x_PD[:, :1]), owner, shorter.positions).clamp_min(1)
    return (total / number).to(x_PD.dtype), shorter


def spread(x_QD: Tensor, layout: Layout, times: int) -> Tensor:
    """Vectors of documents that were halved `times` times, back to every position of the first `layout`: (P, D).
    Padding gets zeros."""
    steps = [layout]
    for _ in range(times):
        steps.append(_halved_layout(steps[-1]))
    for longer, shorter in zip(reversed(steps[:-1]), reversed(steps[1:])):
        with_zero = torch.cat([x_QD.new_zeros(1, x_QD.shape[1]), x_QD])
        x_QD = with_zero[_owners(longer, shorter) + 1]
    return x_QD


def _halved_layout(layout: Layout) -> Layout:
    """Made once a step and kept on the layout."""
    if "halved" not in layout.masks:
        layout.masks["halved"] = shortened(layout, 1 + layout.lengths // 2, 1 + layout.length // 2)
    return layout.masks["halved"]


def shortened(layout: Layout, lengths: Tensor, longest: int) -> Layout:
    """The same rows of the same documents, which have other `lengths` (N,) now, up to `longest`."""
    if layout.traced:
        row, place = torch.arange(layout.rows)[:, None], torch.arange(longest)
        there = place < lengths[:, None]
        document, position = torch.where(there, row, -1).flatten(), torch.where(there, place, 0).flatten()
        starts = row[:, 0] * longest
        return replace(
            layout, length=longest, document=document, position=position, starts=starts, lengths=lengths, masks={}
        )
    rows: list[list[int]] = [[] for _ in range(layout.rows)]
    for start, length in zip(layout.starts.tolist(), lengths.tolist()):
        rows[start // layout.length].append(length)
    fullest = max(ROUNDED_TO, *(sum(row) for row in rows))
    with torch.inference_mode(False):  # a layout made while scoring may serve a training step later
        return layout_of(rows, -(-fullest // ROUNDED_TO) * ROUNDED_TO).to(layout.document.device)


def _owners(layout: Layout, shorter: Layout) -> Tensor:
    """The position in `shorter` that each position of `layout` becomes part of, -1 for padding: (P,)."""
    starts = torch.cat([shorter.starts, shorter.starts.new_zeros(1)])
    place = starts[layout.document] + (layout.position + 1) // 2
    return torch.where(layout.document >= 0, place, -1)
