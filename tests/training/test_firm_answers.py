"""What makes fine-tuning firm: answers that agree under dropout, words moved against the model, blocks begun anew."""

from __future__ import annotations

import importlib
import pkgutil
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import encodery.objectives
from conftest import tiny_config
from encodery.batch import Batch, Layout, Output, layout_of
from encodery.data.tagsets import Tagset
from encodery.model import Model
from encodery.objectives import cross_entropy
from encodery.objectives.cross_entropy import IGNORED
from encodery.objectives.divergence import divergence
from encodery.objectives.supervised import Supervised, SupervisedConfig
from encodery.objectives.tagging import Tagging, TaggingConfig
from encodery.objectives.writing import Writing
from encodery.training.adversary import Adversary, worst_shift
from encodery.training.gradients import add_gradients
from encodery.training.recipe import COMPARABLE, TOGETHER

SIZES = [[5, 3, 7], [9, 4]]


def batch_of(labels: torch.Tensor) -> Batch:
    layout = layout_of(SIZES, 16)
    ids = torch.arange(32) % 23 + 5
    values = {
        "ids": ids,
        "segment": torch.zeros(32, dtype=torch.int64),
        "starts_word": torch.ones(32, dtype=torch.bool),
    }
    return Batch(values, layout, {"label": labels})


def made(kind: Any = "classify", drop_rate: float = 0.1) -> tuple[Model, Supervised]:
    judge = Supervised(SupervisedConfig(kind=kind, drop_rate=drop_rate), labels=["a", "b", "c"])
    config = tiny_config(vocab_size=40, readout=judge.readout().model_dump(), drop_rate=drop_rate)
    return Model(config).initialise(3), judge


def gradients(model: Model) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_two_answers_that_agree_are_no_distance_apart_and_others_are() -> None:
    judge = Supervised(SupervisedConfig(), labels=["a", "b", "c"])
    batch = batch_of(torch.zeros(5, dtype=torch.int64))
    a, b = torch.randn(5, 3), torch.randn(5, 3)
    assert judge.disagreement(Output(a), Output(a), batch) == 0
    both = [F.kl_div(x.log_softmax(1), y.softmax(1), reduction="sum") for x, y in ((a, b), (b, a))]
    assert torch.allclose(judge.disagreement(Output(a), Output(b), batch), (both[0] + both[1]) / 2)


@pytest.mark.parametrize("kind", ["multilabel", "regress"])
def test_the_distance_of_labels_and_numbers(kind: Any) -> None:
    judge = Supervised(SupervisedConfig(kind=kind), labels=["a", "b", "c"])
    batch = batch_of(torch.zeros(5))
    a, b = torch.randn(5, 3 if kind == "multilabel" else 1), torch.randn(5, 3 if kind == "multilabel" else 1)
    found = judge.disagreement(Output(a), Output(b), batch)
    if kind == "regress":
        assert torch.allclose(found, F.mse_loss(a, b, reduction="sum") / 2)
        return
    p, q = torch.sigmoid(a), torch.sigmoid(b)
    apart = (p - q) * ((p / q).log() - ((1 - p) / (1 - q)).log())
    assert torch.allclose(found, apart.sum() / 2 / 3, atol=1e-5)


def test_divergence_and_its_gradient_by_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "NUMBERS_AT_ONCE", 12)  # two rows at a time
    a, b = (torch.randn(5, 6, requires_grad=True) for _ in range(2))
    weight = torch.rand(5)
    found = divergence(a, b)
    p, q = a.softmax(1), b.softmax(1)
    meant = ((p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)) / 2
    assert torch.allclose(found, meant, atol=1e-6)
    got = torch.autograd.grad((found * weight).sum(), (a, b))
    for mine, plain in zip(got, torch.autograd.grad((meant * weight).sum(), (a, b))):
        assert torch.allclose(mine, plain, atol=1e-6)
    assert divergence(torch.randn(0, 6), torch.randn(0, 6)).shape == (0,)


def test_what_is_written_is_compared_where_something_is_written() -> None:
    target = torch.tensor([IGNORED, 3, 1, IGNORED])
    batch = replace(batch_of(torch.zeros(5)), target=replace(batch_of(torch.zeros(5)), truth={"target": target}))
    one, other = torch.randn(4, 6), torch.randn(4, 6)
    writing = Writing.__new__(Writing)  # what it compares needs no data
    found = writing.disagreement(Output(one), Output(other), batch)
    assert torch.allclose(found, divergence(one[1:3], other[1:3]).sum())


