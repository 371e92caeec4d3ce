"""What an encoder thought: attention weights, vectors between the blocks and their sizes, kept on request."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from encodery.batch import Layout


@dataclass
class Watch:
    """Handed to an encoder's forward pass, it is filled block by block. Without one nothing is kept and nothing is
    slower; with one, attention is computed in the plain way, since most of the fast kernels do not hold their weights.

    `hidden`     what goes into each block, and what comes out of the last: (P, D)
    `weights`    for each block and each document the attention weights (H, n, n), before dropout
    `sizes`      for each block the length (L2) of the vectors that attention and feed-forward add and of their sum with
                 what went in, by name, (P,) each
    `layouts`    the layout of each entry of `hidden`: it changes where an encoder shortens its documents

    Of a `live` one `hidden` and `weights` keep their gradients: for a loss that compares them with those of a teacher.
    """

    live: bool = False

    hidden: list[Tensor] = field(default_factory=list)
    weights: list[list[Tensor]] = field(default_factory=list)
    sizes: list[dict[str, Tensor]] = field(default_factory=list)
    layouts: list[Layout] = field(default_factory=list)

    def keep(self, x_PD: Tensor, layout: Layout) -> None:
        """The vectors between two blocks."""
        self.hidden.append((x_PD if self.live else x_PD.detach()).float())
        self.layouts.append(layout)

    def measure(self, **vectors: Tensor) -> None:
        """The lengths of the named vectors of one block."""
        self.sizes.append({name: torch.linalg.vector_norm(x.detach().float(), dim=-1) for name, x in vectors.items()})
