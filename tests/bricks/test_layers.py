"""Norms, feed-forward layers and the start of weights, against their formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from conftest import batch_of, documents_of, tiny_model
from encodery.bricks import products
from encodery.bricks.dropout import add_dropped, dropout
from encodery.bricks.layers import FeedForward, initialise, make_norm
from encodery.bricks.products import Linear


@pytest.mark.parametrize("name", ["layernorm", "rmsnorm"])
def test_norms_follow_their_formulas(name: str) -> None:
    norm, x = make_norm(name, 16, epsilon=1e-3), torch.randn(5, 16) * 3 + 1  # type: ignore[arg-type]
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)  # type: ignore[union-attr,operator]
    centred = x - x.mean(dim=1, keepdim=True) if name == "layernorm" else x
    expected = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-3).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "rmsnorm"},
        {"qk_norm": True},
        {"norm": "layernorm"},
        {"norm": "batchnorm"},
        {"kind": "recurrent", "norm": "rmsnorm"},
        {"kind": "hierarchical", "segment": 4, "norm": "rmsnorm"},
    ],
    ids=str,
)
def test_norms_learn_in_bf16_without_a_warning(options: dict[str, Any]) -> None:
    """PyTorch warns once in a process, so that only the first run of a day would show it."""
    model = tiny_model(**options).train()
    batch = batch_of([documents_of([9, 6]), documents_of([12], seed=1)], 16)
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            vectors = model.encode(batch).vectors
        vectors.float().square().mean().backward()
    finally:
        torch.set_warn_always(always)
    norms = [part for part in model.encoder.modules() if isinstance(part, torch.nn.RMSNorm)]
    assert all(part.weight.grad is not None and part.weight.grad.dtype == torch.float32 for part in norms)


def test_rmsnorm_rounds_once() -> None:
    """What goes in and comes out has the 8 bits of bf16, what happens between the 24 of float32."""
    norm, x = make_norm("rmsnorm", 64), torch.randn(20, 64).bfloat16()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)  # type: ignore[union-attr,operator]
    found = norm(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, norm(x.float()).bfloat16())


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


@pytest.mark.parametrize("rate", [0.004, 0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_drops_its_share(rate: float) -> None:
    """Also of each of the eight numbers that one draw decides on: its bits must all be random."""
    torch.manual_seed(1)
    x = torch.ones(40_000, 8, requires_grad=True)
    y = dropout(x, rate, training=True)
    share = round(256 * rate) / 256
    dropped = (y == 0).float().mean(dim=0)
    tolerance = 4 * math.sqrt(share * (1 - share) / 40_000)
    assert torch.all((dropped - share).abs() < tolerance), dropped
    assert y.mean().item() == pytest.approx(1.0, abs=4 * math.sqrt(share / (1 - share) / 320_000))
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())  # type: ignore[arg-type]


def test_dropped_numbers_are_independent_of_their_neighbours() -> None:
    torch.manual_seed(2)
    kept = (dropout(torch.ones(40_000, 8), 0.5, training=True) > 0).float()
    joint = kept.T @ kept / len(kept)
    off_diagonal = joint[~torch.eye(8, dtype=torch.bool)]
    assert (off_diagonal - 0.25).abs().max() < 0.012


def test_dropout_follows_the_seed_and_rests_while_a_model_is_used() -> None:
    x = torch.randn(7, 3)
    torch.manual_seed(3)
    first = dropout(x, 0.3, training=True)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.3, training=True), first)
    assert dropout(x, 0.3, training=False) is x
    assert dropout(x, 0.0, training=True) is x
    assert dropout(x.bfloat16(), 0.3, training=True).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("inputs", "outputs"), [(8, 12), (12, 8)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("has_bf16", [True, False])
def test_linear_is_pytorch_s_own_with_the_same_gradients(
    dtype: torch.dtype, inputs: int, outputs: int, bias: bool, has_bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where oneDNN has no kernel for bf16."""
    if has_bf16 and dtype == torch.bfloat16 and not products.onednn_has_bf16:
        pytest.skip("this processor has no kernel for bf16")
    monkeypatch.setattr(products, "onednn_has_bf16", has_bf16)
    torch.manual_seed(4)
    mine, own = Linear(inputs, outputs, bias=bias), torch.nn.Linear(inputs, outputs, bias=bias)
    own.load_state_dict(mine.state_dict())
    x, seen = torch.randn(2, 5, inputs), torch.randn(2, 5, outputs)
    found = []
    for layer in (mine, own):
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            y = layer(given)
        assert y.dtype == dtype
        found.append([y.float(), *torch.autograd.grad(y, [given, *layer.parameters()], seen.to(dtype))])
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    for one, other in zip(*found):
        assert one.dtype == other.dtype == torch.float32
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


def test_adding_a_dropped_change_is_dropout_and_a_sum() -> None:
    x, change = torch.randn(6, 4), torch.randn(6, 4)
    found = []
    for way in (lambda c: add_dropped(x, c, 0.4, True), lambda c: x + dropout(c, 0.4, True)):
        torch.manual_seed(5)
        given = change.clone().requires_grad_()
        y = way(given)
        found.append((y.detach(), *torch.autograd.grad(y.square().sum(), given)))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other)
    assert torch.equal(add_dropped(x, change, 0.4, False), x + change)
