"""Judging a language model: perplexity and bits per byte of held texts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from encodery.data.corpus import HeldRows
from encodery.data.loader import Loader, Place
from encodery.data.tokenizers import Tokenizer
from encodery.evaluation.intervals import Metric
from encodery.evaluation.judges.judge import Comparison, Judge
from encodery.evaluation.record import ComparisonRow
from encodery.evaluation.texts import score_surprise, utf8_sizes
from encodery.model import Model, answering
from encodery.objectives.causal import Causal, CausalConfig
from encodery.objectives.cross_entropy import IGNORED, row_losses
from encodery.trained import Task


@dataclass(frozen=True)
class SurprisedRows:
    """Of each row the surprise in nats, and the tokens guessed, the end of the text included: (rows,) each."""

    nats: np.ndarray
    tokens: np.ndarray


class LanguageJudge(Judge):
    """Of causal. Every token of a text is guessed once; long texts in windows that do not see each other."""

    known: ClassVar[tuple[str, ...]] = ("unigram",)

    def __init__(self, task: Task, tokenizer: Tokenizer) -> None:
        super().__init__(task)
        self.tokenizer = tokenizer

    @property
    def main_metric(self) -> str:
        return "bits_per_byte"

    def found(self, model: Model, held: HeldRows, loader: Loader, dtype: torch.dtype) -> SurprisedRows:
        nats, tokens = np.zeros(held.store.rows), np.zeros(held.store.rows)
        objective = Causal(CausalConfig(), model.config.encoder.max_length)
        rng = np.random.default_rng(0)
        with answering(model, dtype):
            for batch, _ in loader.epoch(Place()):
                batch = objective.prepare(batch, rng, 0.0).to(model.device)
                output, wanted = model(batch), batch.truth["target"]
                assert output.logits is not None
                _, surprise_P, _ = row_losses(output.logits, wanted)
                counts = (wanted != IGNORED).cpu().numpy()
                owner = batch.uids[batch.layout.document.cpu().numpy()[counts]]
                np.add.at(nats, owner, surprise_P.double().cpu().numpy()[counts])
                np.add.at(tokens, owner, 1.0)
        return SurprisedRows(nats, tokens)

    def quick(self, found: SurprisedRows, held: HeldRows) -> dict[str, float]:
        loss = float(found.nats.sum() / max(1.0, found.tokens.sum()))
        bits = float(found.nats.sum() / np.log(2) / utf8_sizes(held.texts).sum())
        return {"loss": loss, "metric": bits, "score": -loss}

    def scores(
        self, found: SurprisedRows, held: HeldRows, *, rng: np.random.Generator, resamples: int = 1000
    ) -> dict[str, Metric]:
        sizes = utf8_sizes(held.texts)
        return score_surprise(found.nats, found.tokens, sizes, rng=rng, resamples=resamples)

    def note(self, found: SurprisedRows, held: HeldRows) -> str:
        """What the tokenizer does not keep costs no bits, so it is said."""
        del found
        lost = []
        if self.tokenizer.unk_id is not None:
            unknown = int(held.store.counts(self.tokenizer.vocab_size)[self.tokenizer.unk_id])
            if unknown:
                lost.append(f"{unknown:,} of {held.store.tokens.size:,} tokens are unknown to the tokenizer")
        if self.tokenizer.facts().get("rules", {}).get("lowercase"):
            lost.append("the tokenizer makes letters small")
        if not lost:
            return ""
        return f"bits per byte are of what the tokenizer keeps, and {', '.join(lost)}; byte_bpe keeps everything"

    def baselines(self, asked: Comparison) -> list[ComparisonRow]:
        """unigram: each token by how often it comes in the training texts, whatever stands before it."""
        if "unigram" not in asked.wanted:
            return []
        begin = time.perf_counter()
        counts = asked.train.store.counts(self.tokenizer.vocab_size) + 0.5
        counts[self.tokenizer.sep_id] += asked.train.store.rows
        surprise = -np.log(counts / counts.sum())
        ids = [asked.scored.store.text(number)[0] for number in range(asked.scored.store.rows)]
        nats = np.array([surprise[one].sum() + surprise[self.tokenizer.sep_id] for one in ids])
        tokens = np.array([one.size + 1.0 for one in ids])
        rng = np.random.default_rng(asked.seed)
        found = SurprisedRows(nats, tokens)
        metric = self.scores(found, asked.scored, rng=rng, resamples=asked.evaluation.resamples)[self.main_metric]
        note = "each token by its frequency alone"
        return [ComparisonRow("unigram", metric, counts.size, time.perf_counter() - begin, note)]
