"""Fine-tuning on labels: the same stage for the encoder, for each further seed and for the encoder from scratch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from encodery.data.corpus import HeldRows, Reading, held_rows
from encodery.data.sources import has_split
from encodery.data.store import TokenStore
from encodery.data.tokenizers import Tokenizer
from encodery.errors import ConfigError, DataError
from encodery.evaluation.judges.judge import Comparison, Judge
from encodery.evaluation.judges.of_tasks import judge_of
from encodery.evaluation.record import ComparisonRow, RunRecord
from encodery.evaluation.results import Contender, base_record, contender_row, diagnoses, with_gains
from encodery.model import Model, count, without_companions
from encodery.objectives.causal import Causal, CausalConfig
from encodery.objectives.choices import Choices, ChoicesConfig
from encodery.objectives.contrastive import Contrastive
from encodery.objectives.contrastive_options import EmbedConfig
from encodery.objectives.ordinal import Ordinal, OrdinalConfig
from encodery.objectives.questions import Questions, QuestionsConfig
from encodery.objectives.ranking import RankConfig, Ranking
from encodery.objectives.supervised import Supervised, SupervisedConfig
from encodery.objectives.tagging import Tagging, TaggingConfig
from encodery.objectives.writing import WritingConfig
from encodery.trained import Task, Trained
from encodery.training.linear_answers import fit_linear_answer, has_linear_answer
from encodery.training.loop import Objective
from encodery.training.recipe import LabelledConfig
from encodery.training.row_notes import NamedRows, flattery, rows_in_train, unknown_targets, unknown_texts
from encodery.training.target_words import tokenizer_of_targets, with_target_tokenizer, writing_objective

if TYPE_CHECKING:
    from encodery.training.run import Run, RunResult


class Labelled(Objective, Protocol):
    """What fine-tuning needs of an objective beside what the loop needs."""

    def readout(self) -> Any:
        """The config of the readout that gives its answers."""
        ...

    def task(self) -> Task:
        """What is needed to read the answers again."""
        ...


class Finetuning:
    """The supervised part of a Run: reads and checks all its rows when it is made, and learns in `carry_out`. It takes
    the tokenizer of `start` where the encoder begins from a model, or `tokenizer`, that of a stage before it."""

    def __init__(
        self, run: Run, config: LabelledConfig | CausalConfig, start: Trained | None, tokenizer: Tokenizer | None
    ) -> None:
        self.run = run
        self.config = config
        self.start: Trained | None = None
        self.recipe = run.recipe
        self.reading: Reading = run.reading()
        self.tokenizer: Tokenizer = tokenizer or run.tokenizer(self.reading, start)
        if self.reading.data.tokens == "streamed":
            raise ConfigError(
                "data.tokens: streamed is for pretraining; labels have to be counted before they can be learned",
                fix="leave data.tokens at cached: the cache is memory mapped, so its size does not matter",
            )
        self.reading = with_target_tokenizer(run, config, self.reading, start)
        self.text = run.training_text(self.reading, self.tokenizer, "fine-tuning" if self.recipe.pretrain else "")
        self.store: TokenStore = self.text.known
        # Before the other rows are read: it may number the labels anew.
        self.objective = make_objective(
            config, self.store, tokenizer_of_targets(self.reading, self.tokenizer), run.max_length
        )
        self.validation = self._held("validation")
        self.test = self._held("test")
        self.in_train = rows_in_train(self.store, self._held_stores())
        self.row_notes = self._row_notes()
        for line in self.row_notes:
            run.progress.say(line)
        if self.validation is None and self.test is None:
            raise ConfigError(
                "there is no validation and no test data to measure the result on",
                fix="leave data.validation_share at 0.1, or name data.validation or data.test",
            )
        self.linear: dict[str, torch.Tensor] | None = None
        task = self.objective.task()
        task = replace(task, paired=self.store.paired, long=self.recipe.data.long, compose=config.compose)
        self.judge: Judge = judge_of(task, self.tokenizer)
        self.compared = compared_with(self.recipe.evaluation.compare, self.judge, task.kind)

    def carry_out(self, start: Trained | None) -> RunResult:
        """Train every contender from `start` (None: fresh weights), score them on the test rows (the validation rows
        without a test), write it all."""
        recipe, run, self.start = self.recipe, self.run, start
        scored = self.test or self.validation
        assert scored is not None
        fine_tuned = [self._contender(number, scored) for number in range(recipe.seeds)]
        best = max(range(recipe.seeds), key=lambda number: fine_tuned[number][2])
        own, model, _ = fine_tuned[best]
        others: list[Contender] = []
        if "scratch" in self.compared and self.start is not None:
            others.append(self._contender(0, scored, scratch=True)[0])
        comparison = self._baselines(own.judge, scored)
        comparison += [contender_row(one, scored, recipe.evaluation, recipe.seed) for one in [*others, own]]
        comparison = with_gains(comparison)
        notes = [
            f"Scored on the {'test' if self.test is not None else 'validation'} rows ({len(scored.rows):,}).",
            *(f"{contender.name}: {contender.note}." for contender in [own, *others] if contender.note),
            *self._seed_notes([contender for contender, _, _ in fine_tuned], scored),
        ]
        record = self._record(own, model, scored, comparison, notes)
        return run.write(record, run.trained(without_companions(model), self.tokenizer, own.judge.task))

    def _contender(self, number: int, scored: HeldRows, *, scratch: bool = False) -> tuple[Contender, Model, float]:
        """Fine-tune once and score: (contender, model, validation score of the weights that were kept)."""
        run, recipe = self.run, self.recipe
        seed = recipe.seed + number
        begin = time.perf_counter()
        model = run.build(self.tokenizer, self.objective.readout(), seed, None if scratch else self.start)
        if self.start is None:
            run.start_words(model, self.store, seed)
        self._start_linear(model.readout)
        training = recipe.training
        validate = self._validate if self.validation is not None else None
        fresh = scratch or self.start is None
        fit = run.fit(model, self.objective, self.text, self.tokenizer, training, validate, seed, fresh=fresh)
        title = "fine-tuning" if self.start is not None else "training"
        folder = run.folder
        if scratch:
            title, folder = "the same encoder without pretraining", run.folder / "scratch"
        elif number:
            title, folder = f"{title}, seed {seed}", run.folder / f"seed-{seed}"
        run.stage(fit, folder, title).run_into(model)
        judge = self.judge
        if self.validation is not None:
            found = judge.adapted(model, self._found(model, self.validation), self.validation)
            judge = judge.calibrated(found, self.validation)
        name = "without pretraining" if scratch else ("pretrained encoder" if self.start else "encoder")
        seconds = time.perf_counter() - begin
        if not scratch and self.run.pretrain_seconds:
            seconds += self.run.pretrain_seconds
        found = self._found(model, scored)
        contender = Contender(name, judge, found, count(model), seconds, judge.note(found, scored))
        return contender, model, fit.state.kept_score or 0.0

    def _start_linear(self, readout: nn.Module) -> None:
        """Fitted once: it depends on the rows alone, so every contender gets the same."""
        if not has_linear_answer(readout):
            return
        if self.linear is None:
            held = self.validation.store if self.validation else None
            fit_linear_answer(self.run, readout, self.objective, self.tokenizer, self.store, held)
            self.linear = {
                name: value.clone() for name, value in readout.state_dict().items() if name.startswith("lexical.")
            }
        readout.load_state_dict(self.linear, strict=False)

    def _validate(self, model: Model) -> dict[str, float]:
        assert self.validation is not None
        judge = self.judge.glance()
        given = judge.adapted(model, self._found(model, self.validation, judge), self.validation)
        found = judge.quick(given, self.validation)
        # Ties of the metric are broken by the loss.
        score = found.get("score", found["metric"] - 1e-4 * found["loss"])
        each = self.judge.each(given, self.validation)
        error = {} if each is None else {"standard_error": float(each.std() / max(1, each.size) ** 0.5)}
        return {"score": score, "validation_loss": found["loss"], "metric": found["metric"], **error}

    def _found(self, model: Model, held: HeldRows, judge: Judge | None = None) -> Any:
        """What the model says of the rows, in the order of the data."""
        loader = self.run.loader(held.store, self.tokenizer, self.recipe.training, self.objective)
        return (judge or self.judge).found(model, held, loader, self.run.precision.dtype)

    def _held(self, split: Any) -> HeldRows | None:
        if not has_split(self.reading.data, split):
            return None
        known = self.store.facts.get("fields")
        return held_rows(self.reading, split, self.tokenizer, self.store.label_names, known)

    def _row_notes(self) -> list[str]:
        splits = [NamedRows("train", self.store, partial(self.reading.rows, "train"))]
        for name, held in (("validation", self.validation), ("test", self.test)):
            if held is not None:
                splits.append(NamedRows(name, held.store, partial(iter, held.rows)))
        targets = unknown_targets(splits, tokenizer_of_targets(self.reading, self.tokenizer))
        # Texts that cannot be told apart would all stand in train.
        return (unknown_texts(splits, self.tokenizer) or flattery(self.in_train, self._held_stores())) + targets

    def _held_stores(self) -> dict[str, TokenStore]:
        return {name: held.store for name, held in (("validation", self.validation), ("test", self.test)) if held}

    def _baselines(self, judge: Judge, scored: HeldRows) -> list[ComparisonRow]:
        wanted = [name for name in self.compared if name != "scratch"]
        if not wanted:
            return []
        self.run.progress.say("baselines: " + ", ".join(wanted))
        train = HeldRows(self.store, list(self.reading.rows("train")))
        recipe = self.recipe
        asked = Comparison(wanted, train, self.validation, scored, recipe.evaluation, recipe.seed)
        return judge.baselines(asked)

    def _seed_notes(self, contenders: list[Contender], scored: HeldRows) -> list[str]:
        if len(contenders) < 2:
            return []
        values = [one.judge.quick(one.found, scored)["metric"] for one in contenders]
        mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
        each = ", ".join(f"{value:.4f}" for value in values)
        return [
            f"{len(values)} seeds: mean {mean:.4f}, standard deviation {deviation:.4f} ({each}); "
            "the one kept is the best on the validation rows."
        ]

    def _record(
        self,
        own: Contender,
        model: Model,
        scored: HeldRows,
        comparison: list[ComparisonRow],
        notes: list[str],
    ) -> RunRecord:
        run, recipe = self.run, self.recipe
        curves = run.curves(run.folder)
        stores = {"train": self.store, **self._held_stores()}
        facts = run.data_facts(stores, self.store, self.tokenizer)
        for name, known in self.in_train.items():
            facts["splits"][name]["also in train"] = known
        language = self.tokenizer.facts().get("rules", {}).get("language")
        return replace(
            base_record(recipe.name, own.judge.task, run.command),
            seconds=time.perf_counter() - run.began,
            parameters=count(model),
            comparison=comparison,
            curves=curves,
            data_facts=facts | getattr(self.objective, "facts", {}),
            config=recipe.model_dump(mode="json"),
            diagnoses=self.row_notes + diagnoses(curves, None) + own.judge.diagnoses(own.found),
            notes=notes,
            split="test" if self.test is not None else "validation",
            language=language if language and language != "auto" else None,
            **own.judge.detail(own.found, scored, recipe.evaluation, recipe.seed),
        )


def compared_with(wanted: Sequence[str] | None, judge: Judge, kind: str) -> list[str]:
    """What the result is compared with: as asked for, else all simple models that the judge knows.

    Raises ConfigError for one that does not fit the task.
    """
    if wanted is None:
        return list(judge.known)
    known = [*judge.known, "scratch"]
    if unknown := [name for name in wanted if name not in known]:
        raise ConfigError(
            f"evaluation.compare: {unknown[0]} does not fit objective.kind {kind}",
            expected=f"some of: {', '.join(known)}",
        )
    return list(wanted)


def make_objective(
    config: LabelledConfig | CausalConfig, store: TokenStore, tokenizer: Tokenizer, max_length: int
) -> Labelled:
    """The objective of a recipe for the training rows."""
    if isinstance(config, CausalConfig):
        return Causal(config, max_length)
    if isinstance(config, WritingConfig):
        return writing_objective(config, store, tokenizer)
    del tokenizer
    if isinstance(config, EmbedConfig):
        return make_contrastive(config, store)
    if isinstance(config, RankConfig):
        return Ranking(config, most=_ends(store)[1] if config.grades else 1.0)
    if isinstance(config, OrdinalConfig):
        return Ordinal.of(config, store)
    if isinstance(config, QuestionsConfig):
        return Questions(config)
    if isinstance(config, ChoicesConfig):
        return Choices(config)
    if isinstance(config, TaggingConfig):
        return Tagging.of(config, store)
    return make_supervised(config, store)


def make_contrastive(config: EmbedConfig, store: TokenStore) -> Contrastive:
    """The objective for pairs of texts; what people say of them is brought from its ends in the store to 0 and 1."""
    low, high = _ends(store) if config.labels == "number" else (0.0, 1.0)
    if low == high:
        raise DataError(
            f"all {store.rows:,} training rows have the number {low:g}, so there is nothing to learn from it",
            fix="check data.label, or learn from pairs alone with objective.loss: infonce",
        )
    return Contrastive(config, low=low, high=high)


def _ends(store: TokenStore) -> tuple[float, float]:
    """The lowest and the highest number of the rows."""
    numbers = np.asarray(store.labels, dtype=np.float64)
    return float(numbers.min()), float(numbers.max())


def make_supervised(config: SupervisedConfig, store: TokenStore) -> Supervised:
    """The objective for the labels of a store: their names, weights, or center and scale."""
    labels, names = store.labels, store.label_names
    assert labels is not None
    if config.kind == "regress":
        numbers = np.asarray(labels, dtype=np.float64)
        center, scale = float(numbers.mean()), float(numbers.std()) or 1.0
        return Supervised(config, labels=[], center=center, scale=scale, paired=store.paired)
    if isinstance(config.class_weights, dict) and (unknown := set(config.class_weights) - set(names)):
        raise ConfigError(
            f"objective.class_weights names labels that the data does not have: {', '.join(sorted(unknown))}",
            expected=f"some of: {', '.join(names)}",
        )
    flat = np.asarray(labels)
    counts = flat.sum(axis=0) if flat.ndim == 2 else np.bincount(flat, minlength=len(names))
    return Supervised(config, labels=names, counts=counts, paired=store.paired)
