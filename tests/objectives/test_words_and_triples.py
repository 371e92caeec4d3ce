"""Hidden words and triples together: what is asked, what counts as wrong, and the loss written out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from conftest import batch_of, documents_of, tiny_model
from encodery.batch import Batch
from encodery.data.links import Graph
from encodery.objectives.cross_entropy import IGNORED
from encodery.objectives.knowledge import KnowledgeMasked, KnowledgeMaskedConfig, link_loss, link_readout
from encodery.objectives.masked import Masked, MaskedConfig

TRAIN = [(0, 0, 1), (0, 0, 2), (3, 1, 0), (4, 0, 1), (0, 0, 9)]
NONE = np.zeros((0, 3), dtype=np.int64)
GRAPH = Graph(tuple(map(str, range(10))), ("a", "b"), np.array(TRAIN), NONE, NONE)
BASICS: dict[str, Any] = {"vocab_size": 50, "mask_id": 4, "special_ids": frozenset(range(5))}


def objective(**changes: Any) -> KnowledgeMasked:
    config = KnowledgeMaskedConfig.model_validate({"share": 0.5, "link_width": 6, **changes})
    return KnowledgeMasked(config, GRAPH, **BASICS)


def joint_batch() -> Batch:
    """Two texts, and behind them the entities 0, 1, 3, 2 of two triples."""
    texts, entities = documents_of([9, 6]), documents_of([4, 3, 5, 3], seed=4)
    batch = batch_of([texts, entities], 16)
    truth = {
        "entity": torch.tensor([2, 3, 4, 5]),
        "entity_id": torch.tensor([0, 1, 3, 2]),
        "triples": torch.tensor([[0, 0, 1], [2, 1, 0]]),
    }
    return replace(batch, truth=truth)


def test_entities_are_read_and_never_hidden() -> None:
    batch = joint_batch()
    judge = objective(share=0.9, corrupt="mask")
    found = judge.prepare(batch, np.random.default_rng(0), 0.0)
    assert torch.equal(found.values["ids"][16:], batch.values["ids"][16:])
    assert int((found.values["ids"][:16] == 4).sum()) == round(0.9 * 15)
    # Room for hidden words is that of the texts alone; entities follow, rounded up so that shapes are few.
    hidden = len(found.truth["target"])
    assert hidden == 16 and len(found.truth["at"]) == 16 + 32
    assert found.truth["at"][16:20].tolist() == batch.layout.starts[2:].tolist()
    assert found.truth["answer"].tolist() == [1, 0, 0, 2]


def test_wrong_are_all_but_the_known_answers_and_the_one_that_is_asked_about() -> None:
    found = objective().prepare(joint_batch(), np.random.default_rng(0), 0.0)
    # Entities 0, 1, 3, 2. (0, a, ?): 1 and 2 are right. (3, b, ?): 0. (?, a, 1): 0 (and 4, not here). (?, b, 0): 3.
    assert found.truth["wrong"].tolist() == [
        [False, False, True, False],
        [False, True, False, True],
        [False, False, True, True],
        [False, True, False, True],
    ]


def test_the_loss_of_a_question_is_the_formula_of_rotate() -> None:
    scores = torch.tensor([[1.5, -0.2, 0.7, 3.0, -1.0]])
    wrong = torch.tensor([[False, True, True, False, True]])
    for temperature in (0.0, 1.0, 2.5):
        (found,), (right,) = link_loss(scores, torch.tensor([0]), wrong, temperature=temperature)
        others = [-0.2, 0.7, -1.0]
        weights = [math.exp(temperature * score) for score in others]
        wanted = -math.log(1 / (1 + math.exp(-1.5)))
        for score, weight in zip(others, weights):
            wanted -= weight / sum(weights) * math.log(1 / (1 + math.exp(score)))
        assert float(found) == pytest.approx(wanted, abs=1e-6)
        assert bool(right)
    (_,), (right,) = link_loss(scores, torch.tensor([4]), wrong, temperature=1.0)
    assert not bool(right)


def test_weights_of_wrong_answers_have_no_gradient() -> None:
    """They say how much each counts; the model must not learn to make them count less."""
    scores = torch.tensor([[0.3, -0.2, 0.7]], dtype=torch.float64, requires_grad=True)
    wrong = torch.tensor([[False, True, True]])
    link_loss(scores, torch.tensor([0]), wrong, temperature=1.0)[0].sum().backward()
    share = torch.softmax(scores.detach()[0, 1:], 0)
    wanted = share * torch.sigmoid(scores.detach()[0, 1:])
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad[0, 1:].double(), wanted, atol=1e-6, rtol=1e-6)


def test_a_question_without_wrong_answers_learns_from_its_right_one() -> None:
    scores = torch.tensor([[0.3, -0.2]], requires_grad=True)
    found, _ = link_loss(scores, torch.tensor([1]), torch.zeros(1, 2, dtype=torch.bool), temperature=1.0)
    found.sum().backward()
    assert float(found.detach()) == pytest.approx(math.log(1 + math.exp(0.2)), abs=1e-6)
    assert scores.grad is not None and float(scores.grad[0, 0]) == 0 and torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("score", ["transe", "distmult", "rotate"])
def test_both_losses_reach_every_parameter(score: str) -> None:
    judge = objective(score=score, weight=2.0)
    model = tiny_model(readout=judge.readout().model_dump()).train()
    batch = judge.prepare(joint_batch(), np.random.default_rng(0), 0.0)
    output = model(batch)
    assert output.links is not None and output.links.shape == (4, 4)
    assert output.logits is not None and output.logits.shape == (len(batch.truth["target"]), 50)
    loss = judge.loss(output, batch)
    words = Masked(MaskedConfig(share=0.5), **BASICS).loss(output, batch)
    links = link_loss(output.links, batch.truth["answer"], batch.truth["wrong"], temperature=1.0)[0].mean()
    count = int((batch.truth["target"] != IGNORED).sum())
    wanted = float(words.total.detach()) + 2.0 * count * float(links.detach())
    assert float(loss.total.detach()) == pytest.approx(wanted, rel=1e-5)
    assert int(loss.count) == count and float(loss.parts["link_loss"]) == pytest.approx(float(links.detach()), rel=1e-5)
    loss.total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_links_do_not_depend_on_the_texts_beside_them() -> None:
    judge = objective()
    model = tiny_model(readout=judge.readout().model_dump())
    batch = judge.prepare(joint_batch(), np.random.default_rng(0), 0.0)
    other = judge.prepare(joint_batch(), np.random.default_rng(5), 0.0)
    assert not torch.equal(batch.values["ids"], other.values["ids"])
    with torch.inference_mode():
        torch.testing.assert_close(model(batch).links, model(other).links, atol=1e-5, rtol=1e-5)


def test_a_batch_of_texts_alone_is_masked_words() -> None:
    judge = objective()
    model = tiny_model(readout=judge.readout().model_dump())
    batch = judge.prepare(batch_of([documents_of([9, 6])], 16), np.random.default_rng(0), 0.0)
    output = model(batch)
    assert output.links is None and not judge.loss(output, batch).parts
    assert len(batch.truth["at"]) == len(batch.truth["target"])


def test_half_precision_comes_close() -> None:
    judge = objective(weight=3.0)
    model = tiny_model(readout=judge.readout().model_dump()).train()
    batch = judge.prepare(joint_batch(), np.random.default_rng(0), 0.0)
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            losses.append(judge.loss(model(batch), batch).total)
    losses[1].backward()
    assert float(losses[1].detach()) == pytest.approx(float(losses[0].detach()), rel=0.05)


def test_the_readout_is_that_of_the_config() -> None:
    readout = link_readout(KnowledgeMaskedConfig(score="rotate", link_width=10, margin=3.0), 7)
    assert (readout.kind, readout.relations, readout.score, readout.link_width) == ("links", 7, "rotate", 10)
    with pytest.raises(ValidationError, match="rotate needs an even link_width; 8 is one"):
        KnowledgeMaskedConfig(score="rotate", link_width=7)
    with pytest.raises(ValidationError, match="entity_share"):
        KnowledgeMaskedConfig(entity_share=1.0)
