"""Whether the encoder is compiled for a run: decided from the device, the budget and the tools of the machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from encodery.encoders.attention import Attention
from encodery.encoders.hierarchical import HierarchicalAttention, HierarchicalTransformer
from encodery.encoders.kernels import has_constant_shapes
from encodery.encoders.kinds import Encoder
from encodery.encoders.pattern_rules import Pattern
from encodery.encoders.transformer import Transformer
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
        """Compile the blocks of the encoder for the one shape that they see in every step. What cannot be compiled runs
        as it is, and so does what has other shapes in each step: each would take half a minute of compiling."""
        if not self.active:
            return
        torch._dynamo.config.suppress_errors = True
        for block in blocks_of_one_shape(model.encoder):
            for part in block.modules():
                if isinstance(part, Attention) and not has_constant_shapes(_local_pattern(part), model.device):
                    part.attend = cast(Callable[..., Tensor], torch.compiler.disable(part.attend))
            block.compile(dynamic=False)


def blocks_of_one_shape(encoder: Encoder) -> list[nn.Module]:
    """The blocks over all positions of a batch, as many in each step: not those over segments, nor those over halved
    documents, of which there are more or fewer."""
    if isinstance(encoder, HierarchicalAttention | HierarchicalTransformer):
        return list(encoder.words.blocks)
    blocks = list(encoder.blocks)
    if isinstance(encoder, Transformer) and encoder.config.halve_after:
        config = encoder.config
        return blocks[: config.halve_after[0] * config.blocks // config.depth]
    return blocks


def _local_pattern(attention: Attention) -> Pattern:
    """The pattern of the blocks that do not look at whole documents, where there are any."""
    config = attention.config
    return next(
        (config.pattern_of(block) for block in range(config.depth) if not config.looks_far(block)), Pattern("full")
    )


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
