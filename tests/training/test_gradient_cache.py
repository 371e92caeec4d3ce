"""Gradient caching: the gradients of one huge batch, with the memory of a small one, and the same dropout twice."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

from conftest import batch_of, documents_of, tiny_model
from encodery.batch import Batch
from encodery.model import Model
from encodery.objectives.contrastive import Contrastive
from encodery.objectives.contrastive_options import EmbedConfig
from encodery.training.gradient_cache import Together, joint_gradients

READOUT = {"kind": "vector"}


def part_of_a_step(rows: list[int], objective: Contrastive, length: int) -> Batch:
    """Three texts a row, laid into lines of `length` positions."""
    texts = [(row, part) for row in rows for part in range(3)]
    found = [documents_of([3 + (row * part) % 4], seed=10 * row + part)[0] for row, part in texts]
    per_line = length // 8
    lines = [found[at : at + per_line] for at in range(0, len(found), per_line)]
    batch = batch_of(lines, length)
    uids, parts = (np.array([text[side] for text in texts]) for side in (0, 1))
    batch = Batch(batch.values, batch.layout, {}, uids, parts)
    return objective.prepare(batch, np.random.default_rng(0), 0.0)


def gradients(model: Model) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("options", [{}, {"symmetric": True, "dimensions": (8, 16)}])
def test_many_small_batches_have_the_gradients_of_one_huge_batch(options: dict[str, Any]) -> None:
    objective = Contrastive(EmbedConfig(temperature=0.1, **options))
    assert isinstance(objective, Together)
    model = tiny_model(readout=READOUT).train()
    small = [part_of_a_step(rows, objective, 32) for rows in ([0, 1, 2], [3, 4], [5, 6, 7, 8])]
    huge = part_of_a_step(list(range(9)), objective, 32)
    cached = joint_gradients(model, objective, small, seeds=[1, 2, 3], autocast=nullcontext)
    ours = gradients(model)
    whole = joint_gradients(model, objective, [huge], seeds=[1], autocast=nullcontext)
    theirs = gradients(model)
    torch.testing.assert_close(cached.total, whole.total, rtol=1e-5, atol=1e-5)
    assert float(cached.count) == float(whole.count) == 9
    assert ours.keys() == theirs.keys() and len(ours) > 10
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-5)
    assert max(float(value.abs().max()) for value in ours.values()) > 1e-2


@pytest.mark.parametrize("norm", ["layernorm", "batchnorm"])
def test_dropout_is_the_same_in_both_passes_and_norms_remember_each_batch_once(norm: str) -> None:
    objective = Contrastive(EmbedConfig(temperature=0.1))
    small = [part_of_a_step(rows, objective, 32) for rows in ([0, 1, 2], [3, 4])]
    model = tiny_model(readout=READOUT, drop_rate=0.3, norm=norm).train()
    copy = tiny_model(readout=READOUT, drop_rate=0.3, norm=norm).train()
    seeds = [11, 12]
    joint_gradients(model, objective, small, seeds=seeds, autocast=nullcontext)
    outputs = []
    for batch, seed in zip(small, seeds):  # all graphs at once: what caching saves the memory of
        torch.manual_seed(seed)
        outputs.append(copy(batch))
    objective.joint_loss(outputs, small).total.backward()
    ours, theirs = gradients(model), gradients(copy)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-5)
    for (name, mine), (_, other) in zip(model.named_buffers(), copy.named_buffers()):
        torch.testing.assert_close(mine, other, msg=name)


def test_a_loss_that_is_not_a_number_adds_no_gradient() -> None:
    objective = Contrastive(EmbedConfig())
    model = tiny_model(readout=READOUT).train()
    with torch.no_grad():
        next(model.frontend.parameters()).fill_(float("nan"))
    small = [part_of_a_step(rows, objective, 32) for rows in ([0, 1, 2], [3, 4])]
    loss = joint_gradients(model, objective, small, seeds=[1, 2], autocast=nullcontext)
    assert not torch.isfinite(loss.total)
    assert not gradients(model)
