"""Link prediction: the rank of each right answer among all entities, filtered, for tails and for heads.

For each kept triple (h, r, t) two questions are asked, (h, r, ?) and (?, r, t), and every entity is scored as the
answer. All other answers that are known to be true are left out ("filtered", Bordes et al. 2013, section 4.2). Entities
that score the same as the right one share their ranks, and it gets the mean of them: a model that scores all alike is
no better than chance (Sun et al. 2020, "A Re-evaluation of Knowledge Graph Completion Methods").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from encodery.data.links import Described, Graph
from encodery.errors import DataError, TrainingError
from encodery.evaluation.intervals import RESAMPLES, Metric, from_resamples, resampled_sums
from encodery.heads.links import LinkReadout, LinkScores
from encodery.model import Model, answering

HITS = (1, 3, 10)
NUMBERS_AT_ONCE = 1 << 25
"""Scores, or parts of scores, that are held at a time."""


def filtered_ranks(
    scores_QE: np.ndarray, answer_Q: np.ndarray, known: Sequence[np.ndarray], *, tolerance: float = 0.0
) -> np.ndarray:
    """The rank of each answer, 1 for the best, (Q,) float64; halves where it shares ranks with others.

    `known` are, for each question, the numbers of all entities that are right; those other than the answer do not
    count. Scores that differ by no more than `tolerance` are the same.

    Raises TrainingError for scores that are not numbers.
    """
    if not np.isfinite(scores_QE).all():
        raise TrainingError(
            "a score of an entity is not a finite number", fix="train it again with a lower training.optim.lr"
        )
    own_Q1 = scores_QE[np.arange(len(answer_Q)), answer_Q][:, None]
    better = scores_QE > own_Q1 + tolerance
    same = np.abs(scores_QE - own_Q1) <= tolerance
    for row, right in enumerate(known):
        better[row, right] = same[row, right] = False
    same[np.arange(len(answer_Q)), answer_Q] = False
    return 1 + better.sum(1) + same.sum(1) / 2


def link_ranks(
    links: LinkScores,
    entity_EK: Tensor,
    graph: Graph,
    triples: np.ndarray,
    *,
    on_progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Filtered ranks of the tail and of the head of each of `triples`, (n, 2), by the vectors of all entities."""
    numbers = entity_EK.numel() if links.name == "rotate" else len(entity_EK)
    size = max(1, min(512, NUMBERS_AT_ONCE // max(1, numbers)))
    ranks = np.zeros((len(triples), 2))
    with torch.inference_mode():
        for begin in range(0, len(triples), size):
            part = triples[begin : begin + size]
            relation = torch.from_numpy(part[:, 1]).to(entity_EK.device)
            for side, for_tails in enumerate((True, False)):
                asked, answer = (part[:, 0], part[:, 2]) if for_tails else (part[:, 2], part[:, 0])
                question = links.questions(entity_EK[torch.from_numpy(asked)], relation, for_tails=for_tails)
                scores = links.compare(question, entity_EK).cpu().numpy()
                given = zip(asked.tolist(), part[:, 1].tolist())
                known = [graph.known.of(one, by, for_tails=for_tails) for one, by in given]
                ranks[begin : begin + size, side] = filtered_ranks(scores, answer, known)
            on_progress(min(begin + size, len(triples)))
    return ranks


def score_links(ranks_T2: np.ndarray, *, rng: np.random.Generator, resamples: int = RESAMPLES) -> dict[str, Metric]:
    """MRR, Hits@1, 3 and 10 and the mean rank over both questions of each triple, with intervals over the triples; and
    MRR of tails and heads alone.

    Raises DataError when there are no triples.
    """
    if not len(ranks_T2):
        raise DataError("no triples to score", fix="name some with data.knowledge.test_triples")
    columns = {"mrr": (1 / ranks_T2).mean(1)}
    columns |= {f"hits_{limit}": (ranks_T2 <= limit).mean(1) for limit in HITS}
    columns |= {"mean_rank": ranks_T2.mean(1), "mrr_tails": 1 / ranks_T2[:, 0], "mrr_heads": 1 / ranks_T2[:, 1]}
    sums, _ = resampled_sums(np.column_stack(list(columns.values())), rng, resamples)
    return {name: from_resamples(sums[:, place] / len(ranks_T2)) for place, name in enumerate(columns)}


def encode_entities(
    model: Model,
    described: Described,
    *,
    budget: int,
    pad_id: int,
    dtype: torch.dtype = torch.float32,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """The vector of every entity by its description, (E, K) float32, in the order of the graph."""
    readout = model.readout
    assert isinstance(readout, LinkReadout), "the model has learned no triples"
    found: Tensor | None = None
    done = 0
    with answering(model, dtype):
        for batch, numbers in described.batches(budget, model.config.encoder.max_length, pad_id):
            batch = batch.to(model.device)
            states = model.encoder(model.frontend(batch), batch.layout.starts)
            vectors = readout.entities(states.vectors)
            if found is None:
                found = vectors.new_zeros(len(described.samples), vectors.shape[1])
            found[torch.from_numpy(numbers)] = vectors
            done += len(numbers)
            on_progress(done)
    assert found is not None and done == len(described.samples), "an entity was left out of the batches"
    return found
