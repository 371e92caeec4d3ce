"""Whether the encoder is compiled for a run: decided from the device, the budget and the tools of the machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Literal

import torch

from encodery.model import Model
from encodery.training.budget import Budget

CompileName = Literal["auto", "on", "off"]

# What a compilation of a block's shapes must be spread over before it is earned back. It takes half a minute to a
# minute; less than a tenth of the time that is left should go into it.
WORTH_IT: dict[str, float] = {"seconds": 600, "steps": 5_000, "tokens": 50e6}


@dataclass(frozen=True)
class Compilation:
    """The decision and its reason, as a sentence for the log."""

    active: bool
    reason: str

    def apply(self, model: Model) -> None:
        """Compile each block of the encoder for the shapes it will see. What cannot be compiled runs as it is."""
        if not self.active:
            return
        torch._dynamo.config.suppress_errors = True
        for block in model.encoder.blocks:
            block.compile(dynamic=False)


def choose_compilation(wanted: CompileName, device: torch.device, budget: Budget, epoch_tokens: int) -> Compilation:
    """`on` and `off` are followed, but for a machine without a compiler; `auto` compiles on a GPU when the budget is
    long enough. On a CPU the steps are written by hand for it, and compiled ones were no faster."""
    if wanted == "off":
        return Compilation(False, "not compiled, as asked")
    if device.type == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        return Compilation(False, "not compiled: there is no C++ compiler")
    if wanted == "on":
        return Compilation(True, "compiled, as asked")
    if device.type == "cpu":
        return Compilation(False, "not compiled: on a CPU the steps written by hand are as fast")
    amount = budget.amount if budget.kind != "epochs" else budget.amount * epoch_tokens
    enough = WORTH_IT["tokens" if budget.kind == "epochs" else budget.kind]
    if amount < enough:
        return Compilation(False, f"not compiled: {budget} would not earn back the time it takes")
    return Compilation(True, f"compiled: {budget} earns back the time it takes")
