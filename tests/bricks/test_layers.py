"""Norms, feed-forward layers and the start of weights, against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from encodery.bricks.layers import FeedForward, initialise, make_norm


@pytest.mark.parametrize("name", ["layernorm", "rmsnorm"])
def test_norms_follow_their_formulas(name: str) -> None:
    norm, x = make_norm(name, 16, epsilon=1e-3), torch.randn(5, 16) * 3 + 1  # type: ignore[arg-type]
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)  # type: ignore[union-attr,operator]
    centred = x - x.mean(dim=1, keepdim=True) if name == "layernorm" else x
    expected = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-3).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize(
    ("name", "function"),
    [("relu", F.relu), ("gelu", F.gelu), ("silu", F.silu), ("geglu", F.gelu), ("swiglu", F.silu)],
)
def test_feed_forward_is_the_formula(name: str, function) -> None:
    layer, x = FeedForward(8, 12, activation=name), torch.randn(3, 8)  # type: ignore[arg-type]
    hidden = x @ layer.inner.weight.T + layer.inner.bias
    hidden = function(hidden[:, :12]) * hidden[:, 12:] if name.endswith("glu") else function(hidden)
    torch.testing.assert_close(layer(x), hidden @ layer.outer.weight.T + layer.outer.bias)


def test_initialise_draws_from_the_generator_and_shrinks_the_ends_of_branches() -> None:
    def fresh(seed: int) -> FeedForward:
        layer = FeedForward(64, 256, activation="gelu")
        initialise(layer, std=0.02, depth=8, generator=torch.Generator().manual_seed(seed))
        return layer

    one, same, other = fresh(1), fresh(1), fresh(2)
    assert torch.equal(one.inner.weight, same.inner.weight)
    assert not torch.equal(one.inner.weight, other.inner.weight)
    assert float(one.inner.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(one.outer.weight.detach().std()) == pytest.approx(0.02 / math.sqrt(16), rel=0.05)
    assert not one.inner.bias.any()
