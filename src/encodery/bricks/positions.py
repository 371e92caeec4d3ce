"""How a model learns where a token stands: sinusoidal, learned and rotary positions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

Angles = tuple[Tensor, Tensor]
"""Cosines and signed sines of each position, (P, 1, K) each."""


def sinusoidal_table(length: int, width: int) -> Tensor:
    """The fixed table of "Attention Is All You Need", section 3.5, as (length, width).

    PE(pos, 2i) = sin(pos / 10000^(2i/width)) and PE(pos, 2i+1) = cos(pos / 10000^(2i/width)).
    An odd width drops the last cosine.
    """
    position = torch.arange(length, dtype=torch.float64)[:, None]
    even = torch.arange(0, width, 2, dtype=torch.float64)
    angle = position / 10000.0 ** (even / width)
    table = torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(length, -1)
    return table[:, :width].float()


class SinusoidalPositions(nn.Module):
    """Adds the fixed sine and cosine table to the vectors: (P, D) -> (P, D). Has no parameters.

    The vectors are multiplied by sqrt(D) first, as in the paper (section 3.4), so that a table of size 1 does not
    drown embeddings that start small.
    """

    table: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoidal_table(length, width), persistent=False)
        self.scale = width**0.5

    def forward(self, x_PD: Tensor, position_P: Tensor) -> Tensor:
        return x_PD * self.scale + self.table[position_P]


class LearnedPositions(nn.Module):
    """Adds one learned vector a position (Gehring et al. 2017; BERT): (P, D) -> (P, D)."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(length, width)

    def forward(self, x_PD: Tensor, position_P: Tensor) -> Tensor:
        return x_PD + self.table(position_P)


class Rotary(nn.Module):
    """Turns queries and keys by an angle that grows with their position (Su et al. 2021, RoFormer, section 3.2).

    The score of two tokens then depends on their distance alone. Half-split layout: channel i is paired with
    channel i + K/2, and the pair turns by position / base^(2i/K). With `grid`, half of the pairs turn by the row and
    half by the column (Heo et al. 2024, axial).
    """

    cosine: Tensor
    sine: Tensor

    def __init__(
        self, length: int, head_width: int, base: float = 10000.0, *, stretch: float = 1.0, grid: bool = False
    ) -> None:
        super().__init__()
        self.grid = grid
        half = torch.arange(0, head_width, 4 if grid else 2, dtype=torch.float64) / head_width
        if stretch > 1 and head_width > 2:
            # The slowest pair turns `stretch` times slower, the fastest as before (NTK-aware scaling).
            base *= stretch ** (head_width / (head_width - 2))
        angle = torch.arange(length, dtype=torch.float64)[:, None] / base**half
        if not grid:
            angle = torch.cat([angle, angle], dim=-1)
        sign = torch.cat([-torch.ones(head_width // 2), torch.ones(head_width // 2)]).double()
        self.register_buffer("cosine", angle.cos().float(), persistent=False)
        # The sign of the rotation is folded into the sine, so that turning is x * cos + swap(x) * sin.
        self.register_buffer("sine", (angle.sin() * (1 if grid else sign)).float(), persistent=False)

    def angles(self, position: Tensor, dtype: torch.dtype) -> Angles:
        """Cosines and signed sines of the positions (P,), or of rows and columns (P, 2): each (P, 1, K), shared by
        every layer of a step."""
        cosine, sine = self.cosine[position], self.sine[position]
        if self.grid:
            cosine, sine = cosine.flatten(1), sine.flatten(1)
            cosine, sine = torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)
        return cosine.to(dtype)[:, None], sine.to(dtype)[:, None]


def rotate(x_PHK: Tensor, cosine_P1K: Tensor, sine_P1K: Tensor) -> Tensor:
    """Turn each (channel, channel + K/2) pair of `x` by its position's angle."""
    swapped = x_PHK.roll(x_PHK.shape[-1] // 2, dims=-1)
    return x_PHK * cosine_P1K + swapped * sine_P1K


class RandomPositions(nn.Module):
    """Adds one vector a position that is drawn once and never learned: (P, D) -> (P, D). Every model of the same sizes
    has the same table, so it need not be saved."""

    table: Tensor

    def __init__(self, length: int, width: int, std: float = 0.1) -> None:
        super().__init__()
        # Numpy draws the same everywhere: other frameworks need the table, too (interop/keras_encoder/layers.py).
        table = std * np.random.default_rng(0).standard_normal((length, width))
        self.register_buffer("table", torch.from_numpy(table.astype(np.float32)), persistent=False)

    def forward(self, x_PD: Tensor, position_P: Tensor) -> Tensor:
        return x_PD + self.table[position_P].to(x_PD.dtype)


class GridPositions(nn.Module):
    """Adds the sine table of the row to one half of the channels and that of the column to the other (Carion et al.
    2020, DETR, section A.4): (P, D) and (P, 2) -> (P, D)."""

    table: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoidal_table(length, width // 2), persistent=False)
        self.odd = width % 2

    def forward(self, x_PD: Tensor, grid_P2: Tensor) -> Tensor:
        added = self.table[grid_P2].flatten(1).to(x_PD.dtype)
        return x_PD + nn.functional.pad(added, (0, self.odd))
