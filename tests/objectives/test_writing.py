"""Writing and language models: what is learned at each position, and what cannot be asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import batch_of, documents_of, tiny_config, tiny_model
from encodery.batch import Output
from encodery.data.source_config import DataConfig
from encodery.heads.decoding.options import DecoderConfig
from encodery.objectives.causal import Causal, CausalConfig, forward_problem
from encodery.objectives.writing import Writing, WritingConfig, writing_losses
from heads.writers import pairs_of, written_batch


def test_the_loss_is_that_of_every_token_to_write() -> None:
    """As if each next token of each target alone were asked for."""
    model = tiny_model(readout={"kind": "decoder"})
    sources, targets = pairs_of([5, 9, 3], [4, 2, 6])
    objective = Writing(WritingConfig(smoothing=0.1), None, None, {})  # type: ignore[arg-type]
    batch = written_batch([[0, 1], [2]], sources, targets)
    loss = objective.loss(model(batch), batch)
    total = smoothed = 0.0
    for source, target in zip(sources, targets):
        alone = written_batch([[0]], [source], [target], room=(16, target.size))
        logits, wanted = model(alone).logits, torch.from_numpy(np.append(target[1:], 2))
        total += float(F.cross_entropy(logits, wanted, reduction="sum").detach())
        smoothed += float(F.cross_entropy(logits, wanted, reduction="sum", label_smoothing=0.1).detach())
    assert int(loss.count) == sum(ids.size for ids in targets)
    assert float(loss.total.detach()) == pytest.approx(smoothed, rel=1e-4)
    assert float(loss.parts["surprise"]) * int(loss.count) == pytest.approx(total, rel=1e-4)


def test_the_loss_of_a_mixture() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]], requires_grad=True)
    copied = torch.tensor([[0.7, 0.2], [0.5, 0.0]], requires_grad=True)
    loss, surprise, _ = writing_losses(Output(logits=logits, copied=copied), torch.tensor([1, -100]))
    expected = -torch.log(0.7 * torch.softmax(logits[0], 0)[1] + 0.3 * 0.5)
    assert float(loss[0].detach()) == pytest.approx(float(expected.detach())) and float(loss[1].detach()) == 0.0
    assert not surprise.requires_grad
    (found,) = torch.autograd.grad(loss.sum(), logits)
    (wanted,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(found, wanted)


def test_a_language_model_learns_every_next_token() -> None:
    documents = documents_of([6, 9, 4])
    objective, model = Causal(CausalConfig(), 9), tiny_model(pattern="causal")
    batch = objective.prepare(batch_of([documents[:2], documents[2:]], 16), np.random.default_rng(0), 0.0)
    loss = objective.loss(model(batch), batch)
    # The second fills all 9 positions: what stands at its end was put there by the cut, and is not learned.
    assert int(loss.count) == 5 + 7 + 3
    total = 0.0
    for ids, last in zip(documents, (6, 8, 4)):
        alone = batch_of([[ids]], ids.size)
        alone.truth["at"] = torch.arange(ids.size)
        logits = model(alone).logits[: last - 1]
        total += float(F.cross_entropy(logits, torch.from_numpy(ids[1:last]), reduction="sum").detach())
    assert float(loss.total.detach()) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize(
    ("encoder", "problem"),
    [
        ({"pattern": "causal"}, False),
        ({"pattern": "full"}, True),
        ({"kind": "recurrent", "directions": "forward"}, False),
        ({"kind": "recurrent"}, True),
        ({"kind": "hierarchical", "style": "hat", "segment": 8}, True),
    ],
)
def test_which_encoders_can_be_language_models(encoder: dict[str, Any], problem: bool) -> None:
    assert bool(forward_problem(tiny_config(**encoder).encoder)) is problem


@pytest.mark.parametrize(
    "wrong",
    [
        {"smoothing": 0.1, "decoder": {"pointer": True}},
        {"most_tokens": 100, "decoder": {"stack": {"kind": "transformer", "max_length": 64}}},
        {"generation": {"beam": 0}},
    ],
)
def test_options_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        WritingConfig.model_validate(wrong)


def test_a_recipe_without_target_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.target"):
        WritingConfig().fields(DataConfig.model_validate({"train": "x.jsonl"}))


def test_smoothing_by_default() -> None:
    assert WritingConfig().smoothed == 0.1
    assert WritingConfig(decoder=DecoderConfig(pointer=True)).smoothed == 0.0
