"""How well documents are ranked for queries: MRR, nDCG, recall, average precision, success; fusion of rankings.

A run holds scores, `{query: {document: score}}`; judgements hold grades, `{query: {document: grade}}`, above 0 for
documents that answer the query. Documents that were not judged do not. Documents of equal score stand in the order that
is worst for the run: one that scores all alike gains nothing by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from encodery.errors import DataError, TrainingError
from encodery.evaluation.intervals import RESAMPLES, Metric, from_resamples, resampled_sums

Scores = Mapping[str, Mapping[str, float]]
"""By query, by document."""
Array = NDArray[np.float64]
CUTOFFS = (10,)


def ranking_metrics(run: Scores, judgements: Scores, *, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, Array]:
    """Each metric for each judged query, (Q,), in the order of `answerable(judgements)`.

    `mrr_K`: 1 / rank of the first relevant document, 0 below rank K. `ndcg_K`: discounted cumulative gain, grade /
    log2(rank + 1) summed over the first K, as a share of the best possible (Järvelin and Kekäläinen 2002, with the
    grade itself as gain, as in trec_eval). `recall_K`: share of the relevant documents among the first K. `success_K`:
    1 where one is. `mean_average_precision`: the mean over the relevant documents of the precision at their ranks, 0
    for those not found.
    Queries without a relevant document are left out; a query that the run lacks counts 0.

    Raises DataError when no query has a relevant document, TrainingError for a score that is not a finite number.
    """
    queries = answerable(judgements)
    if not queries:
        raise DataError("no query has a relevant document", expected="judgements with grades above 0")
    rows = [_one_query(run.get(query, {}), judgements[query], cutoffs, query) for query in queries]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def answerable(judgements: Scores) -> list[str]:
    """The queries with at least one relevant document, in their order."""
    return [query for query, grades in judgements.items() if any(grade > 0 for grade in grades.values())]


def _one_query(
    scores: Mapping[str, float], grades: Mapping[str, float], cutoffs: Sequence[int], query: str
) -> dict[str, float]:
    value_D = np.array(list(scores.values()), dtype=np.float64)
    if not np.isfinite(value_D).all():
        raise TrainingError(f"query {query}: a document's score is not a finite number")
    gain_D = np.array([grades.get(document, 0.0) for document in scores], dtype=np.float64)
    return query_metrics(value_D, gain_D, np.array(list(grades.values()), dtype=np.float64), cutoffs)


def query_metrics(value_D: Array, gain_D: Array, grades: Array, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, float]:
    """The metrics of one query: documents with their scores and grades (D,), and all grades that were given, also to
    documents that are not among these. At least one grade is above 0."""
    gain_D = np.maximum(gain_D, 0.0)
    # Best score first; of equal ones the least relevant first.
    gain_D = gain_D[np.lexsort((gain_D, -value_D))]
    best = np.sort(grades[grades > 0])[::-1]
    ranks = np.flatnonzero(gain_D > 0) + 1
    found: dict[str, float] = {}
    for limit in cutoffs:
        inside = ranks[ranks <= limit]
        found[f"mrr_{limit}"] = 1 / inside[0] if inside.size else 0.0
        found[f"ndcg_{limit}"] = discounted(gain_D[:limit]) / discounted(best[:limit])
        found[f"recall_{limit}"] = inside.size / best.size
        found[f"success_{limit}"] = float(inside.size > 0)
    found["mean_average_precision"] = (
        float((np.arange(1, ranks.size + 1) / ranks).sum() / best.size) if ranks.size else 0.0
    )
    return found


def discounted(gain_D: Array) -> float:
    """Cumulative gain of grades in the order of their ranks, each divided by log2(rank + 1)."""
    return float((gain_D / np.log2(np.arange(2, gain_D.size + 2))).sum())


def score_rankings(
    run: Scores,
    judgements: Scores,
    *,
    rng: np.random.Generator,
    cutoffs: Sequence[int] = CUTOFFS,
    resamples: int = RESAMPLES,
) -> dict[str, Metric]:
    """The mean of each metric over the queries, with an interval by bootstrap over the queries."""
    each = ranking_metrics(run, judgements, cutoffs=cutoffs)
    left_out = len(judgements) - len(answerable(judgements))
    note = f"{left_out} queries without a relevant document left out" if left_out else ""
    return mean_metrics(each, rng=rng, resamples=resamples, note=note)


def mean_metrics(
    each: Mapping[str, Array], *, rng: np.random.Generator, resamples: int = RESAMPLES, note: str = ""
) -> dict[str, Metric]:
    """The mean of each column (Q,) with its interval; all share their resamples."""
    sums, _ = resampled_sums(np.column_stack(list(each.values())), rng, resamples)
    queries = len(next(iter(each.values())))
    return {name: from_resamples(sums[:, place] / queries, note=note) for place, name in enumerate(each)}


def permutation_p(a_Q: Array, b_Q: Array, rng: np.random.Generator, draws: int = 10_000) -> float:
    """How often chance alone makes the mean of `a - b` over the same queries as large as it is, either way.

    Fisher's randomisation test (Smucker et al. 2007): the two values of each query are swapped at random. The sample
    itself counts as one of the draws, so the result is never 0.
    """
    a_Q, b_Q = np.asarray(a_Q, dtype=np.float64), np.asarray(b_Q, dtype=np.float64)
    if a_Q.shape != b_Q.shape or a_Q.ndim != 1 or not a_Q.size:
        raise DataError(
            f"two runs with {a_Q.shape} and {b_Q.shape} queries cannot be compared in pairs",
            expected="one value a query, the same queries in the same order",
        )
    apart = a_Q - b_Q
    signs = rng.integers(0, 2, size=(draws, apart.size)) * 2.0 - 1
    as_large = np.abs(signs @ apart) >= abs(apart.sum()) - 1e-12
    return float((1 + as_large.sum()) / (1 + draws))


def reciprocal_rank_fusion(runs: Sequence[Scores], *, k: float = 60.0) -> dict[str, dict[str, float]]:
    """One run from several: each document gets the sum of 1 / (k + rank) (Cormack et al. 2009). Documents of equal
    score share the mean of their ranks, a document that a run lacks gets nothing from it."""
    found: dict[str, dict[str, float]] = {}
    for run in runs:
        for query, scores in run.items():
            ranks = _mean_ranks(np.array(list(scores.values()), dtype=np.float64))
            fused = found.setdefault(query, {})
            for document, rank in zip(scores, ranks.tolist()):
                fused[document] = fused.get(document, 0.0) + 1 / (k + rank)
    return found


def weighted_fusion(
    runs: Sequence[Scores], weights: Sequence[float], *, scale: Literal["zscore", "minmax"] = "zscore"
) -> dict[str, dict[str, float]]:
    """One run from several: the weighted sum of their scores, each brought to one scale for each query: mean 0 and
    deviation 1, or 0 to 1. A document that a run lacks gets that run's lowest score.

    Raises DataError when there is not one weight for each run.
    """
    if len(runs) != len(weights):
        raise DataError(f"{len(weights)} weights for {len(runs)} runs", expected="one weight a run")
    found: dict[str, dict[str, float]] = {}
    for query in _in_order(runs):
        documents = list(_in_order([run.get(query, {}) for run in runs]))
        total = np.zeros(len(documents))
        for run, weight in zip(runs, weights):
            given = run.get(query, {})
            if not given:
                continue
            lowest = min(given.values())
            value_D = np.array([given.get(document, lowest) for document in documents])
            total += weight * _scaled(value_D, scale)
        found[query] = dict(zip(documents, total.tolist()))
    return found


def _in_order(parts: Iterable[Mapping[str, object]]) -> dict[str, None]:
    """The keys of all parts, each once, in the order they come."""
    return {key: None for part in parts for key in part}


def _scaled(value_D: Array, scale: str) -> Array:
    spread = value_D.std() if scale == "zscore" else np.ptp(value_D)
    middle = value_D.mean() if scale == "zscore" else value_D.min()
    return (value_D - middle) / spread if spread > 0 else np.zeros_like(value_D)


def _mean_ranks(value_D: Array) -> Array:
    from scipy.stats import rankdata

    return rankdata(-value_D)
