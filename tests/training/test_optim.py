"""Schedules, parameter groups, Muon, clipping and averaged weights, each against its definition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from conftest import tiny_config, tiny_model
from encodery.model import Model
from encodery.training.optim import Averaged, Muon, OptimConfig, make_optimizer, orthogonalise, rate_at


def rates(**config: Any) -> list[float]:
    return [rate_at(OptimConfig(**config), number / 1000) for number in range(1001)]


@pytest.mark.parametrize("final", [0.0, 0.1])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "constant"])
def test_schedules_rise_and_fall_as_they_should(schedule: str, warmup: float, final: float) -> None:
    found = rates(schedule=schedule, warmup=warmup, final_share=final)
    begin = round(1000 * warmup)
    for number in range(begin):
        assert found[number] == pytest.approx(number / begin)
    assert found[begin] == pytest.approx(1.0) and max(found) <= 1.0
    assert all(a >= b - 1e-12 for a, b in zip(found[begin:], found[begin + 1 :]))
    assert found[-1] == pytest.approx(1.0 if schedule == "constant" else final)
    middle = (begin + 1000) // 2
    done = (middle - begin) / (1000 - begin)
    expected = {
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
        "linear": 1 - done,
        "wsd": 1.0,
        "constant": 1.0,
    }[schedule]
    assert found[middle] == pytest.approx(final + (1 - final) * expected if schedule != "constant" else 1.0)
    if schedule == "wsd":
        assert found[800] == pytest.approx(1.0) and found[900] == pytest.approx(final + (1 - final) / 2)


def test_progress_outside_of_the_run_is_its_edge() -> None:
    assert rate_at(OptimConfig(), -1) == 0.0 and rate_at(OptimConfig(), 7) == pytest.approx(0.0)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("readout", [{"kind": "word"}, {"kind": "document", "pooling": "attention", "hidden": True}])
def test_every_parameter_is_in_exactly_one_group(kind: str, positions: str, readout: dict[str, Any]) -> None:
    model = Model(tiny_config(positions=positions, readout=readout))
    config = OptimConfig(kind=kind, weight_decay=0.3, layer_decay=0.8)  # type: ignore[arg-type]
    optimizers = make_optimizer(model, config, depth=2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, tuple[type, float, float]] = {}
    for part in optimizers.parts:
        for group in part.param_groups:
            for parameter in group["params"]:
                assert names[id(parameter)] not in found
                found[names[id(parameter)]] = (type(part), group["weight_decay"], group["share"])
    assert set(found) == set(names.values())
    for name, parameter in model.named_parameters():
        owner, decay, share = found[name]
        inside = name.startswith("encoder.blocks.") and parameter.dim() == 2
        assert (owner is Muon) == (kind == "muon" and inside)
        decays = parameter.dim() == 2 and not name.startswith(("frontend", "encoder.positions"))
        assert decay == (0.3 if decays else 0.0), name
        above = 0 if name.startswith("readout") else 3
        if name.startswith("encoder.blocks."):
            above = {"0": 2, "1": 1}[name.split(".")[2]]
        elif name.startswith("encoder.output_norm"):
            above = 1
        assert share == pytest.approx(0.8**above), name


def test_the_rate_of_a_layer_is_a_share_of_the_one_above() -> None:
    model = tiny_model()
    optimizers = make_optimizer(model, OptimConfig(layer_decay=0.5, warmup=0.0, schedule="constant", lr=0.01), depth=2)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizers.step(0.5, scale=1.0)
    moved = {name: float((p.detach() - before[name]).abs().mean()) for name, p in model.named_parameters()}
    top, bottom = moved["encoder.blocks.1.mlp.outer.bias"], moved["encoder.blocks.0.mlp.outer.bias"]
    assert bottom == pytest.approx(top / 2, rel=1e-3)
    assert moved["readout.bias"] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("shape", [(32, 32), (96, 32), (16, 80), (128, 24)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    """For well and badly conditioned matrices alike, and the directions stay."""
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(3, *shape, generator=generator)
    left, _, right = torch.linalg.svd(plain[1], full_matrices=False)
    plain[1] = left @ torch.diag(torch.logspace(0, -1.5, min(shape))) @ right
    found = orthogonalise(plain)
    assert found.shape == plain.shape and found.dtype == plain.dtype
    for given, result in zip(plain, found):
        values = torch.linalg.svdvals(result)
        assert values.min() > 0.6 and values.max() < 1.3
        left, _, right = torch.linalg.svd(given, full_matrices=False)
        turned = left.T @ result @ right.T  # nearly diagonal: the nearest orthogonal matrix has the same directions
        off = turned - torch.diag(torch.diag(turned))
        assert off.abs().max() < 0.15


def test_orthogonalise_leaves_lost_directions_at_zero() -> None:
    generator = torch.Generator().manual_seed(1)
    low = torch.randn(1, 40, 4, generator=generator) @ torch.randn(1, 4, 24, generator=generator)
    values = torch.linalg.svdvals(orthogonalise(low))[0]
    assert values[:4].min() > 0.6 and values.max() < 1.3
    # Rounding to bfloat16 puts a little into the other directions, which is then raised too; it stays smaller.
    assert torch.isfinite(values).all()
    assert not orthogonalise(torch.zeros(2, 8, 8)).any()


def test_a_muon_step_is_its_formula() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(16, 48))
    begin = weight.detach().clone()
    muon = Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.2)
    momentum = torch.zeros_like(weight)
    expected = begin
    for _ in range(3):
        gradient = torch.randn(16, 48)
        weight.grad = gradient.clone()
        muon.step()
        momentum = 0.9 * momentum + 0.1 * gradient
        update = orthogonalise((0.1 * gradient + 0.9 * momentum)[None])[0]
        expected = expected * (1 - 0.1 * 0.2) - 0.1 * 0.2 * math.sqrt(48) * update
        torch.testing.assert_close(weight.detach(), expected, atol=2e-4, rtol=1e-3)


def test_muon_treats_queries_keys_and_values_apart() -> None:
    torch.manual_seed(0)
    joint = nn.Parameter(torch.zeros(48, 16))
    gradient = torch.randn(48, 16) * torch.tensor([100.0, 1.0, 0.01]).repeat_interleave(16)[:, None]
    joint.grad = gradient
    Muon([joint], lr=1.0).step()
    sizes = [float(part.norm()) for part in joint.detach().chunk(3)]
    assert max(sizes) < 1.3 * min(sizes)


@pytest.mark.parametrize("clip", [0.0, 0.5, 1e6])
def test_long_gradients_are_clipped_by_their_common_norm(clip: float) -> None:
    model = nn.Linear(3, 2)
    optimizers = make_optimizer(model, OptimConfig(clip=clip, lr=1e-9, warmup=0.0), depth=0)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 8
    seen: list[torch.Tensor] = []
    given = torch.cat([p.grad.flatten() for p in model.parameters()]) / 4  # type: ignore[union-attr]
    optimizers.parts[0].step = lambda: seen.append(  # type: ignore[method-assign,assignment]
        torch.cat([p.grad.flatten() for p in model.parameters()])  # type: ignore[union-attr]
    )
    _, norm = optimizers.step(0.5, scale=0.25)
    assert norm == pytest.approx(float(given.norm()))
    expected = given if not clip or norm < clip else given * clip / norm
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    model = nn.Linear(3, 2)
    optimizers = make_optimizer(model, OptimConfig(), depth=0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, bad)
    share, norm = optimizers.step(0.5, scale=1.0)
    assert share == 0.0 and not math.isfinite(norm)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    assert not optimizers.parts[0].state


def test_averaged_weights_by_hand() -> None:
    model = nn.Linear(2, 1, bias=False)
    averaged = Averaged(model, 0.9)
    expected = model.weight.detach().clone()
    for number in range(1, 200):
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[float(number), -number / 2]]))
        averaged.update(model)
        decay = min(0.9, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(averaged.weights["weight"], expected)
    assert averaged.updates == 199
