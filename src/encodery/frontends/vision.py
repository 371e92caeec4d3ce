"""Pictures become vectors: each patch of pixels one, and before them one that speaks for the whole picture."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from encodery.batch import Batch, States, layout_of
from encodery.bricks.layers import initialise
from encodery.bricks.products import Linear
from encodery.errors import DataError
from encodery.frontends.options import VisionConfig


def cut_in_patches(pixels: Tensor, patch: int) -> Tensor:
    """Pictures (N, channels, height, width) -> their patches from left to right and top to bottom, each as one row of
    numbers, channel by channel: (N, patches, channels * patch * patch)."""
    N, channels, height, width = pixels.shape
    cut = pixels.reshape(N, channels, height // patch, patch, width // patch, patch)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(N, -1, channels * patch * patch)


def batch_of_pictures(pixels: Tensor, config: VisionConfig, *, together: int = 1) -> Batch:
    """Pictures (N, channels, height, width), already scaled as the model expects, as a Batch: `together` in each row.

    The first position of each is for the picture as a whole; `grid` says the row and column of the others, from 1.
    Raises DataError for pictures of another size.
    """
    wanted = (config.channels, config.height, config.width)
    if pixels.dim() != 4 or tuple(pixels.shape[1:]) != wanted:
        raise DataError(
            f"pictures of shape {list(pixels.shape)}", expected=f"(pictures, channels, height, width): [N, {wanted}]"
        )
    rows, columns = config.height // config.patch, config.width // config.patch
    length, N = 1 + rows * columns, len(pixels)
    sizes = [[length] * len(range(first, min(first + together, N))) for first in range(0, N, together)]
    layout = layout_of(sizes, together * length)
    own = pixels.new_zeros(N, length, config.channels * config.patch**2)
    own[:, 1:] = cut_in_patches(pixels, config.patch)
    places = torch.cartesian_prod(torch.arange(1, rows + 1), torch.arange(1, columns + 1))
    grid = torch.zeros(layout.positions, 2, dtype=torch.int64)
    values = pixels.new_zeros(layout.positions, own.shape[-1])
    for start, picture in zip(layout.starts.tolist(), own):
        values[start : start + length] = picture
        grid[start + 1 : start + length] = places
    return Batch({"pixels": values}, replace(layout, grid=grid))


class VisionFrontend(nn.Module):
    """Batch -> States: a linear layer on the pixels of each patch, and one learned vector at the first position of each
    picture, (P, channels * patch * patch) -> (P, D) (ViT, Dosovitskiy et al. 2021, equation 1; positions are the
    encoder's)."""

    def __init__(self, config: VisionConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.width = width
        self.patches = Linear(config.channels * config.patch**2, width)
        self.whole = nn.Parameter(torch.zeros(width))

    def initialise(self, generator: torch.Generator) -> None:
        initialise(self, std=0.02, depth=1, generator=generator)
        with torch.no_grad():
            self.whole.normal_(0.0, 0.02, generator=generator)

    def forward(self, batch: Batch) -> States:
        layout = batch.layout
        first = (layout.position == 0) & (layout.document >= 0)
        x_PD = self.patches(batch.values["pixels"])
        return States(torch.where(first[:, None], self.whole.to(x_PD.dtype), x_PD), layout)
