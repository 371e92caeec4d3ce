"""Multi-head self-attention over a ragged batch: the one Attention of the project.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(K)) V            ("Attention Is All You Need", equation 1)

How equation 1 is computed fastest depends on the layout and the machine: kernels.py.
"""

from __future__ import annotations

from torch import Tensor, nn

from encodery.batch import Layout
from encodery.bricks.positions import Angles
from encodery.bricks.products import Linear
from encodery.encoders.kernels import attend
from encodery.encoders.patterns import Pattern


class Attention(nn.Module):
    """Multi-head self-attention: (P, D) -> (P, D) ("Attention Is All You Need", section 3.2.2).

    Queries, keys and values come from one product. Whether the batch is padded or packed is a matter of the layout,
    who may look at whom of the pattern.
    """

    def __init__(self, width: int, heads: int, *, bias: bool = True, drop_rate: float = 0.0) -> None:
        super().__init__()
        assert width % heads == 0, f"width {width} is not a multiple of heads {heads}"
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=bias)
        self.outer = Linear(width, width, bias=bias)
        self.drop_rate = drop_rate

    def forward(
        self, x_PD: Tensor, layout: Layout, pattern: Pattern, angles: Angles | None = None, at: Tensor | None = None
    ) -> Tensor:
        """With `at` (M,) the answers of these positions alone: (M, D)."""
        qkv_P3HK = self.qkv(x_PD).view(len(x_PD), 3, self.heads, -1)
        mixed_PD = attend(qkv_P3HK, layout, pattern, angles, self.drop_rate if self.training else 0.0)
        return self.outer(mixed_PD if at is None else mixed_PD[at])
