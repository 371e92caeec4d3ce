"""A whole run: tokenizer, pretraining, fine-tuning, scores, report; every stage kept and taken up again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encodery.data.augment import Augment
from encodery.data.corpus import (
    Reading,
    TrainingText,
    length_facts,
    length_histogram,
    make_tokenizer,
    training_text,
)
from encodery.data.links import Described
from encodery.data.loader import Loader, StoredWindows
from encodery.data.packing import rounded_budget
from encodery.data.samples import SampleMaker
from encodery.data.source_config import texts_apart, with_more
from encodery.data.store import TokenStore
from encodery.data.tokenizers import Tokenizer
from encodery.durable import replace_file
from encodery.encoders.kinds import with_dropout
from encodery.errors import ConfigError, Interrupted
from encodery.evaluation.card import render_card
from encodery.evaluation.record import RunRecord
from encodery.evaluation.report import render_report
from encodery.model import Model, ModelConfig, load_matching, with_own_matrix
from encodery.objectives.causal import CausalConfig
from encodery.trained import Task, Trained
from encodery.training.compilation import choose_compilation
from encodery.training.entities import EntityKnowledge
from encodery.training.growth import settled
from encodery.training.journal import Progress, read_journal
from encodery.training.loop import Fit, Objective, OwnLoader
from encodery.training.precision import choose_precision
from encodery.training.pretraining import Pretraining, joint_loader
from encodery.training.recipe import LabelledConfig, PretrainConfig, Recipe, Unlabelled
from encodery.training.signals import StopRequest
from encodery.training.stage import Stage
from encodery.training.training_config import TrainingConfig
from encodery.training.word_knowledge import WordKnowledge


@dataclass(frozen=True)
class RunResult:
    """Where the run lies, its record, and the trained model."""

    folder: Path
    record: RunRecord
    trained: Trained


@dataclass
class Run:
    """One recipe being carried out in `folder`. `base` is what relative paths of the recipe refer to; `held` the tokens
    that the encoder of a starting point can hold."""

    recipe: Recipe
    base: Path
    folder: Path
    progress: Progress
    stop: StopRequest
    command: str = ""
    resume_with: str = ""
    began: float = field(default_factory=time.perf_counter)
    pretrain_seconds: float = 0.0
    held: int | None = None
    words: WordKnowledge = field(default_factory=WordKnowledge)
    entities: EntityKnowledge = field(default_factory=EntityKnowledge)

    def carry_out(self) -> RunResult:
        """Every stage in order. What an earlier, interrupted call has finished is taken as it lies there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        recipe = self.recipe
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.device, self.precision = device, choose_precision(recipe.training.precision, device)
        self.progress.say(f"precision {self.precision.reason}; {torch.get_num_threads()} threads")
        start = self._starting_point()
        self.entities.gather(recipe, self.base, start, self.reading().rows)
        first = None if recipe.pretrain is None else self._first_stage(recipe.pretrain, start)
        # A language model is measured on its test texts like what is learned from labels, unless its texts stream by.
        held = isinstance(recipe.objective, CausalConfig) and recipe.data.tokens == "cached"
        if isinstance(recipe.objective, Unlabelled) and not held:
            start = start if first is None else self._done(first)
            return Pretraining(self, recipe.objective, recipe.training, start).carry_out()
        from encodery.training.finetune import Finetuning

        assert isinstance(recipe.objective, LabelledConfig | CausalConfig)
        # Read before the first stage learns: what is wrong with labelled rows should not be found out hours later.
        last = Finetuning(self, recipe.objective, start if first is None else None, first and first.tokenizer)
        return last.carry_out(start if first is None else self._done(first))

    # -- where weights come from -------------------------------------------------------------------

    def _starting_point(self) -> Trained | None:
        if self.recipe.start_from is None:
            return None
        start = Trained.load(self.base / self.recipe.start_from)
        self.held = start.model.config.encoder.max_length
        return start

    def tokenizer(self, reading: Reading, start: Trained | None) -> Tokenizer:
        """That of the starting point, the one this run has trained before, or a new one."""
        if start is not None:
            return start.tokenizer
        file = self.folder / "tokenizer.json"
        facts = self.folder / "tokenizer_facts.json"
        if file.exists() and facts.exists():
            return Tokenizer.load(file, json.loads(facts.read_text(encoding="utf-8")))
        given = self.recipe.tokenizer.path
        if given is None:
            self.progress.say("training the tokenizer")
        tokenizer = make_tokenizer(
            reading, self.recipe.tokenizer, lambda phase, share: self.heed_stop("training the tokenizer")
        )
        replace_file(file, tokenizer.to_json().encode())
        replace_file(facts, json.dumps(tokenizer.facts(), ensure_ascii=False).encode())
        size = f"{tokenizer.vocab_size:,} tokens"
        self.progress.say(f"tokenizer: {given or self.recipe.tokenizer.kind}, {size}")
        return tokenizer

    def build(self, tokenizer: Tokenizer, readout: Any, seed: int, start: Trained | None) -> Model:
        """A model with fresh weights from `seed`, and over them those of the starting point that fit."""
        encoder = self.recipe.encoder
        if start is not None:
            # Sizes come from the weights; dropout is a matter of this run.
            fixed, frontend = start.model.config.encoder, start.model.config.frontend
            if readout.kind == start.model.config.readout.kind == "word":
                readout = start.model.config.readout  # the head of another maker goes on as it was
            encoder = with_dropout(fixed, encoder.drop_rate, getattr(encoder, "attention_drop_rate", None))
        else:
            frontend = self.words.frontend(self.recipe.frontend, tokenizer, self.base, self.heed_stop)
            encoder = self.entities.encoder(encoder, self.recipe, self.base)
        readout = with_own_matrix(readout, frontend)
        model = Model(ModelConfig(frontend=frontend, encoder=encoder, readout=readout)).initialise(seed)
        if start is not None:
            load_matching(model, self._kept(start.model))
        else:
            self.words.give(model)
            self.entities.give(model)
        return model.to(self.device)

    def _kept(self, model: Model) -> dict[str, Tensor]:
        """The weights of a starting point, without those of the last blocks that begin anew."""
        anew, depth = self.recipe.training.reset_blocks, len(list(model.encoder.blocks))
        names = tuple(f"encoder.blocks.{number}." for number in range(depth - anew, depth))
        return {name: value for name, value in model.state_dict().items() if not name.startswith(names)}

    def trained(self, model: Model, tokenizer: Tokenizer, task: Task) -> Trained:
        """The model with what this run knows of entities."""
        return Trained(model, tokenizer, task, knowledge=self.entities.knowledge)

    def start_words(self, model: Model, store: TokenStore, seed: int) -> None:
        """Embeddings from co-occurrence counts, output bias from token counts: seconds that save minutes."""
        self.words.start(model, store, seed, self.progress.say)

    # -- reading -----------------------------------------------------------------------------------

    def reading(self, extra: PretrainConfig | None = None) -> Reading:
        data, labels, fields = self.recipe.data, self.recipe.labels, self.recipe.fields()
        if extra is not None:
            data = with_more(data, extra.data)
            labels, fields = extra.objective.labels, extra.objective.fields(data)
        return Reading(data, self.base, self.recipe.seed, labels, self.cache, self.entities.knowledge, fields)

    @property
    def cache(self) -> Path:
        """Where token caches lie: as the recipe says, or beside the run's folder."""
        return Path(self.recipe.cache) if self.recipe.cache else self.folder.parent / ".cache"

    def loader(
        self, store: TokenStore, tokenizer: Tokenizer, training: TrainingConfig, objective: Objective | None = None
    ) -> Loader:
        """Batches of a held store, in order: for scoring."""
        budget = rounded_budget(training.batch_tokens, self.max_length)
        loader = Loader(StoredWindows(store, seed=None), self.maker(tokenizer), budget, tokenizer.pad_id, 0, False)
        return objective.loader(loader) if isinstance(objective, OwnLoader) else loader

    def maker(self, tokenizer: Tokenizer) -> SampleMaker:
        """How samples are made: special tokens, longest length, what happens to longer texts, what is known."""
        writer = self.entities.writer(tokenizer)
        compose, long = self.recipe.objective.compose, self.recipe.data.long
        return SampleMaker.framed(tokenizer.frame, self.max_length, long, writer, compose)

    # -- the first of two stages -------------------------------------------------------------------

    def _first_stage(self, pretrain: PretrainConfig, start: Trained | None) -> Pretraining | Trained:
        """What learns in its own folder as a run of its own; found finished, it is taken from there."""
        folder = self.folder / "pretrained"
        if (folder / "config.json").exists():
            self.progress.say(f"taking the pretrained encoder from {folder}")
            found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            self.pretrain_seconds = float(found.get("seconds") or 0.0)
            self.words.remember(found.get("data_facts") or {})
            return Trained.load(folder)
        encoder = with_dropout(self.recipe.encoder, pretrain.drop_rate)
        recipe = self.recipe.model_copy(
            update={
                "name": f"{self.recipe.name}-pretrained",
                "encoder": encoder,
                "data": texts_apart(self.recipe.data) if self.recipe.objective.compose == "apart" else self.recipe.data,
                "objective": pretrain.objective,
                "training": pretrain.training,
                "pretrain": None,
                "cache": str(self.cache),
            }
        )
        inner = replace(self, recipe=recipe, folder=folder, began=time.perf_counter())
        inner.device, inner.precision = self.device, choose_precision(pretrain.training.precision, self.device)
        return Pretraining(inner, pretrain.objective, pretrain.training, start, pretrain)

    def _done(self, first: Pretraining | Trained) -> Trained:
        if isinstance(first, Trained):
            return first
        result = first.carry_out()
        self.pretrain_seconds = result.record.seconds or 0.0
        return result.trained

    # -- shared by both ----------------------------------------------------------------------------

    @property
    def max_length(self) -> int:
        """Tokens of the longest document: as the recipe says, and no more than a starting point can hold."""
        own = self.recipe.encoder.max_length
        return own if self.held is None else min(own, self.held)

    def heed_stop(self, during: str) -> None:
        """Raise Interrupted when a signal has come: between training steps the Stage does this with a checkpoint."""
        if self.stop():
            raise Interrupted(
                f"stopped while {during}; what was finished before is kept in {self.folder}",
                signal_number=self.stop.signal_number,
                fix=f"go on with: {self.resume_with}",
            )

    def training_text(self, reading: Reading, tokenizer: Tokenizer, stage: str = "") -> TrainingText:
        """The training rows, tokenised; says how many were bad, and of which stage where there are two."""
        self.progress.start("tokenising")

        def told(rows: int, tokens: int) -> None:
            self.heed_stop("tokenising")
            self.progress.update(rows, tokens=tokens)

        try:
            text = training_text(reading, tokenizer, self.maker(tokenizer), told)
        finally:
            self.progress.close()
        for number, line in enumerate(text.known.facts.get("ledger_summary", [])):
            self.progress.say(f"{stage}: {line}" if stage and not number else line)
        return text

    def fit(
        self,
        model: Model,
        objective: Objective,
        text: TrainingText,
        tokenizer: Tokenizer,
        training: TrainingConfig,
        validate: Callable[[Model], dict[str, float]] | None,
        seed: int,
        described: Described | None = None,
        fresh: bool = False,
    ) -> Fit:
        """A Fit over the training rows, its data order and masks drawn from `seed`; with `described` entities beside
        the rows in every batch. `fresh`: the encoder has learned nothing yet, and may grow."""
        if not text.epoch_tokens and training.budget.kind == "epochs":
            raise ConfigError(
                f"training.budget is {training.budget}, but a stream has no known end (data.tokens: streamed)",
                expected="a budget in time, steps or tokens",
            )
        budget = rounded_budget(training.batch_tokens, self.max_length)
        given = (text.windows(seed), self.maker(tokenizer), budget, tokenizer.pad_id, seed, True, objective.prepare)
        loader, tokens = Loader(*given), text.epoch_tokens
        if described is not None:
            loader = joint_loader(loader, described, objective)
            tokens = tokens * loader.budget // loader.text_budget  # entities are counted as they come, like texts
        if training.augment.used:
            loader = replace(loader, augment=Augment(training.augment, tokenizer, self.max_length))
        if isinstance(objective, OwnLoader):
            loader = objective.loader(loader)
        growth = settled(training.growth, model.config.encoder, fresh=fresh)
        training = training.model_copy(update={"growth": growth})
        compilation = choose_compilation(training.compile, self.device, training.budget, text.epoch_tokens)
        compilation.apply(model)
        self.progress.say(compilation.reason)
        return Fit(model, objective, loader, training, self.precision, seed, tokens, validate)

    def stage(self, fit: Fit, folder: Path, title: str) -> Stage:
        return Stage(fit, folder, self.progress, title, self.stop, self.resume_with)

    def curves(self, folder: Path) -> list[dict[str, Any]]:
        """Rows of the journal with what was learned so far; the mean of several weights is no point of a curve."""
        kinds = ("step", "validation")
        rows = [row for row in read_journal(folder / "journal.jsonl") if row["kind"] in kinds and "mean_of" not in row]
        wanted = ("step", "tokens", "seconds", "loss", "validation_loss", "learning_rate", "metric")
        return [{key: row[key] for key in wanted if key in row} for row in rows]

    def speed_notes(self, fit: Fit) -> list[str]:
        """What the training cost, as a sentence."""
        state = fit.state
        if not state.seconds:
            return []
        return [
            f"{state.tokens:,} real tokens in {state.seconds:,.0f} s of training "
            f"({state.tokens / state.seconds:,.0f} a second), {1 - state.tokens / max(1, state.positions):.1%} "
            f"padding, {state.waited / state.seconds:.1%} of the time waiting for data; {self.precision.reason}."
        ]

    def data_facts(self, stores: dict[str, TokenStore], train: TokenStore, tokenizer: Tokenizer) -> dict[str, Any]:
        """What the report says of the data."""
        maker = self.maker(tokenizer)
        facts: dict[str, Any] = {
            "splits": {name: length_facts(store, maker) for name, store in stores.items()},
            "lengths": length_histogram(train, self.max_length),
            **self.words.facts,
            **self.entities.facts,
        }
        if "label_counts" in train.facts:
            facts["label_counts"] = train.facts["label_counts"]
        problems = train.facts.get("ledger", {}).get("problems", {})
        facts["bad_rows"] = [
            {"where": ", ".join(found["places"][:5]), "why": f"{kind} ({found['count']:,})"}
            for kind, found in problems.items()
        ]
        return facts

    def write(self, record: RunRecord, trained: Trained) -> RunResult:
        """Model folder and report; then the checkpoints have done their work."""
        trained.save(self.folder, card=render_card(record), metrics=json.loads(record.to_json()))
        replace_file(self.folder / "report.html", render_report(record).encode())
        for stage in (self.folder, self.folder / "scratch", *self.folder.glob("seed-*")):
            for name in ("checkpoints", "finished"):
                shutil.rmtree(stage / name, ignore_errors=True)
        return RunResult(self.folder, record, trained)
