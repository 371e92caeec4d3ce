"""Judging the order of candidates: each query's, by the scores of a cross-encoder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from encodery.data.corpus import HeldRows
from encodery.data.loader import Loader, Place
from encodery.evaluation.bm25 import BM25
from encodery.evaluation.intervals import Metric
from encodery.evaluation.judges.closeness import SEARCH_METRICS
from encodery.evaluation.judges.documents import truth_of
from encodery.evaluation.judges.judge import Comparison, Judge
from encodery.evaluation.record import ComparisonRow
from encodery.evaluation.retrieval import mean_metrics, query_metrics
from encodery.evaluation.settings import EvaluationConfig
from encodery.model import Model, answering


@dataclass(frozen=True)
class CandidateScores:
    """The score of each candidate, (N,), in the order of `candidates_of`."""

    score: np.ndarray


@dataclass(frozen=True)
class Candidate:
    """Text number `part` of a row (0: its second text, then its wrong answers), and how relevant it is to `query`."""

    query: int
    row: int
    part: int
    text: str
    grade: float


def candidates_of(held: HeldRows, *, grades: bool) -> tuple[list[str], list[Candidate]]:
    """The queries of held rows, each once, and all their candidates in the order of the rows."""
    queries: dict[str, int] = {}
    truth = truth_of(held) if grades else None
    found: list[Candidate] = []
    for number, row in enumerate(held.rows):
        assert row.pair is not None, "candidates stand beside a query"
        query = queries.setdefault(row.text, len(queries))
        found.append(Candidate(query, number, 0, row.pair, 1.0 if truth is None else float(truth[number])))
        for part, text in enumerate(() if grades else row.beside.get("negatives", ()), start=1):
            found.append(Candidate(query, number, part, text, 0.0))
    return list(queries), found


class CandidateJudge(Judge):
    """Of queries with candidates: those of one query text are one list."""

    known: ClassVar[tuple[str, ...]] = ("bm25",)

    @property
    def main_metric(self) -> str:
        return "ndcg_10"

    def found(self, model: Model, held: HeldRows, loader: Loader, dtype: torch.dtype) -> CandidateScores:
        _, candidates = self._candidates(held)
        place = {(one.row, one.part): number for number, one in enumerate(candidates)}
        score, seen = np.zeros(len(candidates)), np.zeros(len(candidates), dtype=bool)
        with answering(model, dtype):
            for batch, _ in loader.epoch(Place()):
                output = model(batch.to(model.device))
                assert output.logits is not None
                told = output.logits[:, 0].float().cpu().numpy()
                for row, part, value in zip(batch.uids.tolist(), batch.parts.tolist(), told):
                    number = place[row, part]
                    score[number], seen[number] = value, True
        assert seen.all(), "a candidate was left out of the batches"
        return CandidateScores(score)

    def quick(self, found: CandidateScores, held: HeldRows) -> dict[str, float]:
        """The loss is 1 - MRR@10."""
        each = self._metrics(found.score, held)
        return {"loss": 1 - float(each["mrr_10"].mean()), "metric": float(each[self.main_metric].mean())}

    def scores(
        self, found: CandidateScores, held: HeldRows, *, rng: np.random.Generator, resamples: int = 1000
    ) -> dict[str, Metric]:
        each = self._metrics(found.score, held)
        return mean_metrics({name: each[name] for name in SEARCH_METRICS}, rng=rng, resamples=resamples)

    def each(self, found: CandidateScores, held: HeldRows) -> np.ndarray | None:
        return self._metrics(found.score, held)[self.main_metric]

    def note(self, found: CandidateScores, held: HeldRows) -> str:
        queries, candidates = self._candidates(held)
        return f"{len(queries):,} queries with {len(candidates):,} candidates"

    def baselines(self, asked: Comparison) -> list[ComparisonRow]:
        """BM25, its word weights from all candidates."""
        if "bm25" not in asked.wanted:
            return []
        begin = time.perf_counter()
        queries, candidates = self._candidates(asked.scored)
        texts = list(dict.fromkeys(one.text for one in candidates))
        column = {text: place for place, text in enumerate(texts)}
        told = BM25(texts).scores(queries)
        score = np.array([told[one.query, column[one.text]] for one in candidates])
        each = self._metrics(score, asked.scored)
        found = mean_metrics(each, rng=np.random.default_rng(asked.seed), resamples=asked.evaluation.resamples)
        note = "k1 1.2, b 0.75, lower-cased words, none left out or stemmed"
        return [ComparisonRow("BM25", found[self.main_metric], None, time.perf_counter() - begin, note)]

    def detail(self, found: CandidateScores, held: HeldRows, evaluation: EvaluationConfig, seed: int) -> dict[str, Any]:
        """Metrics, and the queries whose candidates are most out of order."""
        parts, (queries, candidates) = super().detail(found, held, evaluation, seed), self._candidates(held)
        each, asked = self._metrics(found.score, held)[self.main_metric], self._answerable(held)
        first: dict[int, Candidate] = {}
        for number in np.argsort(-found.score, kind="stable").tolist():
            first.setdefault(candidates[number].query, candidates[number])
        best = {one.query: one for one in sorted(candidates, key=lambda one: one.grade)}
        wrong = np.flatnonzero(each < 1)
        parts["errors"] = [
            {
                "text": queries[asked[place]],
                "where": held.rows[first[asked[place]].row].where,
                "row": first[asked[place]].row,
                "true": best[asked[place]].text[:200],
                "predicted": first[asked[place]].text[:200],
            }
            for place in wrong[np.argsort(each[wrong], kind="stable")][: evaluation.errors].tolist()
        ]
        return parts

    def _candidates(self, held: HeldRows) -> tuple[list[str], list[Candidate]]:
        return candidates_of(held, grades=bool(self.task.detail.get("grades")))

    def _answerable(self, held: HeldRows) -> list[int]:
        """The queries that have a relevant candidate."""
        return sorted({one.query for one in self._candidates(held)[1] if one.grade > 0})

    def _metrics(self, score_N: np.ndarray, held: HeldRows) -> dict[str, np.ndarray]:
        """Each metric for each query with a relevant candidate."""
        _, candidates = self._candidates(held)
        members: dict[int, list[int]] = {}
        for number, one in enumerate(candidates):
            members.setdefault(one.query, []).append(number)
        grade = np.array([one.grade for one in candidates])
        rows = [
            query_metrics(score_N[members[query]], grade[members[query]], grade[members[query]], (1, 10))
            for query in self._answerable(held)
        ]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}
