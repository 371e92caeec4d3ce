"""Runs that begin small: how large they are when, what joins, and what may be kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conftest import batch_of, make_fit, tiny_model
from encodery.data.tokenizers import Tokenizer
from encodery.encoders.options import TransformerConfig
from encodery.encoders.recurrent_options import RecurrentConfig
from encodery.encoders.transformer import Transformer
from encodery.errors import ConfigError
from encodery.training.growth import Growth, GrowthConfig, settled
from encodery.training.loop import Fit
from encodery.training.recipe import Recipe

SHARES = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0]


def test_blocks_double_until_all_work() -> None:
    growth = Growth(GrowthConfig(blocks=1, until=0.6), depth=6, batches=1)
    assert [growth.blocks_at(share) for share in SHARES] == [1, 1, 2, 2, 4, 4, 6, 6]
    assert [Growth(GrowthConfig(), depth=6, batches=1).blocks_at(share) for share in (0.0, 1.0)] == [6, 6]


def test_batches_become_evenly_more() -> None:
    growth = Growth(GrowthConfig(batches=1, until=0.5), depth=6, batches=5)
    assert [growth.batches_at(share) for share in SHARES] == [1, 2, 3, 4, 5, 5, 5, 5]
    assert Growth(GrowthConfig(), depth=6, batches=5).batches_at(0.0) == 5


def test_a_stack_with_fewer_blocks_is_a_smaller_encoder() -> None:
    """What works is exactly the encoder of that depth; what joins is a copy, and learns on its own from there."""
    large, small = tiny_model(depth=3, seed=4), tiny_model(depth=1, seed=9)
    small.load_state_dict({name: value for name, value in large.state_dict().items() if name in small.state_dict()})
    batch = batch_of([[np.arange(5, 12), np.arange(20, 29)], [np.arange(30, 45)]], 16)
    encoder = large.encoder
    assert isinstance(encoder, Transformer)
    encoder.working = 1
    with torch.inference_mode():
        one, other = (model.encoder(model.frontend(batch)).vectors for model in (large, small))
        torch.testing.assert_close(one, other, atol=0, rtol=0)
    joined = encoder.grow(3)
    assert {name.split(".")[1] for name in joined} == {"1", "2"} and encoder.working == 3
    for name, value in encoder.blocks[2].state_dict().items():
        assert torch.equal(value, encoder.blocks[0].state_dict()[name])
        assert value.data_ptr() != encoder.blocks[0].state_dict()[name].data_ptr()


def grown(tokenizer: Tokenizer, **training: Any) -> Fit:
    settings: dict[str, Any] = {"budget": "24 steps", "validations": 6, **training}
    return make_fit(tokenizer, encoder={"depth": 4}, training=settings, validate=True)


def test_a_run_grows_and_learns(tokenizer: Tokenizer) -> None:
    fit = grown(tokenizer, accumulate=3, growth={"blocks": 1, "batches": 1, "until": 0.5})
    seen: list[tuple[int, int]] = []
    inner = fit._step

    def look(batches: list[Any]) -> dict[str, Any]:
        encoder = fit.model.encoder
        assert isinstance(encoder, Transformer)
        row = inner(batches)
        touched = [number for number, block in enumerate(encoder.blocks) if _momentum(fit, block)]
        assert touched == list(range(encoder.working)), "blocks that do not work yet are not stepped"
        seen.append((encoder.working, len(batches)))
        return row

    fit._step = look  # type: ignore[method-assign]
    assert fit.advance()
    assert [number for number, _ in seen] == [1] * 6 + [2] * 6 + [4] * 12
    assert [number for _, number in seen] == [1] * 4 + [2] * 4 + [3] * 16
    assert fit.state.step == 24


def _momentum(fit: Fit, block: torch.nn.Module) -> bool:
    known = [part.state.get(parameter) for part in fit.optimizers.parts for parameter in block.parameters()]
    return any(known)


def test_what_is_still_small_is_not_kept(tokenizer: Tokenizer) -> None:
    """Though every later validation be worse: weights of before would lack the blocks that joined."""
    fit = grown(tokenizer, growth={"blocks": 1, "until": 0.5}, patience=1, keep="best")
    scores = iter([9.0, 8.0, 3.0, 2.0, 1.0, 0.0])
    assert fit.validate is not None
    fit.validate = lambda model: {"score": next(scores), "validation_loss": 1.0, "metric": 1.0}
    rows: list[dict[str, Any]] = []
    fit.on_score = rows.append
    assert fit.advance()
    assert [row["kept_step"] for row in rows] == [0, 0, 0, 16, 16] and fit.state.kept_score == 2.0
    assert fit.best is not None and fit.state.blocks == 4


def test_a_run_too_short_to_grow_has_all_its_blocks_at_the_end(tokenizer: Tokenizer) -> None:
    fit = grown(tokenizer, budget="1 steps", growth={"blocks": 1, "until": 0.5})
    assert fit.advance()
    assert isinstance(fit.model.encoder, Transformer) and fit.model.encoder.working == 4
    assert fit.best is not None


def test_auto_grows_what_is_fresh_and_can_grow() -> None:
    auto, deep = GrowthConfig(blocks="auto", until=0.4), TransformerConfig(depth=3)
    assert settled(auto, deep, fresh=True) == GrowthConfig(blocks=1, until=0.4)
    assert settled(auto, deep, fresh=False).blocks is None
    for other in (TransformerConfig(depth=1), TransformerConfig(depth=3, distinct_blocks=1), RecurrentConfig()):
        assert settled(auto, other, fresh=True).blocks is None
    assert settled(None, deep, fresh=True) == GrowthConfig()
    assert settled(GrowthConfig(blocks=2), deep, fresh=False).blocks == 2


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"training": {"growth": {}}}, "blocks, batches or both"),
    "no batches": ({"training": {"growth": {"batches": 1}}}, "fewer than accumulate, which is 1"),
    "too deep": ({"training": {"growth": {"blocks": 6}}}, "fewer than encoder.depth, which is 6"),
    "recurrent": ({"training": {"growth": {"blocks": 1}}, "encoder": {"kind": "recurrent"}}, "kind: transformer"),
    "shared": (
        {"training": {"growth": {"blocks": 1}}, "encoder": {"distinct_blocks": 1}},
        "does not go with encoder.distinct_blocks",
    ),
    "started": ({"training": {"growth": {"blocks": 1}}, "start_from": "x"}, "begins from fresh weights"),
    "second stage": ({"training": {"growth": {"blocks": 1}}, "pretrain": {}}, "begins from fresh weights"),
    "distilled": (
        {"training": {"growth": {"blocks": 1}}, "objective": {"kind": "distil", "teacher": "x"}},
        "does not go with the objective distil",
    ),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_what_cannot_grow_is_said(case: str) -> None:
    change, said = WRONG[case]
    given = {"data": {"train": "x.txt"}, "objective": {"kind": "masked"}, "encoder": {"depth": 6}} | change
    if "encoder" in change:
        given["encoder"] = {"depth": 6} | change["encoder"]
    with pytest.raises((ConfigError, ValueError), match=said):
        Recipe.model_validate(given)
