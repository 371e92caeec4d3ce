"""Several objectives: each sees the same rows in its own way, none changes what another draws, losses add up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import batch_of, documents_of, tiny_config
from encodery.batch import Batch, States
from encodery.encoders.kinds import make_encoder
from encodery.encoders.watch import Watch
from encodery.frontends.text import TextFrontend
from encodery.heads.autoencode import AutoencodeReadout
from encodery.heads.options import WordReadoutConfig
from encodery.heads.readouts import WordReadout
from encodery.heads.replaced import ReplacedReadout
from encodery.heads.several import SeveralReadout
from encodery.objectives.masked import Masked, MaskedConfig
from encodery.objectives.reconstruct import Autoencode, AutoencodeConfig
from encodery.objectives.replaced import Replaced, ReplacedConfig
from encodery.objectives.several import Several

GIVEN = {"vocab_size": 50, "mask_id": 4, "special_ids": frozenset(range(5))}


def some_batch() -> Batch:
    documents = documents_of([11, 9, 20, 7])
    return batch_of([documents[:2], documents[2:], []], 32)


def objectives() -> list:
    return [
        Masked(MaskedConfig(share=0.3), **GIVEN),
        Replaced(ReplacedConfig(share=0.3), **GIVEN),
        Autoencode(AutoencodeConfig(), **GIVEN),
    ]


class Parts:
    def __init__(self, judge: Several) -> None:
        config = tiny_config()
        encoder, self.frontend = config.encoder, TextFrontend(config.frontend, 32)
        self.encoder = make_encoder(encoder, 32)
        made = judge.readout().parts
        self.readout = SeveralReadout(
            [
                WordReadout(WordReadoutConfig(), 32, self.frontend),
                ReplacedReadout(made[1], encoder, self.frontend),  # type: ignore[arg-type]
                AutoencodeReadout(made[2], encoder, self.frontend),  # type: ignore[arg-type]
            ]
        )
        for part in (self.frontend, self.encoder, self.readout):
            part.initialise(torch.Generator().manual_seed(0))
            with torch.no_grad():
                for parameter in part.parameters():
                    parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)

    def encode(
        self, batch: Batch, at: Tensor | None = None, *, watch: Watch | None = None, words: Tensor | None = None
    ) -> States:
        del words
        return self.encoder(self.frontend(batch), at, watch)


def test_losses_add_up_by_weight() -> None:
    parts, weights = objectives(), (1.0, 0.25, 3.0)
    judge = Several(parts, weights, ["masked", "replaced", "autoencode"])
    model, batch = Parts(judge), judge.prepare(some_batch(), np.random.default_rng(0), 0.0)
    output = model.readout.run(model.encode, batch)
    loss = judge.loss(output, batch)
    means = [
        float(one.total.detach() / one.count)
        for one in (part.loss(answer, view) for part, answer, view in zip(parts, output.answers, batch.views))
    ]
    expected = sum(weight * mean for weight, mean in zip(weights, means))
    assert float(loss.total.detach() / loss.count) == pytest.approx(expected, rel=1e-5)
    assert float(loss.parts["masked.loss"]) == pytest.approx(means[0], rel=1e-5)
    assert float(loss.parts["autoencode.loss"]) == pytest.approx(means[2], rel=1e-5)
    assert "replaced.generator_accuracy" in loss.parts
    loss.total.backward()
    for part in (model.frontend, model.encoder, model.readout):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_each_part_draws_for_itself_and_the_batch_stays_as_it_was() -> None:
    judge = Several(objectives(), (1, 1, 1), ["a", "b", "c"])
    batch = some_batch()
    before = batch.values["ids"].clone()
    one, two = (judge.prepare(batch, np.random.default_rng(5), 0.0) for _ in range(2))
    assert torch.equal(batch.values["ids"], before) and torch.equal(one.values["ids"], before)
    for mine, other in zip(one.views, two.views):
        assert torch.equal(mine.values["ids"], other.values["ids"])
    # With another objective in the first place the others still draw what they drew.
    swapped = Several([objectives()[2], *objectives()[1:]], (1, 1, 1), ["a", "b", "c"])
    three = swapped.prepare(batch, np.random.default_rng(5), 0.0)
    assert torch.equal(one.views[1].values["ids"], three.views[1].values["ids"])
    assert not torch.equal(one.views[0].values["ids"], three.views[0].values["ids"])


def test_views_go_where_their_batch_goes() -> None:
    judge = Several(objectives(), (1, 1, 1), ["a", "b", "c"])
    batch = judge.prepare(some_batch(), np.random.default_rng(5), 0.0)
    moved = batch.to(torch.device("meta"))
    assert {view.values["ids"].device.type for view in moved.views} == {"meta"}
    model = Parts(judge)
    with pytest.raises(AssertionError, match="as many views"):
        model.readout.run(model.encode, replace(batch, views=batch.views[:2]))
