"""Pooling on a ragged layout equals a loop over documents."""

from __future__ import annotations

import pytest
import torch

from encodery.batch import States, layout_of
from encodery.bricks.pooling import Pooling, sum_by_document

ROWS = [[3, 1, 5], [], [9], [2, 2]]


def by_loop(pooling: Pooling, states: States) -> torch.Tensor:
    found = []
    for start, size in zip(states.layout.starts.tolist(), states.layout.lengths.tolist()):
        x = states.vectors[start : start + size].float()
        if pooling.name == "first":
            found.append(x[0])
        elif pooling.name == "mean":
            found.append(x.sum(0) / size)
        elif pooling.name == "weighted":
            weight = torch.arange(1.0, size + 1)
            found.append((weight[:, None] * x).sum(0) / weight.sum())
        elif pooling.name == "max":
            found.append(torch.stack([x[:, channel].max() for channel in range(x.shape[1])]))
        else:
            assert pooling.score is not None
            weight = torch.softmax((x @ pooling.score.weight[0] + pooling.score.bias).double(), 0)
            found.append((weight[:, None] * x.double()).sum(0).float())
    return torch.stack(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "outside"])
@pytest.mark.parametrize("name", ["first", "mean", "weighted", "max", "attention"])
def test_pooling_equals_a_loop_over_documents(name: str, autocast: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layout = layout_of(ROWS, 10)
    vectors = torch.randn(40, 16)
    vectors[layout.document < 0] = 1e4  # whatever stands in the padding
    pooling = Pooling(name, 16)  # type: ignore[arg-type]
    states = States(vectors.to(dtype), layout)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast and dtype == torch.bfloat16):
        found = pooling(states)
    assert found.shape == (6, 16) and found.dtype == torch.float32
    close = {"atol": 2e-2, "rtol": 2e-2} if dtype == torch.bfloat16 and name == "attention" else {}
    torch.testing.assert_close(found, by_loop(pooling, states), **close)


def test_a_neighbour_with_far_larger_scores_leaves_attention_pooling_alone() -> None:
    """Row 23: scores of 0 and of 1,000 in one batch."""
    layout = layout_of([[2, 2]], 4)
    pooling = Pooling("attention", 2)
    with torch.no_grad():
        pooling.score.weight.copy_(torch.tensor([[1.0, 0.0]]))  # type: ignore[union-attr]
        pooling.score.bias.zero_()  # type: ignore[union-attr]
    vectors = torch.tensor([[0.0, 1.0], [2.0, 5.0], [1000.0, 1.0], [1000.0, 3.0]])
    weight = torch.softmax(torch.tensor([0.0, 2.0]), 0)
    expected = torch.tensor([float(weight @ torch.tensor([1.0, 5.0])), 2.0])
    torch.testing.assert_close(pooling(States(vectors, layout))[:, 1], expected)


@pytest.mark.parametrize("name", ["mean", "weighted", "max", "attention", "first"])
def test_pooling_has_the_gradients_of_the_loop(name: str) -> None:
    torch.manual_seed(1)
    layout = layout_of(ROWS, 10)
    vectors = torch.randn(40, 4, requires_grad=True)
    pooling = Pooling(name, 4)  # type: ignore[arg-type]
    states = States(vectors, layout)
    (ours,) = torch.autograd.grad(pooling(states).square().sum(), vectors)
    (theirs,) = torch.autograd.grad(by_loop(pooling, states).square().sum(), vectors)
    torch.testing.assert_close(ours, theirs)
    assert not ours[layout.document < 0].any()


def test_sums_are_in_float32_and_leave_padding_out() -> None:
    layout = layout_of([[2], [1]], 3)
    x = torch.tensor([256.0, 1.0, 99.0, 5.0, 99.0, 99.0], dtype=torch.bfloat16)
    assert sum_by_document(x, layout).tolist() == [257.0, 5.0]
