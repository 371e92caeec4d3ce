"""Parameter groups, AdamW and Muon, learning-rate schedules, gradient clipping and averaged weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from encodery.config import Config

ScheduleName = Literal["cosine", "linear", "wsd", "constant"]


class OptimConfig(Config):
    """How gradients become steps."""

    kind: Literal["adamw", "muon"] = "adamw"
    """adamw; or muon for the matrices of the encoder, with adamw for everything else."""
    lr: float = Field(default=1e-3, gt=0, le=1)
    """Highest learning rate of AdamW."""
    muon_lr: float = Field(default=0.01, gt=0, le=1)
    """Highest learning rate of Muon; steps have the size of AdamW's at 1/5 of this rate."""
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    """Decoupled weight decay on matrices; never on biases, norms and embeddings."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's memory of the gradient and of its square."""
    schedule: ScheduleName = "cosine"
    """cosine, linear, wsd (warm-up, stable, decay over the last fifth), constant; all after a warm-up."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the run in which the rate rises from 0."""
    final_share: float = Field(default=0.0, ge=0, le=1)
    """Rate at the end as a share of the highest."""
    clip: float = Field(default=1.0, ge=0)
    """Longest gradient norm; longer ones are scaled down. 0: no clipping."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """The rate of each layer is this times the rate of the layer above it (fine-tuning); 1: all alike."""


TABLES = re.compile(r"frontend|encoder\.(\w+\.)?(positions|distance|entities)|readout\.links\.relations")
"""Embeddings of words, positions, entities, relations: their rows are learned one by one, and not pulled towards 0."""


def rate_at(config: OptimConfig, progress: float) -> float:
    """The learning rate as a share of its highest, when `progress` (0 to 1) of the run is done."""
    progress = min(1.0, max(0.0, progress))
    if progress < config.warmup:
        return progress / config.warmup
    if config.schedule == "constant":
        return 1.0
    done = (progress - config.warmup) / (1 - config.warmup)
    if config.schedule == "cosine":
        shape = 0.5 * (1 + math.cos(math.pi * done))
    elif config.schedule == "linear":
        shape = 1 - done
    else:
        shape = min(1.0, (1 - progress) / 0.2)
    return config.final_share + (1 - config.final_share) * shape


def make_optimizer(model: nn.Module, config: OptimConfig, *, depth: int) -> Optimizers:
    """Sort the parameters into groups and build their optimizers.

    Matrices inside blocks (of the encoder, of a generator or a decoder) go to Muon when chosen; embeddings, norms,
    biases and all else of readouts always to AdamW (Jordan 2024; Liu et al. 2025, "Muon is Scalable for LLM Training").
    Every parameter is in exactly one group.
    """
    groups: dict[tuple[str, bool, float], list[Tensor]] = {}
    blocks: Iterable[nn.Module] = getattr(getattr(model, "encoder", None), "blocks", [])
    block_of = {id(parameter): number for number, block in enumerate(blocks) for parameter in block.parameters()}
    stacks = [getattr(part, "blocks", None) for part in model.modules()]
    stacked = {id(p) for stack in stacks if isinstance(stack, nn.ModuleList) for p in stack.parameters()}
    stacked |= block_of.keys()
    passed = 0  # blocks that come before the parameter
    for name, parameter in model.named_parameters():
        number = block_of.get(id(parameter))
        passed = passed if number is None else max(passed, number + 1)
        if not parameter.requires_grad:
            continue
        matrix = parameter.dim() >= 2
        which = "muon" if config.kind == "muon" and id(parameter) in stacked and matrix else "adamw"
        decays = matrix and not TABLES.match(name)
        share = config.layer_decay ** _layers_above(name, number, passed, depth)
        groups.setdefault((which, decays, share), []).append(parameter)
    built: list[torch.optim.Optimizer] = []
    for which in ("muon", "adamw"):
        chosen = [
            {"params": parameters, "share": share, "weight_decay": config.weight_decay if decays else 0.0}
            for (owner, decays, share), parameters in groups.items()
            if owner == which
        ]
        if chosen and which == "muon":
            built.append(Muon(chosen, lr=config.muon_lr))
        elif chosen:
            built.append(torch.optim.AdamW(chosen, lr=config.lr, betas=config.betas, eps=1e-8, fused=True))
    return Optimizers(built, config)


def _layers_above(name: str, number: int | None, passed: int, depth: int) -> int:
    """How many layers lie between a parameter and the readout. `number` is that of its block; what stands outside of
    the blocks counts as the part that follows the last one `passed`."""
    if name.startswith("readout"):
        return 0
    if number is not None:
        return depth - number
    return depth + 1 - (passed if name.startswith("encoder") else 0)


class Optimizers:
    """Several optimizers that step together and follow one schedule."""

    def __init__(self, parts: list[torch.optim.Optimizer], config: OptimConfig) -> None:
        self.parts = parts
        self.config = config
        self.highest = [part.defaults["lr"] for part in parts]
        self.parameters = [p for part in parts for group in part.param_groups for p in group["params"]]

    def step(self, progress: float, *, scale: float) -> tuple[float, float]:
        """Scale the gradients, clip, and step. Returns the rate's share of its highest and the gradient norm.

        `scale` turns summed gradients into means. When the norm is not finite nothing is changed.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        size = scale * float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(size):
            return 0.0, size
        if self.config.clip and self.config.clip < size:
            scale *= self.config.clip / (size + 1e-6)
        torch._foreach_mul_(gradients, scale)
        share = rate_at(self.config, progress)
        for part, highest in zip(self.parts, self.highest):
            for group in part.param_groups:
                group["lr"] = highest * share * group["share"]
            part.step()
        self.zero_grad()
        return share, size

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {str(number): part.state_dict() for number, part in enumerate(self.parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for number, part in enumerate(self.parts):
            part.load_state_dict(state[str(number)])


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are made orthogonal before each step (Jordan 2024).

    Update: `orthogonal(momentum)`, scaled by `0.2 * sqrt(max(rows, columns))`, so that its entries are as large as
    AdamW's and one learning rate fits all shapes (Liu et al. 2025, section 2.2). Matrices of the same shape are
    made orthogonal together; a joint query-key-value matrix is treated as its three parts.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        del closure
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                # Nesterov: look ahead along the momentum.
                update = parameter.grad.lerp(momentum, group["momentum"])
                if group["weight_decay"]:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                for part, piece in _square_parts(parameter, update):
                    by_shape.setdefault(part.shape, []).append((part, piece))
            for shape, pairs in by_shape.items():
                orthogonal = orthogonalise(torch.stack([update for _, update in pairs]))
                rate = 0.2 * math.sqrt(max(shape)) * group["lr"]
                torch._foreach_add_([part for part, _ in pairs], list(orthogonal.unbind(0)), alpha=-rate)


def _square_parts(parameter: Tensor, update: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Split a (3 D, D) matrix into its three squares; others stay whole."""
    rows, columns = parameter.shape
    if rows == 3 * columns:
        return list(zip(parameter.chunk(3), update.chunk(3)))
    return [(parameter, update)]


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix to each of (n, rows, columns), roughly, without an SVD.

    Newton-Schulz iteration of fifth order with the coefficients of Jordan (2024): singular values end between
    about 0.7 and 1.2. Runs in bfloat16, which the iteration tolerates.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).bfloat16()
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    x = x.transpose(1, 2) if tall else x
    return x.to(matrices.dtype)


class Averaged:
    """An exponential moving average of the weights (Polyak and Juditsky 1992), for evaluation and saving.

    The decay grows from 0 as (1 + n) / (10 + n) up to `decay`, so that short runs are averaged sensibly too.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {name: value.detach().clone() for name, value in model.named_parameters()}

    @torch.no_grad()
    def take(self, model: nn.Module, names: Iterable[str]) -> None:
        """Begin anew with the weights of these names as they are."""
        for name in names:
            self.weights[name].copy_(model.get_parameter(name))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current = [value.detach() for _, value in model.named_parameters()]
        torch._foreach_lerp_(list(self.weights.values()), current, 1 - decay)