def test_tags_and_the_class_beside_them_are_compared() -> None:
    tagset = Tagset("none", "none", "words", ("a", "b", "c"))
    tagging = Tagging(TaggingConfig(crf=False, intent=True, intent_weight=0.5), tagset, ["x", "y"])
    one, other = (Output(torch.randn(7, 3), classes=torch.randn(5, 2)) for _ in range(2))
    assert one.logits is not None and other.logits is not None and one.classes is not None
    assert other.classes is not None
    found = tagging.disagreement(one, other, batch_of(torch.zeros(5)))
    classes = divergence(one.classes, other.classes).mean()
    assert torch.allclose(found, divergence(one.logits, other.logits).sum() + 0.5 * 7 * classes)


def test_recipes_know_which_objectives_can_compare_answers_and_which_look_at_a_step_whole() -> None:
    """A recipe is checked before an objective is made: the two lists have to say the same as the classes."""
    found: dict[str, set[str]] = {"disagreement": set(), "joint_loss": set()}
    for module in pkgutil.iter_modules(encodery.objectives.__path__):
        for value in vars(importlib.import_module(f"encodery.objectives.{module.name}")).values():
            for method, names in found.items():
                if isinstance(value, type) and method in vars(value):
                    names.add(value.__name__)
    assert found == {"disagreement": {"Supervised", "Tagging", "Writing"}, "joint_loss": {"Contrastive"}}
    assert COMPARABLE == ("classify", "multilabel", "regress", "tag", "write") and TOGETHER == ("contrast", "embed")


def test_without_dropout_agreement_changes_nothing_and_with_it_something() -> None:
    labels = torch.tensor([0, 1, 2, 1, 0])
    for drop_rate, same in ((0.0, True), (0.3, False)):
        found = []
        for consistency in (0.0, 4.0):
            model, judge = made(drop_rate=drop_rate)
            model.train()
            torch.manual_seed(1)
            add_gradients(model, judge, batch_of(labels), autocast=nullcontext, consistency=consistency)
            found.append(gradients(model))
        close = all(torch.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[0])
        assert close == same


def test_the_worst_move_has_the_asked_size_for_each_document_and_spares_padding() -> None:
    layout: Layout = layout_of(SIZES, 16)
    vectors, gradient = torch.randn(32, 6), torch.randn(32, 6)
    shift = worst_shift(vectors, gradient, layout, 0.25)
    assert not shift[layout.document < 0].any()
    for number in range(layout.documents):
        mine = layout.document == number
        assert torch.allclose(shift[mine].norm(), 0.25 * vectors[mine].norm(), rtol=1e-4)
        assert torch.allclose(
            F.cosine_similarity(shift[mine].flatten(), gradient[mine].flatten(), dim=0), torch.ones(())
        )


def test_a_document_without_a_gradient_is_left_where_it_is() -> None:
    layout = layout_of(SIZES, 16)
    assert not worst_shift(torch.randn(32, 6), torch.zeros(32, 6), layout, 0.25).any()


def test_moved_words_are_worse_for_the_model_than_words_moved_anyhow() -> None:
    labels = torch.tensor([0, 1, 2, 1, 0])
    model, judge = made(drop_rate=0.0)
    batch = batch_of(labels)
    adversary = Adversary(model, 0.2)
    with adversary.listening():
        before = judge.loss(model(batch), batch).total
        before.backward()
    with adversary.moving():
        after = judge.loss(model(batch), batch).total
    assert after > before
    clean = judge.loss(model(batch), batch).total
    assert torch.allclose(clean, before)  # nothing listens or moves any more


def test_adversarial_gradients_are_the_mean_of_those_here_and_there() -> None:
    labels = torch.tensor([0, 1, 2, 1, 0])
    model, judge = made(drop_rate=0.0)
    add_gradients(model, judge, batch_of(labels), autocast=nullcontext)
    plain = gradients(model)
    model.zero_grad()
    add_gradients(model, judge, batch_of(labels), autocast=nullcontext, adversary=Adversary(model, 1e-4))
    near = gradients(model)
    assert plain.keys() == near.keys()
    assert all(torch.allclose(plain[name], near[name], atol=1e-3) for name in plain)
    model.zero_grad()
    add_gradients(model, judge, batch_of(labels), autocast=nullcontext, adversary=Adversary(model, 0.5))
    far = gradients(model)
    assert any(not torch.allclose(plain[name], far[name], atol=1e-3) for name in plain)
    assert np.isfinite([float(value.norm()) for value in far.values()]).all()
