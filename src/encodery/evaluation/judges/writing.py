"""Judging what is written: the surprise of the targets, and the texts themselves beside their references."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import tokenizers
import torch

from encodery.data.corpus import HeldRows
from encodery.data.loader import Loader, Place
from encodery.data.targets import TARGET, TargetFrame, TargetLoader, shape_of
from encodery.data.tokenizers import Tokenizer
from encodery.evaluation.intervals import Metric
from encodery.evaluation.judges.judge import Comparison, Judge
from encodery.evaluation.record import ComparisonRow
from encodery.evaluation.settings import EvaluationConfig
from encodery.evaluation.texts import (
    BleuTokenizer,
    TextCounts,
    bleu_tokenizer,
    count_texts,
    score_surprise,
    score_texts,
    utf8_sizes,
)
from encodery.evaluation.writing_baselines import RuleTexts, copied, first_sentences, from_memory
from encodery.heads.decoding.decoder import Decoder
from encodery.heads.decoding.generation_options import GenerationConfig
from encodery.heads.decoding.writing import write_from_sources
from encodery.model import Model, answering
from encodery.objectives.writing import writing_losses
from encodery.trained import Task


@dataclass(frozen=True)
class WrittenRows:
    """What a model says of rows: the surprise in nats and the tokens of each target (rows,), and for the rows `tried`
    what it wrote."""

    nats: np.ndarray
    tokens: np.ndarray
    tried: np.ndarray
    texts: list[str]


class WritingJudge(Judge):
    """Of write. While a run is learning only some rows are written, greedily: `glancing`."""

    def __init__(self, task: Task, tokenizer: Tokenizer, *, glancing: bool = False) -> None:
        super().__init__(task)
        self.source_tokenizer = tokenizer
        self.glancing = glancing
        summary = self.main_metric.startswith("rouge")
        self.known = ("first_sentence", "memory") if summary else ("copy", "memory")  # type: ignore[misc]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """That of the targets."""
        return target_tokenizer_of(self.task) or self.source_tokenizer

    @property
    def main_metric(self) -> str:
        return self.task.detail.get("metric", "bleu")

    @property
    def options(self) -> GenerationConfig:
        """How texts are written."""
        return GenerationConfig() if self.glancing else GenerationConfig(**self.task.detail.get("generation", {}))

    def glance(self) -> Judge:
        return WritingJudge(self.task, self.source_tokenizer, glancing=True)

    def found(self, model: Model, held: HeldRows, loader: Loader, dtype: torch.dtype) -> WrittenRows:
        assert isinstance(model.readout, Decoder)
        if not isinstance(loader, TargetLoader):
            frame = TargetFrame.of(self.tokenizer, self.task.detail.get("most_tokens") or model.readout.max_length)
            shape = shape_of(held.store, loader.maker, frame, loader.budget)
            shared = {part.name: getattr(loader, part.name) for part in fields(Loader)}
            loader = TargetLoader(**shared, frame=frame, shape=shape)
        nats, tokens = surprise_of_targets(model, loader, held.store.rows, dtype)
        rows = np.arange(held.store.rows)
        if self.glancing:
            wanted = min(self.task.detail.get("tried", 200), rows.size)
            rows = np.unique(np.linspace(0, rows.size - 1, wanted).astype(int)) if wanted else rows[:0]
        sources = loader.samples(held.store, rows)
        given = (self.tokenizer, self.options, loader.pad_id, dtype)
        written = write_from_sources(model, sources, *given) if rows.size else []
        return WrittenRows(nats, tokens, rows, [self.tokenizer.decode(found[0].ids) for found in written])

    def quick(self, found: WrittenRows, held: HeldRows) -> dict[str, float]:
        """The weights of the least loss are kept: what few texts are worth says less."""
        loss = float(found.nats.sum() / max(1.0, found.tokens.sum()))
        if not found.tried.size:
            return {"loss": loss, "metric": 0.0, "score": -loss}
        metric = score_texts(self._counts(found, held), rng=np.random.default_rng(0), resamples=1)[self.main_metric]
        return {"loss": loss, "metric": metric.value or 0.0, "score": -loss}

    def scores(
        self, found: WrittenRows, held: HeldRows, *, rng: np.random.Generator, resamples: int = 1000
    ) -> dict[str, Metric]:
        texts = score_texts(self._counts(found, held), rng=rng, resamples=resamples)
        sizes = utf8_sizes([right[0] for right in _references(held)])
        return {**texts, **score_surprise(found.nats, found.tokens, sizes, rng=rng, resamples=resamples)}

    def each(self, found: WrittenRows, held: HeldRows) -> np.ndarray | None:
        """Of ROUGE, which is a mean; BLEU and chrF are of the corpus."""
        if not self.main_metric.startswith("rouge"):
            return None
        return self._counts(found, held).each(self.main_metric)

    def note(self, found: WrittenRows, held: HeldRows) -> str:
        signature = self._counts(found, held).signatures.get(self.main_metric)
        return "" if signature is None else f"{self.main_metric} counted as {signature}"

    def baselines(self, asked: Comparison) -> list[ComparisonRow]:
        """copy: the source; first_sentence of it; memory: the target of the most similar training source."""
        made: list[RuleTexts] = []
        if "copy" in asked.wanted:
            made.append(copied(asked.scored.texts))
        if "first_sentence" in asked.wanted:
            made.append(first_sentences(asked.scored.texts))
        if "memory" in asked.wanted:
            made.append(
                from_memory(asked.train.texts, [right[0] for right in _references(asked.train)], asked.scored.texts)
            )
        found = []
        for rule in made:
            counts = count_texts(rule.texts, _references(asked.scored), self._bleu_tokenizer(asked.scored))
            metrics = score_texts(counts, rng=np.random.default_rng(asked.seed), resamples=asked.evaluation.resamples)
            found.append(ComparisonRow(rule.name, metrics[self.main_metric], 0, rule.seconds, rule.note))
        return found

    def detail(self, found: WrittenRows, held: HeldRows, evaluation: EvaluationConfig, seed: int) -> dict[str, Any]:
        """Metrics, and examples: rows spread over all, from the best written to the worst."""
        parts = super().detail(found, held, evaluation, seed)
        counts = self._counts(found, held)
        worth = counts.each("chrf")
        order = np.argsort(-worth, kind="stable")
        chosen = order[np.unique(np.linspace(0, order.size - 1, min(evaluation.errors, order.size)).astype(int))]
        examples = []
        for place in chosen.tolist():
            row = held.rows[int(found.tried[place])]
            references, text = row.beside[TARGET], found.texts[place]
            examples.append(
                {
                    "where": row.where,
                    "source": row.text,
                    "reference": references[0],
                    "written": text,
                    "chrf": round(float(worth[place]), 1),
                }
            )
        return {**parts, "examples": examples}

    def diagnoses(self, found: WrittenRows) -> list[str]:
        """Whether nothing, or always the same, is written."""
        texts = found.texts
        if not texts:
            return []
        empty, different = sum(not text.strip() for text in texts), len(set(texts))
        said = []
        if empty > 0.05 * len(texts):
            said.append(f"{empty:,} of {len(texts):,} texts are empty: raise objective.generation.min_tokens.")
        if len(texts) >= 20 and different < 0.1 * len(texts):
            said.append(
                f"Only {different:,} different texts were written for {len(texts):,} sources: the decoder has learned "
                "what targets look like, but not to look at the source. It needs more time (training.budget) or data."
            )
        return said

    def _bleu_tokenizer(self, held: HeldRows) -> BleuTokenizer:
        kept = self.task.detail.get("bleu_tokenizer")
        return kept or bleu_tokenizer([right[0] for right in _references(held)])

    def _counts(self, found: WrittenRows, held: HeldRows) -> TextCounts:
        references = _references(held)
        chosen = [references[number] for number in found.tried.tolist()]
        return count_texts(found.texts, chosen, self._bleu_tokenizer(held))


def _references(held: HeldRows) -> list[tuple[str, ...]]:
    return [row.beside[TARGET] for row in held.rows]


def target_tokenizer_of(task: Task) -> Tokenizer | None:
    """The tokenizer of the targets, where they have one of their own."""
    kept = task.detail.get("target_tokenizer")
    if kept is None:
        return None
    return Tokenizer(tokenizers.Tokenizer.from_str(kept["json"]), kept["facts"], where="the tokenizer of the targets")


def surprise_of_targets(
    model: Model, loader: TargetLoader, rows: int, dtype: torch.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """The surprise in nats of each row's target and its tokens, the end included: (rows,) each."""
    nats, tokens = np.zeros(rows), np.zeros(rows)
    assert isinstance(model.readout, Decoder)
    with answering(model, dtype):
        for batch, _ in loader.epoch(Place()):
            batch = batch.to(model.device)
            assert batch.target is not None
            wanted = batch.target.truth["target"]
            _, surprise_P, _ = writing_losses(model(batch), wanted)
            document = batch.target.layout.document.cpu().numpy()
            owner = batch.uids[document[document >= 0]]
            np.add.at(nats, owner, surprise_P.double().cpu().numpy()[document >= 0])
            np.add.at(tokens, owner, (wanted >= 0).cpu().numpy()[document >= 0])
    return nats, tokens
