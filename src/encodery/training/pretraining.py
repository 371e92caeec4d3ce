"""A run that learns without labels: from texts alone, or beside triples of entities."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from encodery.data.corpus import HeldRows, Reading, held_rows
from encodery.data.links import Described, JointLoader
from encodery.data.loader import Loader
from encodery.data.packing import longest_row, rounded_budget
from encodery.data.sources import has_split
from encodery.data.tokenizers import Tokenizer
from encodery.evaluation.evaluate import masked_loss
from encodery.evaluation.intervals import Metric
from encodery.evaluation.learning import headline, held_numbers
from encodery.evaluation.links import encode_entities, link_ranks, score_links
from encodery.evaluation.record import RunRecord
from encodery.evaluation.results import base_record, diagnoses
from encodery.heads.links import LinkReadout
from encodery.model import Model, count, without_companions
from encodery.objectives.knowledge import KnowledgeMasked
from encodery.objectives.masked import Masked
from encodery.trained import Task, Trained
from encodery.training.growth import COMPARE_BLOCKS
from encodery.training.loop import Fit, Objective
from encodery.training.recipe import PretrainConfig, Unlabelled
from encodery.training.row_notes import NamedRows, unknown_texts
from encodery.training.stage import unigram_entropy
from encodery.training.training_config import TrainingConfig
from encodery.training.unlabelled import check_texts, kept_task, same_tokenizer, title_of, unlabelled_objective

if TYPE_CHECKING:
    from encodery.training.run import Run, RunResult


class Pretraining:
    """The part of a Run that has no labels. `start` is what the encoder begins from, None for fresh weights; `extra`
    names more text."""

    def __init__(
        self,
        run: Run,
        config: Unlabelled,
        training: TrainingConfig,
        start: Trained | None,
        extra: PretrainConfig | None = None,
    ) -> None:
        self.run = run
        self.config = config
        self.training = training
        self.start = start
        self.reading: Reading = run.reading(extra or PretrainConfig(objective=config))
        self.tokenizer: Tokenizer = run.tokenizer(self.reading, same_tokenizer(config, run.base, start))
        self.text = run.training_text(self.reading, self.tokenizer, "" if extra is None else "pretraining")
        self.validation: HeldRows | None = None
        if has_split(self.reading.data, "validation"):
            self.validation = held_rows(self.reading, "validation", self.tokenizer, [])
        check_texts(config, self.text.known)
        train = NamedRows("train", self.text.known, partial(self.reading.rows, "train"))
        self.row_notes = unknown_texts([train], self.tokenizer)
        for line in self.row_notes:
            run.progress.say(line)
        self.objective, self.described = unlabelled_objective(config, self.reading, self.tokenizer, run.max_length)

    def carry_out(self) -> RunResult:
        """Learn, measure and write the model folder."""
        run, store, seed = self.run, self.text.known, self.run.recipe.seed
        model = run.build(self.tokenizer, self.objective.readout(), seed, self.start)
        if self.start is None:
            run.start_words(model, store, seed)
        validate = self._validate if self.validation is not None else None
        given = (model, self.objective, self.text, self.tokenizer, self.training, validate, seed, self.described)
        fit = run.fit(*given, fresh=self.start is None and self.config.kind not in COMPARE_BLOCKS)
        run.stage(fit, run.folder, f"pretraining on {title_of(self.config)}").run_into(model)
        task = kept_task(self.config, self.objective, run.recipe.data.long)
        record = self._record(fit, model)
        return run.write(record, run.trained(without_companions(model), self.tokenizer, task))

    def _validate(self, model: Model) -> dict[str, float]:
        """The numbers of the objective on the held rows; of hidden words always of 15 %, so that the losses of
        different recipes can be compared."""
        assert self.validation is not None
        dtype, store = self.run.precision.dtype, self.validation.store
        if isinstance(self.objective, Masked) and self.config.kind in ("masked", "knowledge"):
            found = masked_loss(model, self.run.loader(store, self.tokenizer, self.training), self.tokenizer, dtype)
            named = {"masked_loss": found["loss"], "masked_accuracy": found["accuracy"]}
            return named | {"score": -found["loss"], "validation_loss": found["loss"], "metric": found["accuracy"]}
        loader = self.run.loader(store, self.tokenizer, self.training, self.objective)
        found = held_numbers(model, self.objective, loader, dtype)
        score, loss = found.pop("score"), found.pop("loss")
        return found | {"score": score, "validation_loss": loss, "metric": found.get(headline(self.objective), 0.0)}

    def _record(self, fit: Fit, model: Model) -> RunRecord:
        run, store = self.run, self.text.known
        entropy = unigram_entropy(store.counts(self.tokenizer.vocab_size))
        curves = run.curves(run.folder)
        metrics: dict[str, Any] = {}
        if self.validation is not None:
            found = self._validate(model)
            named = {name: value for name, value in found.items() if name not in ("score", "metric", "validation_loss")}
            metrics = {name: Metric(value, None, None).to_dict() for name, value in named.items()}
        links, notes = self._links(model)
        facts = run.data_facts({"train": store}, store, self.tokenizer)
        return replace(
            base_record(run.recipe.name, Task("masked"), run.command),
            seconds=time.perf_counter() - run.began,
            parameters=count(model),
            metrics=metrics | links,
            main_metric=headline(self.objective) if metrics else "mrr" if links else "",
            curves=curves,
            entropy_line=entropy,
            diagnoses=self.row_notes + diagnoses(curves, entropy),
            data_facts=facts | (self.described.facts if self.described is not None else {}),
            config=run.recipe.model_dump(mode="json"),
            notes=run.speed_notes(fit) + notes,
        )

    def _links(self, model: Model) -> tuple[dict[str, Any], list[str]]:
        """Link prediction on the test triples (the validation triples without a test): metrics and a sentence."""
        described, run = self.described, self.run
        if described is None:
            return {}, []
        name = "test" if len(described.graph.test) else "validation"
        triples: np.ndarray = getattr(described.graph, name)
        if not len(triples):
            return {}, []
        run.progress.say(f"link prediction on {len(triples):,} {name} triples")

        def heed(done: int) -> None:
            run.heed_stop("measuring link prediction")

        budget = rounded_budget(self.training.batch_tokens, run.max_length)
        pad = self.tokenizer.pad_id
        vectors = encode_entities(
            model, described, budget=budget, pad_id=pad, dtype=run.precision.dtype, on_progress=heed
        )
        assert isinstance(model.readout, LinkReadout)
        ranks = link_ranks(model.readout.links, vectors, described.graph, triples, on_progress=heed)
        rng = np.random.default_rng(run.recipe.seed)
        found = score_links(ranks, rng=rng, resamples=run.recipe.evaluation.resamples)
        said = (
            f"Link prediction: {len(triples):,} {name} triples, each asked for its tail and its head among "
            f"{len(described.graph.entities):,} entities, filtered; ties get the mean of their ranks."
        )
        return {name: metric.to_dict() for name, metric in found.items()}, [said]


def joint_loader(loader: Loader, described: Described, objective: Objective) -> JointLoader:
    """The loader with entities beside its texts, in batches of at least two rows of the longest text."""
    assert isinstance(objective, KnowledgeMasked), "entities are for the objective that learns triples"
    shared = {part.name: getattr(loader, part.name) for part in fields(Loader)}
    shared["budget"] = max(loader.budget, 2 * longest_row(loader.maker.max_length))
    return JointLoader(**shared, described=described, share=objective.config.entity_share)
