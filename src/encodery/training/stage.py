"""One stage of a run: a Fit with its checkpoints, its journal and its way back after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encodery.data.loader import Place
from encodery.errors import Interrupted, TrainingError, WeightsError
from encodery.model import Model
from encodery.training.journal import Journal, Progress
from encodery.training.loop import Fit, TrainState
from encodery.training.resume import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    pack_state,
    save_checkpoint,
    unpack_state,
)
from encodery.training.signals import StopRequest

# At most about this many step rows go into the journal of a run.
_JOURNALLED_STEPS = 2000


@dataclass
class Stage:
    """Runs a Fit to its end inside `folder`: journal.jsonl, checkpoints/, and a live view."""

    fit: Fit
    folder: Path
    progress: Progress
    title: str
    stop: StopRequest
    resume_with: str
    notes: list[str] = field(default_factory=list)

    def run_into(self, model: Model) -> None:
        """Train, or take what an earlier call has trained to its end, and leave the weights to keep in `model`."""
        finished = self.folder / "finished"
        if (found := self._finished(finished)) is not None:
            weights, saved = load_checkpoint(found)
            self.fit.state = _state_from(saved["state"])
            self.progress.say(f"{self.title}: taken as finished from {self.folder}")
        else:
            weights = {name: value.detach().clone() for name, value in self.run().items()}
            save_checkpoint(finished, self.fit.state.step, weights, {"state": asdict(self.fit.state)}, keep=1)
        own = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                own[name].copy_(value)

    def _finished(self, folder: Path) -> Checkpoint | None:
        """What an earlier call has trained to its end; None, and said, when it is damaged."""
        try:
            return latest_checkpoint(folder)
        except WeightsError as error:
            self.progress.say(f"{self.title}: its end is trained again, the kept one is damaged: {error.given}")
            return None

    def run(self) -> dict[str, Tensor]:
        """Train, from the last checkpoint when there is one, and return the weights to keep.

        Raises Interrupted after a signal, with everything saved; TrainingError when the run diverged.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        fit = self.fit
        with Journal(self.folder, tensorboard=True) as journal:
            self._restore(journal)
            fit.on_step = self._step_hook(journal)
            fit.on_score = lambda row: self._on_score(journal, row)
            fit.on_save = lambda _: self._save(journal)
            fit.stopping = self.stop
            self.progress.start(self.title, total=1.0)
            try:
                complete = fit.advance()
            finally:
                self.progress.close()
        if not complete:
            raise Interrupted(
                f"stopped at step {fit.state.step} of {self.title}; everything up to there is saved in {self.folder}",
                signal_number=self.stop.signal_number,
                fix=f"go on with: {self.resume_with}",
            )
        return fit.final_weights()

    def _step_hook(self, journal: Journal) -> Callable[[dict[str, Any]], None]:
        blocks = 0

        def on_step(row: dict[str, Any]) -> None:
            nonlocal blocks
            if blocks != row.get("blocks", 0):
                blocks = row["blocks"]
                self.progress.say(f"  step {row['step']:,}: {blocks} of {self.fit.growth.sizes[-1]} blocks work")
            state, done = self.fit.state, max(self.fit.progress, 1e-9)
            expected = state.step / min(1.0, done)
            every = max(1, int(expected / _JOURNALLED_STEPS))
            seconds = max(state.seconds, 1e-9)
            extra = {
                "tokens_per_second": state.tokens / seconds,
                "wait_share": state.waited / seconds,
                "padding_share": 1 - state.tokens / max(1, state.positions),
            }
            # Which steps are written follows from the step alone: a resumed run writes the same ones.
            if state.step == 1 or state.step % every == 0:
                journal.write("step", **row, **extra)
            self.progress.update(
                state.step,
                done=min(1.0, done),
                loss=row["loss"],
                tokens_per_second=extra["tokens_per_second"],
                wait_share=extra["wait_share"],
                seconds_left=seconds * (1 / done - 1),
            )

        return on_step

    def _on_score(self, journal: Journal, row: dict[str, Any]) -> None:
        journal.write("validation", **row)
        shown = [f"{name.replace('_', ' ')} {row[name]:.4f}" for name in ("validation_loss", "metric") if name in row]
        kept = " (kept)" if row["kept"] else ""
        mean = f", mean of the last {row['mean_of']}" if "mean_of" in row else ""
        self.progress.say(f"  step {row['step']:,}{mean}: {', '.join(shown)}{kept}")

    def _save(self, journal: Journal) -> None:
        """Write a checkpoint. A disk that is full is said once and does not end the run while an older one is whole."""
        fit = self.fit
        tensors, packed = pack_state(
            {
                "model": dict(fit.model.state_dict()),
                "optimizer": fit.optimizers.state_dict(),
                "averaged": None if fit.averaged is None else [fit.averaged.updates, fit.averaged.weights],
                "best": fit.best,
                "last": fit.last,
            }
        )
        try:
            save_checkpoint(self.checkpoints, fit.state.step, tensors, {"state": asdict(fit.state), "packed": packed})
            journal.write("checkpoint", step=fit.state.step)
        except TrainingError as error:
            if latest_checkpoint(self.checkpoints) is None or self.stop():
                raise
            journal.write("note", step=fit.state.step, text=str(error))
            self.progress.say(str(error))

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def _restore(self, journal: Journal) -> None:
        found = latest_checkpoint(self.checkpoints) if self.checkpoints.exists() else None
        if found is None:
            journal.truncate_after(0)  # a run that was killed before its first checkpoint begins anew
            journal.write("start", title=self.title)
            return
        for line in found.rejected:
            self.progress.say(f"passed over a damaged checkpoint: {line}")
        tensors, saved = load_checkpoint(found)
        parts = unpack_state(tensors, saved["packed"])
        fit = self.fit
        try:
            fit.model.load_state_dict(parts["model"])
            fit.optimizers.load_state_dict(parts["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise WeightsError(
                f"the checkpoint {found.path} does not fit the model of this recipe: {error}",
                expected="the recipe that the run was started with",
                fix="resume with the run's own recipe.yaml, or start a new run in another folder (output=...)",
            ) from error
        if fit.averaged is not None and parts["averaged"] is not None:
            fit.averaged.updates = parts["averaged"][0]
            for name, value in parts["averaged"][1].items():
                fit.averaged.weights[name].copy_(value)
        fit.best = parts["best"]
        fit.last = parts.get("last") or []
        fit.state = _state_from(saved["state"])
        journal.truncate_after(fit.state.step)
        note = f"going on from step {fit.state.step} ({found.path})"
        journal.write("note", step=fit.state.step, text=note)
        self.progress.say(note)


def _state_from(saved: dict[str, Any]) -> TrainState:
    return TrainState(**{**saved, "place": Place(**saved["place"])})


def log_unigram(counts: Any) -> Tensor:
    """Log of each token's share of the corpus, (V,), with half a count for tokens that never came."""
    import numpy as np

    share = np.maximum(counts, 0.5)
    return torch.from_numpy(np.log(share / share.sum()).astype(np.float32))


def unigram_entropy(counts: Any) -> float:
    """Entropy of the token frequencies in nats: the loss of a model that has learned nothing but them."""
    import numpy as np

    share = counts[counts > 0] / max(1, counts.sum())
    return float(-(share * np.log(share)).sum())
