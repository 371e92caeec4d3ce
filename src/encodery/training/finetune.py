"""Fine-tuning on labels: the same stage for the encoder, for each further seed and for the encoder from scratch."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from encodery.data.corpus import HeldRows, Reading, held_rows
from encodery.data.loader import Loader
from encodery.data.sources import has_split
from encodery.data.store import TokenStore
from encodery.data.tokenizers import Tokenizer
from encodery.errors import ConfigError
from encodery.evaluation.evaluate import MAIN_METRIC, fit_readout_mix, mixed, quick_score, row_parts
from encodery.evaluation.record import ComparisonRow, RunRecord
from encodery.evaluation.results import (
    Compared,
    Contender,
    base_record,
    baseline_rows,
    calibrated,
    contender_row,
    detail,
    diagnoses,
    pairwise_notes,
)
from encodery.evaluation.wording import value_text
from encodery.heads.readouts import DocumentReadout
from encodery.model import Model, count
from encodery.objectives.supervised import Supervised, SupervisedConfig
from encodery.trained import Task, Trained

if TYPE_CHECKING:
    from encodery.training.run import Run, RunResult


class Finetuning:
    """The supervised part of a Run. `start` is what the encoder begins from, None for fresh weights."""

    def __init__(self, run: Run, config: SupervisedConfig, start: Trained | None) -> None:
        self.run = run
        self.config = config
        self.start = start
        self.recipe = run.recipe
        self.reading: Reading = run.reading()
        self.tokenizer: Tokenizer = run.tokenizer(self.reading, start)
        if self.reading.data.tokens == "streamed":
            raise ConfigError(
                "data.tokens: streamed is for pretraining; labels have to be counted before they can be learned",
                fix="leave data.tokens at cached: the cache is memory mapped, so its size does not matter",
            )
        self.text = run.training_text(self.reading, self.tokenizer)
        self.store: TokenStore = self.text.known
        names = self.store.label_names
        self.validation = self._held("validation", names)
        self.test = self._held("test", names)
        if self.validation is None and self.test is None:
            raise ConfigError(
                "there is no validation and no test data to measure the result on",
                fix="leave data.validation_share at 0.1, or name data.validation or data.test",
            )
        self.objective = make_supervised(config, self.store)
        self.ngrams: dict[str, torch.Tensor] | None = None
        self.task = Task(
            config.kind,
            tuple(names),
            center=self.objective.center,
            scale=self.objective.scale,
            paired=self.store.paired,
            long=self.recipe.data.long,
        )

    def carry_out(self) -> RunResult:
        """Train every contender, score them on the test rows (the validation rows without a test), write it all."""
        recipe, run = self.recipe, self.run
        scored = self.test or self.validation
        assert scored is not None
        fine_tuned = [self._contender(number, scored) for number in range(recipe.seeds)]
        best = max(range(recipe.seeds), key=lambda number: fine_tuned[number][2])
        own, model, _ = fine_tuned[best]
        others: list[Contender] = []
        if "scratch" in recipe.evaluation.compare and self.start is not None:
            others.append(self._contender(0, scored, scratch=True)[0])
        task = self.task
        if self.validation is not None:
            task = calibrated(task, self._logits(model, self.validation), self._truth(self.validation))
        comparison = self._baselines(task, scored)
        comparison += [contender_row(task, c, scored, recipe.evaluation, recipe.seed) for c in [*others, own]]
        notes = [
            f"Scored on the {'test' if self.test is not None else 'validation'} rows ({len(scored.rows):,}).",
            *pairwise_notes(task, own, others, scored, recipe.seed),
            *(f"{contender.name}: {contender.note}." for contender in [own, *others] if contender.note),
            *self._seed_notes(task, [contender for contender, _, _ in fine_tuned], scored),
        ]
        record = self._record(task, own, model, scored, comparison, notes)
        return run.write(record, run.trained(model, self.tokenizer, task))

    def _contender(self, number: int, scored: HeldRows, *, scratch: bool = False) -> tuple[Contender, Model, float]:
        """Fine-tune once and score: (contender, model, best validation score)."""
        run, recipe = self.run, self.recipe
        seed = recipe.seed + number
        begin = time.perf_counter()
        model = run.build(self.tokenizer, self.objective.readout(), seed, None if scratch else self.start)
        if self.start is None:
            run.start_words(model, self.store, seed)
        self._start_ngrams(model)
        training = recipe.training
        validate = self._validate if self.validation is not None else None
        fit = run.fit(model, self.objective, self.text, self.tokenizer, training, validate, seed)
        title = "fine-tuning" if self.start is not None else "training"
        folder = run.folder
        if scratch:
            title, folder = "the same encoder without pretraining", run.folder / "scratch"
        elif number:
            title, folder = f"{title}, seed {seed}", run.folder / f"seed-{seed}"
        run.stage(fit, folder, title).run_into(model)
        if self.validation is not None:
            fit_readout_mix(model, self.task, self._parts(model, self.validation), self._truth(self.validation))
        name = "without pretraining" if scratch else ("pretrained encoder" if self.start else "encoder")
        seconds = time.perf_counter() - begin
        if not scratch and self.run.pretrain_seconds:
            seconds += self.run.pretrain_seconds
        parts = self._parts(model, scored)
        note = self._parts_note(parts, self._truth(scored))
        contender = Contender(name, mixed(model, parts), count(model), seconds, note)
        return contender, model, fit.state.best_score or 0.0

    def _start_ngrams(self, model: Model) -> None:
        """Fitted once: they depend on the rows alone, so every contender gets the same."""
        readout = model.readout
        if not isinstance(readout, DocumentReadout) or readout.lexical is None:
            return
        if self.ngrams is None:
            held = self.validation.store if self.validation else None
            self.run.fit_ngrams(readout.lexical, self.objective, self.tokenizer, self.store, held)
            self.ngrams = {name: value.clone() for name, value in readout.lexical.state_dict().items()}
        readout.lexical.load_state_dict(self.ngrams)

    def _validate(self, model: Model) -> dict[str, float]:
        assert self.validation is not None
        parts, truth = self._parts(model, self.validation), self._truth(self.validation)
        fit_readout_mix(model, self.task, parts, truth)
        found = quick_score(self.task, mixed(model, parts), truth)
        score = found["metric"] - 1e-4 * found["loss"]  # ties of the metric are broken by the loss
        return {"score": score, "validation_loss": found["loss"], "metric": found["metric"]}

    def _parts(self, model: Model, held: HeldRows) -> np.ndarray:
        loader: Loader = self.run.loader(held.store, self.tokenizer, self.recipe.training)
        return row_parts(model, loader, held.store.rows, self.run.precision.dtype)

    def _logits(self, model: Model, held: HeldRows) -> np.ndarray:
        return mixed(model, self._parts(model, held))

    def _parts_note(self, parts: np.ndarray, truth: np.ndarray) -> str:
        """What the encoder and the n-grams would get without each other: who did the work?"""
        if len(parts) == 1:
            return ""
        key = MAIN_METRIC[self.task.kind]
        encoder, ngrams = (value_text(quick_score(self.task, part, truth)["metric"], key) for part in parts)
        return f"its encoder alone gets {encoder}, its n-grams alone {ngrams}"

    def _truth(self, held: HeldRows) -> np.ndarray:
        assert held.store.labels is not None
        return np.asarray(held.store.labels)

    def _held(self, split: Any, names: list[str]) -> HeldRows | None:
        if not has_split(self.reading.data, split):
            return None
        return held_rows(self.reading, split, self.tokenizer, names)

    def _baselines(self, task: Task, scored: HeldRows) -> list[ComparisonRow]:
        wanted: list[Compared] = [name for name in self.recipe.evaluation.compare if name != "scratch"]
        if not wanted:
            return []
        self.run.progress.say("baselines: " + ", ".join(wanted))
        train = HeldRows(self.store, list(self.reading.rows("train")))
        found = baseline_rows(task, wanted, train, self.validation, scored, self.recipe.evaluation, self.recipe.seed)
        return [row for row, _ in found]

    def _seed_notes(self, task: Task, contenders: list[Contender], scored: HeldRows) -> list[str]:
        if len(contenders) < 2:
            return []
        truth = self._truth(scored)
        values = [quick_score(task, contender.logits, truth)["metric"] for contender in contenders]
        mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
        each = ", ".join(f"{value:.4f}" for value in values)
        return [
            f"{len(values)} seeds: mean {mean:.4f}, standard deviation {deviation:.4f} ({each}); "
            "the one kept is the best on the validation rows."
        ]

    def _record(
        self,
        task: Task,
        own: Contender,
        model: Model,
        scored: HeldRows,
        comparison: list[ComparisonRow],
        notes: list[str],
    ) -> RunRecord:
        run, recipe = self.run, self.recipe
        curves = run.curves(run.folder)
        stores = {"train": self.store}
        stores |= {name: held.store for name, held in (("validation", self.validation), ("test", self.test)) if held}
        language = self.tokenizer.facts().get("rules", {}).get("language")
        return replace(
            base_record(recipe.name, task, run.command),
            seconds=time.perf_counter() - run.began,
            parameters=count(model),
            comparison=comparison,
            curves=curves,
            data_facts=run.data_facts(stores, self.store, self.tokenizer),
            config=recipe.model_dump(mode="json"),
            diagnoses=diagnoses(curves, None, task, own.logits),
            notes=notes,
            split="test" if self.test is not None else "validation",
            language=language if language and language != "auto" else None,
            **detail(task, own.logits, scored, recipe.evaluation, recipe.seed),
        )


def make_supervised(config: SupervisedConfig, store: TokenStore) -> Supervised:
    """The objective for the labels of a store: their names, weights, or center and scale."""
    labels, names = store.labels, store.label_names
    assert labels is not None
    if config.kind == "regress":
        numbers = np.asarray(labels, dtype=np.float64)
        return Supervised(config, labels=[], center=float(numbers.mean()), scale=float(numbers.std()) or 1.0)
    if isinstance(config.class_weights, dict) and (unknown := set(config.class_weights) - set(names)):
        raise ConfigError(
            f"objective.class_weights names labels that the data does not have: {', '.join(sorted(unknown))}",
            expected=f"some of: {', '.join(names)}",
        )
    flat = np.asarray(labels)
    counts = flat.sum(axis=0) if flat.ndim == 2 else np.bincount(flat, minlength=len(names))
    return Supervised(config, labels=names, counts=counts)
