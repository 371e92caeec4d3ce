"""Judging vectors of texts: as close as people say, or each text found among all others."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from encodery.data.corpus import HeldRows
from encodery.data.loader import Loader
from encodery.evaluation.bm25 import BM25
from encodery.evaluation.intervals import Metric
from encodery.evaluation.judges.documents import truth_of
from encodery.evaluation.judges.judge import Comparison, Judge
from encodery.evaluation.mistakes import most_wrong_numbers
from encodery.evaluation.record import ComparisonRow
from encodery.evaluation.retrieval import mean_metrics, query_metrics
from encodery.evaluation.settings import EvaluationConfig
from encodery.evaluation.similarity import cosines, score_similarity, tfidf_cosines, tfidf_search
from encodery.evaluation.text_vectors import text_vectors
from encodery.evaluation.wording import value_text
from encodery.model import Model

SEARCH_METRICS = ("mrr_10", "ndcg_10", "recall_10", "success_1", "success_10", "mean_average_precision")


@dataclass(frozen=True)
class Closeness:
    """How close the two texts of each row are, (rows,): to the model, by the first numbers of its vectors alone, and by
    the means of its token vectors before the encoder."""

    close: np.ndarray
    bare: np.ndarray
    prefixes: dict[int, np.ndarray] = field(default_factory=dict)


class ClosenessJudge(Judge):
    """Of pairs with a number that says how close they are."""

    known: ClassVar[tuple[str, ...]] = ("tfidf",)

    @property
    def main_metric(self) -> str:
        return "spearman"

    def found(self, model: Model, held: HeldRows, loader: Loader, dtype: torch.dtype) -> Closeness:
        texts = text_vectors(model, loader, dtype)
        first, second = texts.numbers(0), texts.numbers(1)
        prefixes = {width: texts.close(first, second, width) for width in self.task.detail.get("dimensions", ())}
        return Closeness(texts.close(first, second), cosines(texts.bare[first], texts.bare[second]), prefixes)

    def quick(self, found: Closeness, held: HeldRows) -> dict[str, float]:
        """The loss is 1 - Pearson's r."""
        from scipy.stats import spearmanr

        truth = truth_of(held)
        if truth.size < 2 or np.ptp(found.close) == 0 or np.ptp(truth) == 0:
            return {"loss": 1.0, "metric": 0.0}
        pearson = float(np.corrcoef(found.close, truth)[0, 1])
        return {"loss": 1 - pearson, "metric": float(np.asarray(spearmanr(found.close, truth))[0])}

    def scores(
        self, found: Closeness, held: HeldRows, *, rng: np.random.Generator, resamples: int = 1000
    ) -> dict[str, Metric]:
        return score_similarity(found.close, truth_of(held), rng=rng, resamples=resamples)

    def note(self, found: Closeness, held: HeldRows) -> str:
        def told(close: np.ndarray) -> str:
            return value_text(self.quick(Closeness(close, close), held)["metric"], self.main_metric)

        parts = [f"the first {width} numbers of its vectors get {told(at)}" for width, at in found.prefixes.items()]
        return "; ".join([f"the mean of its token vectors before the encoder gets {told(found.bare)}", *parts])

    def baselines(self, asked: Comparison) -> list[ComparisonRow]:
        """The cosine of TF-IDF vectors, with weights from the training texts."""
        if "tfidf" not in asked.wanted:
            return []
        begin = time.perf_counter()
        close = tfidf_cosines(
            asked.train.texts + (asked.train.pairs or []), asked.scored.texts, asked.scored.pairs or []
        )
        rng = np.random.default_rng(asked.seed)
        metric = score_similarity(close, truth_of(asked.scored), rng=rng, resamples=asked.evaluation.resamples)[
            "spearman"
        ]
        return [ComparisonRow("cosine of TF-IDF", metric, None, time.perf_counter() - begin)]

    def detail(self, found: Closeness, held: HeldRows, evaluation: EvaluationConfig, seed: int) -> dict[str, Any]:
        """Metrics, points of true and told, and the pairs that are most out of order."""
        parts, truth = super().detail(found, held, evaluation, seed), truth_of(held)
        told = on_scale_of(truth, found.close)
        step = max(1, truth.size // 2000)
        parts["scatter"] = np.column_stack([truth, told])[::step].tolist()
        where = [row.where for row in held.rows]
        parts["errors"] = most_wrong_numbers(told, truth, _pairs(held), where=where, top=evaluation.errors)
        return parts

    def diagnoses(self, found: Closeness) -> list[str]:
        if found.close.size < 2 or np.ptp(found.close) > 1e-6:
            return []
        return ["All pairs are equally close: the vectors collapsed into one. Lower training.optim.lr."]

    def difference(self, found: Closeness, precise: Closeness, held: HeldRows) -> str:
        change = float(np.abs(found.close - precise.close).mean())
        return f"cosines differ from those of fp32 by {change:.5f} on average"


@dataclass(frozen=True)
class Searched:
    """Each metric for each query, (Q,): by the model, before the encoder, by the first numbers of its vectors alone."""

    each: dict[str, np.ndarray]
    bare: dict[str, np.ndarray]
    prefixes: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)


