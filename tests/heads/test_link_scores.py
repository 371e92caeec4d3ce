"""Scores of triples: each by its formula, for tails and heads alike, with the properties that make them differ."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from encodery.heads.links import LinkScores

ENTITIES, RELATIONS, WIDTH, MARGIN = 7, 3, 8, 5.0
KINDS = ["transe", "distmult", "rotate"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def scores_of(kind: Any) -> LinkScores:
    made = LinkScores(kind, RELATIONS, WIDTH, margin=MARGIN)
    made.initialise(torch.Generator().manual_seed(3))
    return made


def entities(seed: int = 1) -> Tensor:
    return torch.randn(ENTITIES, WIDTH, generator=torch.Generator().manual_seed(seed))


def written_out(kind: str, head: Tensor, relation: Tensor, tail: Tensor) -> float:
    """The formula of the paper for one triple, number by number."""
    if kind == "transe":
        return MARGIN - sum(float(h + r - t) ** 2 for h, r, t in zip(head, relation, tail)) ** 0.5
    if kind == "distmult":
        return sum(float(h * r * t) for h, r, t in zip(head, relation, tail))
    half = len(head) // 2
    total = 0.0
    for k in range(half):
        h, t = complex(head[k], head[half + k]), complex(tail[k], tail[half + k])
        turn = complex(torch.cos(relation[k]), torch.sin(relation[k]))
        total += abs(h * turn - t)
    return MARGIN - total


@every_kind
def test_every_score_is_the_formula_of_its_paper(kind: str) -> None:
    """Asked for the tail or for the head, a triple has the same score."""
    scores, vectors = scores_of(kind), entities()
    relation = torch.tensor([0, 2, 1, 2])
    known = torch.tensor([1, 4, 4, 6])
    for for_tails in (True, False):
        found = scores.compare(scores.questions(vectors[known], relation, for_tails=for_tails), vectors)
        assert found.shape == (4, ENTITIES)
        for row in range(4):
            for other in range(ENTITIES):
                one, two = vectors[known[row]], vectors[other]
                head, tail = (one, two) if for_tails else (two, one)
                wanted = written_out(kind, head, scores.relations.weight[relation[row]].detach(), tail)
                assert float(found[row, other].detach()) == pytest.approx(wanted, abs=1e-4)


@every_kind
def test_gradients_are_finite_where_an_answer_is_met_exactly(kind: str) -> None:
    scores = scores_of(kind)
    vectors = entities().requires_grad_()
    with torch.no_grad():
        scores.relations.weight.zero_()
    found = scores.compare(scores.questions(vectors, torch.zeros(ENTITIES, dtype=torch.int64), for_tails=True), vectors)
    found.sum().backward()
    assert vectors.grad is not None and torch.isfinite(vectors.grad).all()
    assert scores.relations.weight.grad is not None and torch.isfinite(scores.relations.weight.grad).all()


def test_distances_are_the_same_while_learning_and_in_use() -> None:
    scores, vectors = scores_of("transe"), entities()
    by = torch.zeros(ENTITIES, dtype=torch.int64)
    learning = scores.compare(scores.questions(vectors, by, for_tails=True), vectors)
    with torch.inference_mode():
        used = scores.compare(scores.questions(vectors, by, for_tails=True), vectors)
    torch.testing.assert_close(learning.detach(), used, atol=1e-4, rtol=1e-4)
    # In use two equal entities score the same to the last bit, among any others.
    many = torch.randn(3000, 128, generator=torch.Generator().manual_seed(4))
    many[2999] = many[5]
    wide = LinkScores("transe", 1, 128, margin=9.0)
    with torch.inference_mode():
        found = wide.compare(many[:300], many)
    assert torch.equal(found[:, 5], found[:, 2999])


def test_distmult_cannot_tell_head_and_tail_apart_and_the_others_can() -> None:
    relation = torch.tensor([1])
    for kind in KINDS:
        scores, vectors = scores_of(kind), entities()
        there, back = (
            float(scores.compare(scores.questions(vectors[[a]], relation, for_tails=True), vectors[[b]]).detach())
            for a, b in ((0, 1), (1, 0))
        )
        assert (there == pytest.approx(back, abs=1e-5)) == (kind == "distmult")


def test_a_half_turn_is_a_symmetric_relation_and_two_turns_add_up() -> None:
    """What RotatE is for (section 3.1): symmetry where every phase is 0 or pi, composition by adding phases."""
    scores = scores_of("rotate")
    vectors = entities()
    with torch.no_grad():
        scores.relations.weight[0] = torch.tensor([0.0, torch.pi, torch.pi, 0.0])
        scores.relations.weight[1] = torch.tensor([0.3, -1.0, 2.0, 0.1])
        scores.relations.weight[2] = scores.relations.weight[0] + scores.relations.weight[1]

    def question(known: Tensor, relation: int, *, for_tails: bool = True) -> Tensor:
        return scores.questions(known, torch.full((len(known),), relation), for_tails=for_tails)

    torch.testing.assert_close(question(vectors, 0), question(vectors, 0, for_tails=False), atol=1e-5, rtol=1e-5)
    twice = question(question(vectors, 0), 1)
    torch.testing.assert_close(twice, question(vectors, 2), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(question(question(vectors, 1), 1, for_tails=False), vectors, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["transe", "rotate"])
def test_entities_begin_about_the_margin_apart(kind: Any) -> None:
    scores = LinkScores(kind, 1, 128, margin=9.0)
    vectors = torch.randn(200, 128, generator=torch.Generator().manual_seed(1)) * scores.spread
    with torch.no_grad():
        scores.relations.weight.zero_()
        found = scores.compare(scores.questions(vectors, torch.zeros(200, dtype=torch.int64), for_tails=True), vectors)
    off = found[~torch.eye(200, dtype=torch.bool)]
    assert abs(float(off.mean())) < 0.5
