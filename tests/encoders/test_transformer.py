"""Patterns see what they say, blocks are the formulas, sizes are what is printed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from conftest import batch_of, documents_of, tiny_config, tiny_model
from encodery.batch import layout_of
from encodery.encoders.attention import Pass
from encodery.encoders.patterns import Pattern, allowed_pairs
from encodery.encoders.transformer import TransformerConfig
from encodery.model import Model, cost_table, count, load_matching


def influence(encoder: dict[str, Any], length: int = 20) -> np.ndarray:
    """(queries, keys): does changing a token change the vector at another place?"""
    model = tiny_model(**encoder)
    (document,) = documents_of([length])
    with torch.inference_mode():
        before = model.encode(batch_of([[document]], length)).vectors
        changed = []
        for place in range(length):
            other = document.copy()
            other[place] = 5 + (other[place] - 4) % 45
            after = model.encode(batch_of([[other]], length)).vectors
            changed.append(((after - before).abs().amax(dim=1) > 0).numpy())
    return np.array(changed).T


def test_a_window_sees_exactly_its_radius() -> None:
    distance = np.abs(np.subtract.outer(np.arange(20), np.arange(20)))
    for radius, depth in ((1, 1), (3, 1), (2, 3)):
        found = influence({"pattern": "window", "window": radius, "depth": depth})
        assert np.array_equal(found, distance <= radius * depth)


def test_every_nth_block_of_a_window_encoder_sees_everything() -> None:
    config = TransformerConfig(pattern="window", window=2, global_every=3, depth=7)
    names = [config.pattern_of(block).name for block in range(7)]
    assert names == ["full", "window", "window", "full", "window", "window", "full"]
    assert influence({"pattern": "window", "window": 1, "global_every": 2}).all()


def test_causal_sees_the_past_and_full_sees_everything() -> None:
    assert np.array_equal(influence({"pattern": "causal"}), np.tril(np.ones((20, 20), bool)))
    assert influence({"pattern": "full"}).all()


def test_no_position_is_left_with_nothing_to_see() -> None:
    """Row 5: a softmax over nothing is NaN, so padding sees itself, and documents never see padding."""
    layout = layout_of([[3, 2], [], [4]], 6)
    for pattern in (Pattern(), Pattern("causal"), Pattern("window", 1)):
        allowed = allowed_pairs(layout, pattern)
        assert allowed.any(dim=-1).all()
        document = layout.document.view(3, 6)
        assert not (allowed & (document[:, :, None] != document[:, None, :])).any()


@pytest.mark.parametrize("place", ["pre", "post"])
def test_a_block_is_the_formula_of_its_norm_place(place: str) -> None:
    model = tiny_model(norm_place=place, depth=1, positions="none")
    block = model.encoder.blocks[0]
    (document,) = documents_of([8])
    batch = batch_of([[document]], 8)
    with torch.inference_mode():
        x = model.encoder.input_norm(model.frontend(batch).vectors)
        run = Pass(batch.layout, batch.layout.document >= 0)
        if place == "pre":
            x = x + block.attention(block.attention_norm(x), run, Pattern())  # type: ignore[operator]
            x = model.encoder.output_norm(x + block.mlp(block.mlp_norm(x)))  # type: ignore[operator]
        else:
            x = block.attention_norm(x + block.attention(x, run, Pattern()))  # type: ignore[operator]
            x = block.mlp_norm(x + block.mlp(x))  # type: ignore[operator]
        torch.testing.assert_close(model.encode(batch).vectors, x)


def test_dropout_acts_while_training_only() -> None:
    model = tiny_model(drop_rate=0.5, attention_drop_rate=0.5)
    batch = batch_of([documents_of([8])], 8)
    assert torch.equal(model.encode(batch).vectors, model.encode(batch).vectors)
    model.train()
    assert not torch.equal(model.encode(batch).vectors, model.encode(batch).vectors)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 30, "heads": 4}, "not a multiple of heads"),
        ({"width": 12, "heads": 4, "positions": "rotary"}, "even head width"),
        ({"window": 0}, "window"),
        ({"preset": "huge"}, "preset"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TransformerConfig.model_validate(changes)


def test_presets_fill_sizes_and_given_keys_win() -> None:
    config = TransformerConfig.model_validate({"preset": "mini", "depth": 3})
    assert (config.width, config.depth, config.heads) == (256, 3, 4)


@pytest.mark.parametrize("readout", [{"kind": "word"}, {"kind": "document", "outputs": 3, "pooling": "attention"}])
def test_the_cost_table_counts_every_parameter_once(readout: dict[str, Any]) -> None:
    model = Model(tiny_config(readout=readout, positions="learned"))
    assert sum(row.parameters for row in cost_table(model, length=16)) == count(model)


def test_the_same_seed_gives_the_same_weights() -> None:
    one, same, other = (Model(tiny_config()).initialise(seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_weights_that_fit_are_taken_and_the_rest_is_named() -> None:
    pretrained = tiny_model()
    model = Model(tiny_config(readout={"kind": "document", "outputs": 2})).initialise(5)
    lacking = load_matching(model, dict(pretrained.state_dict()))
    assert lacking == ["readout.answer.bias", "readout.answer.weight"]
    assert torch.equal(model.frontend.words.weight, pretrained.frontend.words.weight)


@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_asked_for_some_positions_it_gives_what_it_gives_for_all(place: str, depth: int) -> None:
    """And the same gradients: the spared work was for nothing but vectors nobody read."""
    model = tiny_model(norm_place=place, depth=depth)
    batch = batch_of([documents_of([9, 6]), documents_of([12], seed=1)], 16)
    at = torch.tensor([20, 3, 3, 0, 30])
    found = []
    for only in (None, at):
        model.zero_grad()
        states = model.encoder(model.frontend(batch), only)
        vectors = states.vectors[at] if only is None else states.vectors
        vectors.square().sum().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append((vectors.detach(), gradients))
    (every, one), (some, two) = found
    torch.testing.assert_close(some, every)
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, msg=name)
