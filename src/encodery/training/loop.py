"""The one training loop: batches in, better weights out, whatever the objective."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from encodery.batch import Batch, Output
from encodery.bricks.memory import keep_memory
from encodery.data.loader import Loader, Place, Prefetched
from encodery.encoders.transformer import Transformer
from encodery.errors import DataError, TrainingError
from encodery.model import Model
from encodery.objectives.masked import Loss
from encodery.training.adversary import Adversary
from encodery.training.gradient_cache import Together, joint_gradients
from encodery.training.gradients import add_gradients
from encodery.training.growth import Growth, GrowthConfig
from encodery.training.optim import Averaged, make_optimizer
from encodery.training.precision import Precision
from encodery.training.training_config import MOST_BATCHES_A_STEP, TrainingConfig

# This many steps in a row without a finite gradient end the run.
MOST_SKIPPED = 20


class Objective(Protocol):
    """What the loop needs of an objective."""

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch: ...

    def loss(self, output: Output, batch: Batch) -> Loss: ...


@runtime_checkable
class OwnLoader(Protocol):
    """An objective that makes its batches in a way of its own."""

    def loader(self, loader: Loader) -> Loader:
        """Another loader over the same rows, in the same order."""
        ...


@dataclass
class TrainState:
    """Everything a checkpoint must hold beside weights and optimizer: all of it numbers."""

    step: int = 0
    tokens: int = 0
    positions: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    place: Place = field(default_factory=Place)
    best_score: float | None = None
    kept_score: float | None = None
    kept_step: int = 0
    without_gain: int = 0
    blocks: int = 0
    validated_step: int = 0
    validated_progress: float = 0.0
    skipped: int = 0


@dataclass
class Fit:
    """A training in progress. `advance` runs it to its end; the hooks are told of what happens.

    `validate(model)` returns named numbers with `score` among them, higher is better. `on_step` and `on_score` get
    the row that belongs in the journal. `on_save` is asked to write a checkpoint. `stopping` is asked after each step
    whether to end early (a signal came); `tensors` and `restore` are what a checkpoint holds.
    """

    model: Model
    objective: Objective
    loader: Loader
    config: TrainingConfig
    precision: Precision
    seed: int
    epoch_tokens: int
    validate: Callable[[Model], dict[str, float]] | None = None
    on_step: Callable[[dict[str, Any]], None] = lambda row: None
    on_score: Callable[[dict[str, Any]], None] = lambda row: None
    on_save: Callable[[Fit], None] = lambda fit: None
    stopping: Callable[[], bool] = lambda: False
    state: TrainState = field(default_factory=TrainState)

    def __post_init__(self) -> None:
        depth = len(self.model.encoder.blocks)
        self.optimizers = make_optimizer(self.model, self.config.optim, depth=depth)
        self.growth = Growth(self.config.growth or GrowthConfig(), depth=depth, batches=self.config.accumulate)
        self.averaged = Averaged(self.model, self.config.average) if self.config.average else None
        self.best: dict[str, Tensor] | None = None
        self.last: list[dict[str, Tensor]] = []
        self.adversary = Adversary(self.model, self.config.adversarial) if self.config.adversarial else None
        self._began = time.perf_counter()
        self._before = 0.0
        self._validation_seconds = 0.0

    @property
    def progress(self) -> float:
        """Share of the budget used, 0 to 1. The time of the last validation is kept in reserve."""
        reserve = self._validation_seconds if self.config.budget.kind == "seconds" else 0.0
        state = self.state
        return self._share(state.seconds + reserve, state.step, state.tokens)

    def advance(self) -> bool:
        """Train until the budget is used, patience ends or `stopping` says so. True when the run is complete."""
        keep_memory()
        self._began, self._before = time.perf_counter(), self.state.seconds
        last_save = time.perf_counter()
        feed = Prefetched(self._feed())
        batches = iter(feed)
        waited_before = self.state.waited
        try:
            while self.progress < 1.0:
                if self.stopping():
                    self.on_save(self)
                    return False
                self._grow(self.growth.blocks_at(self.progress))
                row = self._step([next(batches) for _ in range(self.growth.batches_at(self.progress))])
                self.state.waited = waited_before + feed.waited
                self.on_step(row)
                if self._validation_due() and self._score():
                    break
                if self.config.save_every < time.perf_counter() - last_save:
                    self.on_save(self)
                    last_save = time.perf_counter()
        finally:
            feed.close()
        self._grow(self.growth.sizes[-1])
        if self.validate is not None and (self.state.validated_step < self.state.step or self.best is None):
            self._score()
        self._try_mean()
        return True

    def final_weights(self) -> dict[str, Tensor]:
        """The weights to keep: of the chosen validation, else the averaged ones, else the last."""
        return self.best if self.best is not None else self._candidate()

    def _share(self, seconds: float, steps: int, tokens: int) -> float:
        return self.config.budget.progress(seconds=seconds, steps=steps, tokens=tokens, epoch_tokens=self.epoch_tokens)

    def _feed(self) -> Iterator[tuple[Batch, Place]]:
        """Batches without end. Runs in the loader's thread, so it counts its own progress: masks then depend on
        what was fed, not on how far the other thread has come."""
        place, tokens, steps = self.state.place, self.state.tokens, self.state.step

        def progress() -> float:
            return self._share(self._elapsed(), steps, tokens)

        left = self.growth.batches_at(progress())
        while True:
            empty = True
            for batch, following in self.loader.epoch(place, progress):
                empty = False
                tokens += batch.tokens
                left -= 1
                if not left:
                    steps += 1
                    left = self.growth.batches_at(progress())
                yield batch, following
            if empty and place.window == 0:
                raise DataError(
                    "the training data has no rows to learn from",
                    fix="look at it with: encodery inspect data",
                )
            place = Place(place.epoch + 1)

    def _elapsed(self) -> float:
        return self._before + time.perf_counter() - self._began

    def _step(self, batches: list[tuple[Batch, Place]]) -> dict[str, Any]:
        """One optimizer step over the given batches: gradients are summed, then divided by the summed counts, so
        that four batches of 8 weigh exactly like one of 32."""
        state = self.state
        # Dropout is a function of the step, so a resumed run draws the same.
        torch.manual_seed((self.seed * 1_000_003 + state.step) % (1 << 62))
        self.model.train()
        total, terms, correct = 0.0, 0.0, 0.0
        parts: dict[str, float] = {}
        losses = self._losses([batch for batch, _ in batches])
        for loss in losses:
            total += float(loss.total)
            terms += float(loss.count)
            correct += float(loss.correct) if loss.correct is not None else 0.0
            for name, value in loss.parts.items():
                parts[name] = parts.get(name, 0.0) + float(value) / len(losses)
        for batch, following in batches:
            state.tokens += batch.tokens
            state.positions += batch.layout.positions
            state.place = following
        share, norm = 0.0, math.nan
        if math.isfinite(total):
            share, norm = self.optimizers.step(self.progress, scale=1.0 / max(terms, 1e-9))
        state.step += 1
        if self._sound(total, norm) and self.averaged is not None:
            self.averaged.update(self.model)
        state.seconds = self._elapsed()
        return {
            "step": state.step,
            "tokens": state.tokens,
            "seconds": state.seconds,
            "loss": total / max(terms, 1e-9),
            "accuracy": correct / max(terms, 1e-9),
            "learning_rate": share * self.config.optim.lr,
            "gradient_norm": norm,
            **({"blocks": state.blocks} if len(self.growth.sizes) > 1 else {}),
            **parts,
        }

    def _losses(self, batches: list[Batch]) -> list[Loss]:
        """Add the gradients of these batches to the model's; what they lost: each by itself, or all as one."""
        device, balance = self.model.device, self.config.expert_balance
        if isinstance(self.objective, Together):
            # Each batch may be seen twice: its dropout follows from a number, not from what was drawn before it.
            first = (self.seed * 1_000_003 + self.state.step) * MOST_BATCHES_A_STEP
            seeds = [(first + number) % (1 << 62) for number in range(len(batches))]
            moved = [batch.to(device) for batch in batches]
            autocast = partial(self.precision.autocast, device)
            given = {"seeds": seeds, "autocast": autocast, "expert_balance": balance}
            return [joint_gradients(self.model, self.objective, moved, **given)]
        losses = []
        for batch in batches:
            losses.append(
                add_gradients(
                    self.model,
                    self.objective,
                    batch.to(device),
                    autocast=partial(self.precision.autocast, device),
                    expert_balance=balance,
                    consistency=self.config.consistency,
                    adversary=self.adversary,
                )
            )
        return losses

    def _grow(self, blocks: int) -> None:
        """Let so many blocks work from here on."""
        encoder, state = self.model.encoder, self.state
        if len(self.growth.sizes) == 1:
            return
        assert isinstance(encoder, Transformer), "checked with the recipe"
        if not state.blocks or encoder.working != state.blocks:  # the beginning, or a run that is resumed
            encoder.working = state.blocks = state.blocks or blocks
        if state.blocks < blocks:
            joined = encoder.grow(blocks)
            state.blocks = blocks
            if self.averaged is not None:
                self.averaged.take(self.model, [f"encoder.{name}" for name in joined])

    @property
    def _grown(self) -> bool:
        return not self.state.blocks or self.state.blocks == self.growth.sizes[-1]

    def _sound(self, total: float, norm: float) -> bool:
        """A step whose loss or gradient is not a number changes nothing; many in a row end the run."""
        if math.isfinite(total) and math.isfinite(norm):
            self.state.skipped = 0
            return True
        self.optimizers.zero_grad()
        self.state.skipped += 1
        if self.state.skipped >= MOST_SKIPPED:
            raise TrainingError(
                f"the run diverged: {MOST_SKIPPED} steps in a row up to step {self.state.step} gave a loss or a "
                "gradient that is not a number",
                fix="lower training.optim.lr, raise training.optim.warmup, or set training.precision=fp32; "
                "the last checkpoint is kept and 'resume' goes on from it",
            )
        return False

    def _validation_due(self) -> bool:
        if self.validate is None or not self.config.validations:
            return False
        wanted = self.config.validations
        done = math.floor(self.state.validated_progress * wanted + 1e-9)
        return done < min(wanted, math.floor(self.progress * wanted + 1e-9))

    def _candidate(self) -> dict[str, Tensor]:
        weights = {name: value.detach() for name, value in self.model.named_parameters()}
        return dict(self.averaged.weights) if self.averaged is not None else weights

    def _try_mean(self) -> None:
        """Score the mean of the last weights, and keep it when it is better than the best."""
        if self.validate is None or len(self.last) < 2:
            return
        mean = {name: torch.stack([one[name] for one in self.last]).mean(0) for name in self.last[0]}
        self.last = []
        with borrowed(self.model, mean):
            scores = self.validate(self.model)
        state = self.state
        better = state.best_score is None or state.best_score < scores["score"]
        if better:
            state.best_score = state.kept_score = scores["score"]
            state.kept_step, self.best = state.step, mean
        row = {"step": state.step, "tokens": state.tokens, "seconds": state.seconds, **scores}
        self.on_score({**row, "mean_of": self.config.average_last, "kept_step": state.kept_step, "kept": better})

    def _score(self) -> bool:
        """Score the validation data; True when patience is at its end."""
        assert self.validate is not None
        state, begin = self.state, time.perf_counter()
        with borrowed(self.model, self._candidate()):
            scores = self.validate(self.model)
        self._validation_seconds = time.perf_counter() - begin
        if self.config.average_last and self._grown:
            found = {name: value.clone() for name, value in self._candidate().items()}
            self.last = [*self.last, found][-self.config.average_last :]
        # Its own time counts as progress, or a slow validation would be due again at once.
        state.seconds = self._elapsed()
        state.validated_progress = self.progress
        state.validated_step = state.step
        score = scores["score"]
        if not math.isfinite(score):
            score = -math.inf  # worse than all others; nan would compare with none
        near = scores.get("standard_error", 0.0) if self.config.keep == "latest" else 0.0
        # What is still small is neither kept nor compared with.
        if self._grown and (state.best_score is None or state.best_score - near < score):
            state.kept_step, state.kept_score = state.step, score
            self.best = {name: value.clone() for name, value in self._candidate().items()}
        if self._grown and (state.best_score is None or state.best_score < score):
            state.best_score, state.without_gain = score, 0
        elif self._grown:
            state.without_gain += 1
        row = {"step": state.step, "tokens": state.tokens, "seconds": state.seconds, **scores}
        self.on_score({**row, "kept_step": state.kept_step, "kept": state.kept_step == state.step})
        return 0 < self.config.patience <= state.without_gain


class borrowed:
    """Within this context the model has other weights; afterwards its own again."""

    def __init__(self, model: torch.nn.Module, weights: dict[str, Tensor]) -> None:
        self.model = model
        self.weights = weights

    @torch.no_grad()
    def __enter__(self) -> None:
        own = dict(self.model.named_parameters())
        self.own = {name: own[name].detach().clone() for name in self.weights}
        for name, value in self.weights.items():
            own[name].copy_(value)

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        own = dict(self.model.named_parameters())
        for name, value in self.own.items():
            own[name].copy_(value)
