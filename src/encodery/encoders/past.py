"""What a causal stack keeps of the tokens it has read, so that each further one is read alone (key-value cache)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from encodery.batch import Layout

ROOM = 16
"""Room for tokens is made so many at a time: each new shape of a product costs compilation."""


@dataclass
class Past:
    """N texts of which as many tokens (`length`) were read: for each layer their keys and values, (N, G, room, K) each.

    All texts stand at the same place, so no padding lies between them. A recurrent stack keeps states (N, ...) instead.
    """

    rows: int
    device: torch.device
    length: int = 0
    kept: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)

    def extended(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (N, G, T, K) of the next tokens, behind those before them and with room after them. Places
        that are not used yet hold numbers that `bias` hides."""
        T = k.shape[2]
        if layer not in self.kept:
            self.kept[layer] = tuple(x.new_zeros(*x.shape[:2], 0, x.shape[3]) for x in (k, v))
        old_k, old_v = self.kept[layer]
        if old_k.shape[2] < self.length + T:
            room = -(-(self.length + T) // ROOM) * ROOM
            old_k, old_v = (F.pad(x, (0, 0, 0, room - x.shape[2])) for x in (old_k, old_v))
            self.kept[layer] = (old_k, old_v)
        old_k[:, :, self.length : self.length + T] = k
        old_v[:, :, self.length : self.length + T] = v
        return old_k, old_v

    def bias(self, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
        """0 where a query may look at a key, -inf elsewhere: (Q, keys)."""
        place = torch.arange(keys, device=self.device)
        own = self.length + torch.arange(queries, device=self.device)
        bias = torch.zeros(queries, keys, dtype=dtype, device=self.device)
        return bias.masked_fill_(own[:, None] < place[None, :], -torch.inf)

    def layout(self, positions: int) -> Layout:
        """The next tokens of all texts as a layout: one row for each text, `positions` in all."""
        length = positions // self.rows
        number = torch.arange(self.rows, device=self.device)
        return Layout(
            rows=self.rows,
            length=length,
            document=number.repeat_interleave(length),
            position=(self.length + torch.arange(length, device=self.device)).repeat(self.rows),
            starts=number * length,
            lengths=torch.full_like(number, length),
        )

    def chosen(self, rows: Tensor) -> Past:
        """The past of some texts (M,), in this order; a text may be taken several times."""
        kept = {layer: tuple(x.index_select(0, rows) for x in found) for layer, found in self.kept.items()}
        return Past(len(rows), self.device, self.length, kept)
