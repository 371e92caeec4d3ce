"""Long documents cut into segments: runs of tokens, or of whole sentences, and one position for each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from encodery.batch import Layout
from encodery.encoders.halving import shortened


@dataclass(frozen=True)
class Segments:
    """A batch whose documents are cut into S segments, seen at two levels.

    `words` is the layout of the tokens with every segment as a document of its own: positions count from 0 in each
    segment, `starts` and `lengths` (S,) are those of the segments. `layout` has one position for each segment, Q with
    its padding, and the documents that the batch has. `place` (S,) is where each segment stands in it, `owner` (P,)
    the place of each token's segment, -1 for padding.
    """

    words: Layout
    layout: Layout
    place: Tensor
    owner: Tensor

    def placed(self, x_SD: Tensor) -> Tensor:
        """One vector for each segment, in order, to where the segments stand: (S, D) -> (Q, D). Padding gets zeros."""
        return x_SD.new_zeros(self.layout.positions, x_SD.shape[1]).index_copy(0, self.place, x_SD)

    def spread(self, x_QD: Tensor) -> Tensor:
        """The vector of its segment for each token: (Q, D) -> (P, D). Padding gets zeros."""
        return torch.cat([x_QD.new_zeros(1, x_QD.shape[1]), x_QD]).index_select(0, self.owner + 1)


def cut(layout: Layout, size: int, ends: Tensor | None = None) -> Segments:
    """Cut every document into runs of `size` tokens, the last one shorter: its segments depend on nothing but its
    length. Made once a step and kept on the layout.

    With `ends` (P,) bool, the last tokens of sentences, a run ends with the last sentence that ends in it; its segments
    depend on its own tokens alone.
    """
    if ends is not None:
        return _cut_at(layout, size, ends)
    key = ("segments", size)
    if key not in layout.masks:
        with torch.inference_mode(False):
            layout.masks[key] = _cut(layout, size)
    return layout.masks[key]


def _cut(layout: Layout, size: int) -> Segments:
    counts = (layout.lengths + (size - 1)) // size
    most = (layout.length + (size - 1)) // size
    # Of each segment, in order: its document and its number there.
    document, within = torch.nonzero(torch.arange(most, device=counts.device) < counts[:, None], as_tuple=True)
    first = torch.cumsum(counts, 0) - counts
    number = torch.cat([first, first.new_zeros(1)])[layout.document] + layout.position // size
    number = torch.where(layout.document >= 0, number, -1)
    words = replace(
        layout,
        document=number,
        position=layout.position % size,
        starts=layout.starts[document] + within * size,
        lengths=(layout.lengths[document] - within * size).clamp_max(size),
        masks={},
    )
    above = shortened(layout, counts, most)
    place = above.starts[document] + within
    return Segments(words, above, place, torch.cat([place, place.new_full((1,), -1)])[number])


def _cut_at(layout: Layout, size: int, ends: Tensor) -> Segments:
    device = layout.document.device
    starts, lengths, counts = _sentences(layout, size, np.flatnonzero(ends.cpu().numpy()) + 1)
    number_P, position_P = np.full(layout.positions, -1), np.zeros(layout.positions, dtype=np.int64)
    within = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    place = np.repeat(starts, lengths) + within
    number_P[place], position_P[place] = np.repeat(np.arange(len(starts)), lengths), within
    number, position, start, length, count = (
        torch.from_numpy(values).to(device) for values in (number_P, position_P, starts, lengths, counts)
    )
    words = replace(layout, document=number, position=position, starts=start, lengths=length, masks={})
    above = shortened(layout, count, int(counts.max(initial=1)))
    first = torch.cumsum(count, 0) - count
    document = torch.repeat_interleave(torch.arange(len(counts), device=device), count)
    there = above.starts[document] + torch.arange(len(starts), device=device) - first[document]
    return Segments(words, above, there, torch.cat([there, there.new_full((1,), -1)])[number])


def _sentences(layout: Layout, size: int, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts and lengths (S,) of all segments, and how many each document has (N,). `edges` are the places behind the
    ends of sentences, in order."""
    starts: list[int] = []
    lengths: list[int] = []
    counts: list[int] = []
    for begin, total in zip(layout.starts.tolist(), layout.lengths.tolist()):
        at, stop, before = begin, begin + total, len(starts)
        while at < stop:
            most = min(at + size, stop)
            last = int(edges[np.searchsorted(edges, most, side="right") - 1]) if most < stop and len(edges) else most
            to = last if at < last <= most else most
            starts.append(at)
            lengths.append(to - at)
            at = to
        counts.append(len(starts) - before)
    return np.array(starts, np.int64), np.array(lengths, np.int64), np.array(counts, np.int64)
