"""When the encoder is compiled, and that a compiled one learns the same."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch

from conftest import batch_of, documents_of, tiny_model
from encodery.training import compilation as room
from encodery.training.budget import parse_budget
from encodery.training.compilation import Compilation, choose_compilation

# The compiler looks at the gradients of all tensors; as an error this warning would end it, and all would run as it is.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
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


def without_code_generator(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The generator takes minutes: what is held is that blocks are captured. Gives the compiler's own counters."""
    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: original(self, backend="eager", **how))
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    return counters


def documents_at_random(rng: np.random.Generator) -> list[np.ndarray]:
    """Documents of a row of 128 tokens."""
    sizes = rng.integers(8, 60, size=4)
    return [rng.integers(5, 50, size=size) for size in sizes[sizes.cumsum() <= 128]]


CHANGING: list[dict[str, Any]] = [
    {"halve_after": [2], "depth": 3, "depth_drop_rate": 0.2},
    {"pattern": "window", "window": 8, "global_tokens": 1, "global_every": 2},
    {"kind": "hierarchical", "segment": 16, "cross_every": 1},
    {"kind": "hierarchical", "segment": 16, "style": "han"},
]


@pytest.mark.parametrize("options", CHANGING, ids=str)
def test_other_documents_need_no_other_compilation(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would take half a minute: with segments of other numbers in each step, minutes went by."""
    counters = without_code_generator(monkeypatch)
    model = tiny_model(**options, max_length=128).train()
    Compilation(True, "").apply(model)
    rng = np.random.default_rng(0)
    compiled = []
    for _ in range(3):
        batch = batch_of([documents_at_random(rng) for _ in range(4)], 128)
        model.encode(batch).vectors.square().mean().backward()
        compiled.append(counters["stats"]["unique_graphs"])
    assert compiled[0] > 0 and compiled == compiled[:1] * 3


def test_a_compiled_encoder_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = without_code_generator(monkeypatch)
    model, twin = tiny_model(), tiny_model()
    Compilation(True, "").apply(model)
    batch = batch_of([documents_of([9, 6]), documents_of([12], seed=1)], 16)
    found = []
    for one in (model, twin):
        vectors = one.encode(batch).vectors
        vectors.square().sum().backward()
        found.append((vectors.detach(), {name: p.grad for name, p in one.named_parameters()}))
    assert counters["stats"]["unique_graphs"] > 0
    torch.testing.assert_close(found[0], found[1])
