"""Many vectors to one: a document's vector from the vectors of its positions, on a ragged layout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encodery.batch import Layout, States
from encodery.bricks.choices import PoolingName
from encodery.bricks.products import Linear


def sum_by_document(x_PD: Tensor, layout: Layout) -> Tensor:
    """Add up the vectors of each document: (P, ...) -> (N, ...), padding left out. Sums in float32."""
    return sum_by_owner(x_PD, layout.document, layout.documents)


def sum_by_owner(x_PD: Tensor, owner_P: Tensor, owners: int) -> Tensor:
    """Add up the vectors of each owner, 0 to `owners` - 1: (P, ...) -> (owners, ...); those of -1 are left out."""
    total = torch.zeros(owners + 1, *x_PD.shape[1:], dtype=torch.float32, device=x_PD.device)
    # What belongs to nobody is collected in the extra first row, which is then dropped.
    return total.index_add(0, owner_P + 1, x_PD.float())[1:]


class Pooling(nn.Module):
    """States (P, D) -> one vector a document (N, D), in float32.

    `first` takes the vector of the first token, `mean` the average, `weighted` an average in which the i-th token
    counts i times (Muennighoff 2022, SGPT, section 3.1.1: where each token sees only those before it, later ones know
    more), `max` the largest value of each channel, and `attention` an average weighted by a learned score (Yang et al.
    2016, HAN, equations 5 to 7). With `hidden` the score is read from a hidden layer with tanh, as there; without, from
    the vector itself.
    """

    def __init__(self, name: PoolingName, width: int, *, hidden: bool = False) -> None:
        super().__init__()
        self.name = name
        self.hidden = Linear(width, width) if hidden and name == "attention" else None
        # A softmax does not see what is added to all of its scores: the bias is for old weights alone.
        self.score = nn.Linear(width, 1, bias=not hidden) if name == "attention" else None

    def forward(self, states: States) -> Tensor:
        x_PD, layout = states.vectors, states.layout.without_branches()
        if self.name == "first":
            return x_PD[layout.starts].float()
        if self.name == "mean":
            return sum_by_document(x_PD, layout) / layout.lengths[:, None]
        if self.name == "weighted":
            weight_P = layout.position.float() + 1
            summed = sum_by_document(x_PD.float() * weight_P[:, None], layout)
            return summed / sum_by_document(weight_P, layout)[:, None]
        if self.name == "max":
            index = (layout.document + 1)[:, None].expand_as(x_PD)
            lowest = torch.full((layout.documents + 1, x_PD.shape[1]), -torch.inf, device=x_PD.device)
            return lowest.scatter_reduce(0, index, x_PD.float(), "amax")[1:]
        assert self.score is not None
        told_PD = x_PD if self.hidden is None else torch.tanh(self.hidden(x_PD)).float()
        # Vectors may come in bf16 outside of autocast; the score's weights are float32.
        score_P = self.score(told_PD.to(self.score.weight.dtype)).float().squeeze(-1)
        # Softmax inside each document. Each takes off its own largest score: that of the batch would let a
        # neighbour with large scores push all of this document's weights to zero.
        index = layout.document + 1
        largest = torch.full((layout.documents + 1,), -torch.inf, device=score_P.device)
        largest = largest.scatter_reduce(0, index, score_P.detach(), "amax")
        weight_P = (score_P - largest[index]).exp()
        total = sum_by_document(weight_P, layout)
        return sum_by_document(x_PD.float() * weight_P[:, None], layout) / total[:, None]
