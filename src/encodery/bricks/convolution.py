"""A convolution over the tokens of a document, on a ragged layout: no window reaches into another document."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.batch import Layout
from encodery.bricks.choices import ActivationName
from encodery.bricks.layers import FeedForward


def with_neighbours(x_PD: Tensor, layout: Layout, kernel: int) -> Tensor:
    """Each vector beside those of the tokens around it, `kernel` in all: (P, D) -> (P, kernel * D). Zeros stand where
    the document has ended."""
    reach = kernel // 2
    key = ("neighbours", kernel)
    if key not in layout.masks:
        with torch.inference_mode(False):
            documents = F.pad(layout.document, (reach, reach), value=-2).unfold(0, kernel, 1)
            layout.masks[key] = (documents == layout.document[:, None])[:, :, None]
    around = F.pad(x_PD, (0, 0, reach, reach)).unfold(0, kernel, 1).transpose(1, 2)  # (P, kernel, D)
    return (around * layout.masks[key].to(x_PD.dtype)).flatten(1)


class ConvolutionFeedForward(nn.Module):
    """A feed-forward layer whose first half sees `kernel` tokens at once: (P, D) -> (P, D) (FastSpeech, Ren et al.
    2019, section 3.1). One product over the vectors laid side by side, which is what a convolution is."""

    def __init__(self, width: int, mlp_width: int, kernel: int, *, activation: ActivationName, bias: bool) -> None:
        super().__init__()
        self.kernel = kernel
        self.layer = FeedForward(width, mlp_width, activation=activation, bias=bias, inputs=kernel * width)

    def forward(self, x_PD: Tensor, layout: Layout) -> Tensor:
        return self.layer(with_neighbours(x_PD, layout, self.kernel))