class SearchJudge(Judge):
    """Of pairs that belong together: each first text is a query, and all second texts and wrong answers of the rows are
    what is searched, each text once. Right are the second texts of all rows with the same first text."""

    known: ClassVar[tuple[str, ...]] = ("bm25", "tfidf")

    @property
    def main_metric(self) -> str:
        return "mrr_10"

    def found(self, model: Model, held: HeldRows, loader: Loader, dtype: torch.dtype) -> Searched:
        texts, among = text_vectors(model, loader, dtype), Collection(held)
        place = {(row, part): number for number, (row, part) in enumerate(zip(texts.row.tolist(), texts.part.tolist()))}
        asked = np.array([place[key] for key in among.asked])
        searched = np.array([place[key] for key in among.searched])
        bare = _unit(texts.bare)
        return Searched(
            among.metrics(texts.search(asked, searched)),
            among.metrics(bare[asked] @ bare[searched].T),
            {
                width: among.metrics(texts.search(asked, searched, width))
                for width in self.task.detail.get("dimensions", ())
            },
        )

    def quick(self, found: Searched, held: HeldRows) -> dict[str, float]:
        """The loss is 1 - nDCG@10."""
        each = found.each
        return {"loss": 1 - float(each["ndcg_10"].mean()), "metric": float(each[self.main_metric].mean())}

    def scores(
        self, found: Searched, held: HeldRows, *, rng: np.random.Generator, resamples: int = 1000
    ) -> dict[str, Metric]:
        return mean_metrics({name: found.each[name] for name in SEARCH_METRICS}, rng=rng, resamples=resamples)

    def each(self, found: Searched, held: HeldRows) -> np.ndarray | None:
        return found.each[self.main_metric]

    def note(self, found: Searched, held: HeldRows) -> str:
        def told(each: dict[str, np.ndarray]) -> str:
            return value_text(float(each[self.main_metric].mean()), self.main_metric)

        parts = [f"the first {width} numbers of its vectors get {told(at)}" for width, at in found.prefixes.items()]
        among = Collection(held)
        return "; ".join(
            [
                f"{len(among.asked):,} queries are searched among {len(among.searched):,} texts",
                f"the mean of its token vectors before the encoder gets {told(found.bare)}",
                *parts,
            ]
        )

    def baselines(self, asked: Comparison) -> list[ComparisonRow]:
        """BM25 over the texts that are searched, and the cosine of TF-IDF vectors with weights from them."""
        among, rows = Collection(asked.scored), []
        queries, documents = among.query_texts, among.document_texts
        for name, title, note in (
            ("bm25", "BM25", "k1 1.2, b 0.75, lower-cased words, none left out or stemmed"),
            ("tfidf", "cosine of TF-IDF", ""),
        ):
            if name in asked.wanted:
                begin = time.perf_counter()
                scores = BM25(documents).scores(queries) if name == "bm25" else tfidf_search(queries, documents)
                rng = np.random.default_rng(asked.seed)
                found = mean_metrics(among.metrics(scores), rng=rng, resamples=asked.evaluation.resamples)
                seconds = time.perf_counter() - begin
                rows.append(ComparisonRow(title, found[self.main_metric], None, seconds, note))
        return rows

    def detail(self, found: Searched, held: HeldRows, evaluation: EvaluationConfig, seed: int) -> dict[str, Any]:
        """Metrics, and the queries whose answers were found last."""
        parts = super().detail(found, held, evaluation, seed)
        among, value = Collection(held), found.each["mean_average_precision"]
        wrong = np.flatnonzero(value < 1)
        parts["errors"] = [
            {
                "text": _joined(held, among.asked[query][0]),
                "where": held.rows[among.asked[query][0]].where,
                "row": among.asked[query][0],
                "true": "rank 1",
                "predicted": f"average precision {value[query]:.3f}",
            }
            for query in wrong[np.argsort(value[wrong], kind="stable")][: evaluation.errors].tolist()
        ]
        return parts

    def difference(self, found: Searched, precise: Searched, held: HeldRows) -> str:
        name = self.main_metric
        same = float(np.isclose(found.each[name], precise.each[name]).mean())
        return f"{same:.2%} of the queries have the {name} of fp32"


class Collection:
    """The queries and the texts of held rows, each text once: as (row, part), and which of them answer which query."""

    def __init__(self, held: HeldRows) -> None:
        queries: dict[str, int] = {}
        documents: dict[str, int] = {}
        self.asked: list[tuple[int, int]] = []
        self.searched: list[tuple[int, int]] = []
        right: list[set[int]] = []
        for number, row in enumerate(held.rows):
            assert row.pair is not None, "search is judged on pairs"
            if row.text not in queries:
                queries[row.text] = len(queries)
                self.asked.append((number, 0))
                right.append(set())
            for part, text in enumerate((row.pair, *row.beside.get("negatives", ())), start=1):
                if text not in documents:
                    documents[text] = len(documents)
                    self.searched.append((number, part))
            right[queries[row.text]].add(documents[row.pair])
        self.right = [np.array(sorted(answers)) for answers in right]
        self.query_texts, self.document_texts = list(queries), list(documents)

    def metrics(self, scores_QD: np.ndarray) -> dict[str, np.ndarray]:
        """Each metric for each query, (Q,)."""
        rows = []
        for scores, right in zip(scores_QD, self.right):
            gain = np.zeros(scores.size)
            gain[right] = 1.0
            rows.append(query_metrics(scores.astype(np.float64), gain, np.ones(right.size), (1, 10)))
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def on_scale_of(truth_N: np.ndarray, close_N: np.ndarray) -> np.ndarray:
    """Similarities as numbers of the labels' scale: the n-th closest pair gets the n-th largest label, (N,)."""
    from scipy.stats import rankdata

    quantile = (rankdata(close_N) - 0.5) / close_N.size
    return np.quantile(truth_N, quantile)


def _pairs(held: HeldRows) -> list[str]:
    return [_joined(held, number) for number in range(len(held.rows))]


def _joined(held: HeldRows, number: int) -> str:
    row = held.rows[number]
    return f"{row.text}  ⟷  {row.pair}"


def _unit(x_ND: np.ndarray) -> np.ndarray:
    return x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12)
