"""Whether a text follows: what is asked where, the loss by hand, and words beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conftest import batch_of, documents_of, tiny_config
from encodery.batch import Batch
from encodery.data.pair_loader import FOLLOWS
from encodery.encoders.kinds import make_encoder
from encodery.frontends.text import TextFrontend
from encodery.heads.order import OrderOutput, OrderReadout
from encodery.objectives.order import OrderConfig, Ordered

MARKS = [1, 2, 0, 1]


def objective(**config: Any) -> Ordered:
    return Ordered(OrderConfig(**{"share": 0.3, **config}), vocab_size=50, mask_id=4, special_ids=frozenset(range(5)))


def marked(marks: list[int], lengths: list[int] | None = None) -> Batch:
    documents = documents_of(lengths or [11, 9, 20, 7])
    batch = batch_of([documents[:2], documents[2:], []], 32)
    follows = torch.zeros(96, dtype=torch.int64)
    for mark, start, size in zip(marks, batch.layout.starts.tolist(), batch.layout.lengths.tolist()):
        follows[start : start + size] = mark
    return Batch({**batch.values, FOLLOWS: follows}, batch.layout)


def answer(batch: Batch) -> tuple[OrderOutput, torch.nn.Module]:
    config = tiny_config()
    frontend = TextFrontend(config.frontend, 32)
    encoder = make_encoder(config.encoder, 32)
    readout = OrderReadout(objective().readout(), 32, frontend)
    generator = torch.Generator().manual_seed(0)
    for part in (frontend, encoder, readout):
        part.initialise(generator)
        with torch.no_grad():
            for parameter in part.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    whole = torch.nn.ModuleList([frontend, encoder, readout])
    return readout(encoder(frontend(batch), batch.truth["at"]), batch), whole


def test_the_first_tokens_of_all_pairs_are_read_behind_the_hidden_words() -> None:
    done = objective().prepare(marked(MARKS), np.random.default_rng(0), 0.0)
    slots = done.truth["target"].numel()
    assert done.truth["at"].numel() == slots + 32
    assert torch.equal(done.truth["at"][slots : slots + 4], done.layout.starts)
    assert done.truth[FOLLOWS][:5].tolist() == [1.0, 0.0, -1.0, 1.0, -1.0]
    for seed, lengths in enumerate(([3, 4, 5, 6], [20, 10, 20, 10])):
        other = objective().prepare(marked(MARKS, lengths), np.random.default_rng(seed), 0.0)
        assert other.truth["at"].shape == done.truth["at"].shape


def test_the_loss_by_hand() -> None:
    judge = objective(weight=3.0)
    done = judge.prepare(marked(MARKS), np.random.default_rng(0), 0.0)
    output, _ = answer(done)
    assert output.follows is not None and output.logits is not None
    loss = judge.loss(output, done)
    a, b, _, d = output.follows.detach().double().tolist()[:4]
    order = float(np.mean([np.log1p(np.exp(-a)), np.log1p(np.exp(b)), np.log1p(np.exp(-d))]))
    rows = zip(output.logits.detach().double().tolist(), done.truth["target"].tolist())
    words = float(np.mean([np.log(np.exp(row).sum()) - row[t] for row, t in rows if t >= 0]))
    assert float(loss.total.detach() / loss.count) == pytest.approx(words + 3 * order, rel=1e-5)
    assert float(loss.parts["order_loss"]) == pytest.approx(order, rel=1e-5)
    assert float(loss.parts["word_loss"]) == pytest.approx(words, rel=1e-5)
    assert float(loss.parts["order_accuracy"]) == pytest.approx(((a > 0) + (b <= 0) + (d > 0)) / 3)


def test_texts_without_a_second_one_count_for_their_words_alone() -> None:
    judge = objective()
    for batch in (marked([0, 0, 0, 0]), Batch({**marked(MARKS).values}, marked(MARKS).layout)):
        batch.values.pop(FOLLOWS) if batch.values[FOLLOWS].any() else None
        done = judge.prepare(batch, np.random.default_rng(0), 0.0)
        output, _ = answer(done)
        loss = judge.loss(output, done)
        assert "order_loss" not in loss.parts
        assert float(loss.total.detach() / loss.count) == pytest.approx(float(loss.parts["word_loss"]))


def test_every_parameter_gets_a_gradient() -> None:
    judge = objective()
    done = judge.prepare(marked(MARKS), np.random.default_rng(0), 0.0)
    output, whole = answer(done)
    judge.loss(output, done).total.backward()
    for name, parameter in whole.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_wrong_options_are_refused() -> None:
    for wrong in ({"weight": 0}, {"pairs": "both"}, {"short_share": 2}):
        with pytest.raises(ValueError):
            OrderConfig.model_validate(wrong)
