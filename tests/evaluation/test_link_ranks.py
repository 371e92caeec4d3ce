"""Link prediction: filtered ranks against a naive loop, ties, both questions, and the encoder's road to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conftest import tiny_model
from encodery.batch import Sample
from encodery.data.links import Described, Graph
from encodery.errors import DataError, TrainingError
from encodery.evaluation import links as module
from encodery.evaluation.links import encode_entities, filtered_ranks, link_ranks, score_links
from encodery.heads.links import LinkScores


def graph_of(entities: int, relations: int, triples: int, *, seed: int = 0) -> Graph:
    """Random triples, some of them more than once answered, split three ways."""
    rng = np.random.default_rng(seed)
    drawn = np.unique(
        np.column_stack([rng.integers(0, top, triples) for top in (entities, relations, entities)]), axis=0
    )
    drawn = rng.permutation(drawn)
    third = len(drawn) // 3
    names = tuple(f"e{n}" for n in range(entities)), tuple(f"r{n}" for n in range(relations))
    return Graph(*names, drawn[: len(drawn) - third], drawn[-third:-2], drawn[-2:])


def naive_rank(scores: list[float], answer: int, others: set[int]) -> float:
    """1, plus one for each entity that scores higher, plus a half for each that scores the same; known ones aside."""
    rank = 1.0
    for entity, score in enumerate(scores):
        if entity == answer or entity in others:
            continue
        if score > scores[answer]:
            rank += 1
        elif score == scores[answer]:
            rank += 0.5
    return rank


@pytest.mark.parametrize("values", [1000, 3, 1], ids=["few ties", "many ties", "all alike"])
def test_filtered_ranks_are_those_of_a_naive_loop(values: int) -> None:
    rng = np.random.default_rng(values)
    entities, questions = 40, 60
    scores = rng.integers(0, values, size=(questions, entities)).astype(np.float32)
    answers = rng.integers(0, entities, questions)
    known = [np.unique(np.append(rng.integers(0, entities, rng.integers(0, 12)), answer)) for answer in answers]
    found = filtered_ranks(scores, answers, known)
    for row in range(questions):
        others = set(known[row].tolist()) - {int(answers[row])}
        assert found[row] == naive_rank(scores[row].tolist(), int(answers[row]), others)


def test_a_model_that_scores_all_alike_is_no_better_than_chance() -> None:
    """Ranking its ties first or by their order would make it perfect or lucky."""
    scores = np.zeros((5, 101), dtype=np.float32)
    found = filtered_ranks(scores, np.arange(5), [np.array([n]) for n in range(5)])
    assert (found == 51).all()


def test_the_known_answers_may_or_may_not_name_the_answer_itself() -> None:
    scores = np.array([[3.0, 2.0, 1.0, 0.0]])
    for known in ([0, 2], [0], [0, 2, 3]):
        assert filtered_ranks(scores, np.array([2]), [np.array(known)])[0] == 2
    assert filtered_ranks(scores, np.array([2]), [np.zeros(0, np.int64)])[0] == 3


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(wrong: float) -> None:
    with pytest.raises(TrainingError, match="not a finite number"):
        filtered_ranks(np.array([[wrong, 1.0]]), np.array([1]), [np.array([1])])


@pytest.mark.parametrize("kind", ["transe", "distmult", "rotate"])
@pytest.mark.parametrize("at_once", [1 << 25, 1])
def test_ranks_of_triples_are_those_of_loops_over_all_entities(
    kind: Any, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both questions of every triple, each other entity put in its place, all splits known; in parts of any size."""
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", at_once)
    graph = graph_of(25, 3, 160)
    links = LinkScores(kind, 3, 8, margin=4.0)
    links.initialise(torch.Generator().manual_seed(1))
    vectors = torch.randn(25, 8, generator=torch.Generator().manual_seed(2))
    vectors[7] = vectors[8]  # a tie that is none by chance
    true = {tuple(row) for part in (graph.train, graph.validation, graph.test) for row in part.tolist()}
    assert len(true) > 100

    def scores(known: int, relation: int, *, for_tails: bool) -> list[float]:
        question = links.questions(vectors[[known]], torch.tensor([relation]), for_tails=for_tails)
        return links.compare(question, vectors)[0].tolist()

    found = link_ranks(links, vectors, graph, graph.validation)
    ties = 0
    with torch.inference_mode():
        for row, (head, relation, tail) in enumerate(graph.validation.tolist()):
            others = {other for other in range(25) if (head, relation, other) in true and other != tail}
            assert found[row, 0] == naive_rank(scores(head, relation, for_tails=True), tail, others)
            others = {other for other in range(25) if (other, relation, tail) in true and other != head}
            assert found[row, 1] == naive_rank(scores(tail, relation, for_tails=False), head, others)
            ties += sum(rank % 1 != 0 for rank in found[row].tolist())
    assert ties > 0


def test_figures_are_means_over_both_questions_with_intervals_over_triples() -> None:
    ranks = np.array([[1, 2], [4, 10], [1, 1], [50, 3.5]])
    found = score_links(ranks, rng=np.random.default_rng(1))
    flat = ranks.ravel()
    assert found["mrr"].value == pytest.approx((1 / flat).mean())
    assert found["mean_rank"].value == pytest.approx(flat.mean())
    for limit in (1, 3, 10):
        assert found[f"hits_{limit}"].value == pytest.approx((flat <= limit).mean())
    assert found["mrr_tails"].value == pytest.approx((1 / ranks[:, 0]).mean())
    assert found["mrr_heads"].value == pytest.approx((1 / ranks[:, 1]).mean())
    low, high = found["mrr"].low, found["mrr"].high
    assert low is not None and high is not None and low < (1 / flat).mean() < high
    with pytest.raises(DataError, match="no triples"):
        score_links(np.zeros((0, 2)), rng=np.random.default_rng(1))


def test_entities_are_encoded_by_their_descriptions_whatever_stands_beside_them() -> None:
    model = tiny_model(readout={"kind": "links", "relations": 2, "link_width": 6})
    rng = np.random.default_rng(0)
    samples = []
    for number, size in enumerate(rng.integers(3, 20, 30).tolist()):
        ids = rng.integers(5, 50, size)
        samples.append(Sample(ids, np.ones(size, bool), np.zeros(size, np.int64), -1 - number))
    names = tuple(str(number) for number in range(30))
    described = Described(Graph(names, ("a", "b"), *(np.zeros((0, 3), np.int64) for _ in range(3))), samples)
    found = encode_entities(model, described, budget=128, pad_id=0)
    assert found.shape == (30, 6)
    for number in (0, 7, 29):
        alone = Described(described.graph, [samples[number]])
        one = replace_uid(alone)
        torch.testing.assert_close(
            encode_entities(model, one, budget=64, pad_id=0)[0], found[number], atol=1e-5, rtol=1e-5
        )


def replace_uid(described: Described) -> Described:
    """The only entity of it becomes number 0."""
    (sample,) = described.samples
    return Described(described.graph, [Sample(sample.ids, sample.starts_word, sample.segment, -1)])
