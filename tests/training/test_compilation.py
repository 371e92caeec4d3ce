"""When the encoder is compiled, and that a compiled one learns the same."""

from __future__ import annotations

import shutil

import pytest
import torch

from conftest import batch_of, documents_of, tiny_model
from encodery.training import compilation as room
from encodery.training.budget import parse_budget
from encodery.training.compilation import Compilation, choose_compilation

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("wanted", "device", "budget", "active", "reason"),
    [
        ("auto", CPU, "10h", False, "on a CPU"),
        ("auto", GPU, "2m", False, "2m would not earn back"),
        ("auto", GPU, "1h", True, "60m earns back"),
        ("auto", GPU, "200 steps", False, "would not"),
        ("auto", GPU, "3 epochs", True, "earns back"),  # of 20 million tokens
        ("off", GPU, "10h", False, "as asked"),
        ("on", GPU, "1s", True, "as asked"),
    ],
)
def test_it_is_decided_from_device_and_budget(
    wanted: room.CompileName, device: torch.device, budget: str, active: bool, reason: str
) -> None:
    found = choose_compilation(wanted, device, parse_budget(budget), epoch_tokens=20_000_000)
    assert found.active is active and reason in found.reason


def test_a_machine_without_a_compiler_goes_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = choose_compilation("on", CPU, parse_budget("1h"), 0)
    assert not found.active and "no C++ compiler" in found.reason


def test_a_compiled_encoder_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the code generator, which takes minutes: what is held is that blocks are captured and still right."""
    model, twin = tiny_model(), tiny_model()
    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: original(self, backend="eager", **how))
    Compilation(True, "").apply(model)
    batch = batch_of([documents_of([9, 6]), documents_of([12], seed=1)], 16)
    found = []
    for one in (model, twin):
        vectors = one.encode(batch).vectors
        vectors.square().sum().backward()
        found.append((vectors.detach(), {name: p.grad for name, p in one.named_parameters()}))
    torch.testing.assert_close(found[0], found[1])
