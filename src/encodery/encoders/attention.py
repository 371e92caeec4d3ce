"""Multi-head self-attention over a ragged batch: the one Attention of the project, and its kernels.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(K)) V            ("Attention Is All You Need", equation 1)

Every kernel below gives the same numbers; they differ in which shapes they are fast at.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.batch import Layout
from encodery.bricks.layers import dropout
from encodery.bricks.positions import rotate

# On a CPU the fused kernel's backward pass is slower than plain products up to about this row length.
PLAIN_UP_TO = 256


def attend_plain(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, bias_B1TT: Tensor, drop_rate: float) -> Tensor:
    """Equation 1 as two matrix products around a softmax; holds the (B, H, T, T) weights in memory."""
    score_BHTT = (q_BHTK / math.sqrt(q_BHTK.shape[-1])) @ k_BHTK.transpose(-1, -2)
    weight_BHTT = torch.softmax(score_BHTT + bias_B1TT, dim=-1)
    return dropout(weight_BHTT, drop_rate, True) @ v_BHTK


def attend_fused(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, bias_B1TT: Tensor, drop_rate: float) -> Tensor:
    """Equation 1 by PyTorch's fused kernel, which never holds the whole weight matrix."""
    return F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, attn_mask=bias_B1TT, dropout_p=drop_rate)


def attend(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, bias_B1TT: Tensor, drop_rate: float) -> Tensor:
    """Pick the kernel by where the tensors live and by row length."""
    if q_BHTK.device.type == "cpu" and q_BHTK.shape[-2] <= PLAIN_UP_TO:
        return attend_plain(q_BHTK, k_BHTK, v_BHTK, bias_B1TT, drop_rate)
    return attend_fused(q_BHTK, k_BHTK, v_BHTK, bias_B1TT, drop_rate)


class Attention(nn.Module):
    """Multi-head self-attention: (P, D) -> (P, D) ("Attention Is All You Need", section 3.2.2).

    Queries, keys and values come from one product. Whether the batch is padded or packed is a matter of the bias
    alone, which says who may look at whom.
    """

    def __init__(self, width: int, heads: int, *, bias: bool = True, drop_rate: float = 0.0) -> None:
        super().__init__()
        assert width % heads == 0, f"width {width} is not a multiple of heads {heads}"
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.outer = nn.Linear(width, width, bias=bias)
        self.drop_rate = drop_rate

    def forward(
        self,
        x_PD: Tensor,
        layout: Layout,
        bias_B1TT: Tensor,
        angles: tuple[Tensor, Tensor] | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """With `at` (M,) the answers of these positions alone: (M, D)."""
        P, D = x_PD.shape
        q_PHK, k_PHK, v_PHK = self.qkv(x_PD).view(P, 3, self.heads, D // self.heads).unbind(1)
        if angles is not None:
            q_PHK, k_PHK = rotate(q_PHK, *angles), rotate(k_PHK, *angles)

        def by_rows(x_PHK: Tensor) -> Tensor:
            return x_PHK.view(layout.rows, layout.length, self.heads, -1).transpose(1, 2)

        drop_rate = self.drop_rate if self.training else 0.0
        mixed_BHTK = attend(by_rows(q_PHK), by_rows(k_PHK), by_rows(v_PHK), bias_B1TT, drop_rate)
        mixed_PD = mixed_BHTK.transpose(1, 2).reshape(P, D)
        return self.outer(mixed_PD if at is None else mixed_PD[at])
