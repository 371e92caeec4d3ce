"""Exact rewrites: the same answers by other options, so that a Hugging Face family can express a model of ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from encodery.bricks.layers import make_norm
from encodery.bricks.positions import RandomPositions, sinusoidal_table
from encodery.encoders.options import TransformerConfig
from encodery.interop.huggingface.tables import shapes_of
from encodery.model import ModelConfig

Weights = dict[str, Tensor]


class Rewritten(NamedTuple):
    """A model that gives the same answers as before, and what was done to it."""

    config: ModelConfig
    weights: Weights
    note: str


Rewrite = Callable[[ModelConfig, Weights, Any, bool], Rewritten | None]
"""Config, weights, the value that an option must take, and whether the model reads pairs -> the model with that value,
or None where that cannot be done exactly."""


def changed(config: ModelConfig, **values: Any) -> ModelConfig:
    """The config with other values, given as `encoder__bias=True`."""
    parts: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        part, key = name.split("__")
        parts.setdefault(part, {})[key] = value
    found = {part: getattr(config, part).model_copy(update=update) for part, update in parts.items()}
    return config.model_copy(update=found)


def without_spare_positions(config: ModelConfig, weights: Weights) -> tuple[ModelConfig, Weights]:
    """Rows of the table that only moved beginnings reach while learning are cut off."""
    encoder = _encoder(config)
    if encoder.positions != "learned" or not encoder.position_shift:
        return config, weights
    name = "encoder.positions.table.weight"
    rows = encoder.max_length + encoder.position_start
    return changed(config, encoder__position_shift=0), {**weights, name: weights[name][:rows]}


def _segments(config: ModelConfig, weights: Weights, goal: Any, paired: bool) -> Rewritten | None:
    """One vector for all tokens can as well be part of every token's own; none is the same as one of zeros."""
    name, words = "frontend.segments.weight", weights["frontend.words.weight"]
    if not config.frontend.segments:
        added = {**weights, name: torch.zeros(goal, words.shape[1])}
        return Rewritten(changed(config, frontend__segments=goal), added, "segments of zeros were added")
    table = weights[name]
    same = bool((table == table[:1]).all())
    if goal > 1 or (paired and not same):
        return None
    note = "" if same else "; the vector of a second text is left out, which single texts never use"
    if goal == 1:
        kept = {**weights, name: table[:1]}
        return Rewritten(changed(config, frontend__segments=1), kept, f"one segment is kept{note}")
    rest = {key: value for key, value in weights.items() if key != name}
    new, rest = _new_words(changed(config, frontend__segments=0), rest, words + table[0])
    return Rewritten(new, rest, f"the vector of the first segment is added to all words{note}")


def _new_words(config: ModelConfig, weights: Weights, words: Tensor) -> tuple[ModelConfig, Weights]:
    """With other embeddings. A tied output matrix must stay what it was, and becomes one of its own."""
    name = "frontend.words.weight"
    if config.readout.kind == "word" and config.readout.tied and not torch.equal(words, weights[name]):
        config = changed(config, readout__tied=False)
        weights = {**weights, "readout.words": weights[name]}
    return config, {**weights, name: words}


def _input_norm(config: ModelConfig, weights: Weights, goal: Any, paired: bool) -> Rewritten | None:
    """Where nothing is added to the vector of a word, its norm can be taken once and for all."""
    encoder, name = _encoder(config), "encoder.input_norm"
    added = config.frontend.segments or encoder.positions in ("learned", "random", "sinusoidal", "grid")
    if goal or added or encoder.norm == "batchnorm" or (config.readout.kind == "word" and config.readout.tied):
        return None
    words = weights["frontend.words.weight"]
    norm = make_norm(encoder.norm, words.shape[1], epsilon=encoder.norm_epsilon, bias=encoder.biased_norms)
    norm.load_state_dict({part: weights[f"{name}.{part}"] for part in norm.state_dict()})
    with torch.no_grad():
        found = {key: value for key, value in weights.items() if not key.startswith(name)}
        found["frontend.words.weight"] = norm(words)
    return Rewritten(
        changed(config, encoder__input_norm=False), found, "the vectors of all words were normed beforehand"
    )


def _with_zeros(config: ModelConfig, weights: Weights, note: str) -> Rewritten:
    shapes = shapes_of(config)
    zeros = {name: torch.zeros(shape) for name, shape in shapes.items() if name not in weights}
    assert all(name.endswith(".bias") for name in zeros)
    return Rewritten(config, {**weights, **zeros}, note)


def _bias(config: ModelConfig, weights: Weights, goal: Any, paired: bool) -> Rewritten | None:
    encoder = _encoder(config)
    if not goal or encoder.norm == "batchnorm" or encoder.experts or encoder.mlp_kernel > 1:
        return None
    norm_bias = encoder.biased_norms
    new = changed(config, encoder__bias=True, encoder__norm_bias=norm_bias)
    return _with_zeros(new, weights, "biases of zeros were added to the linear layers")


def _norm_bias(config: ModelConfig, weights: Weights, goal: Any, paired: bool) -> Rewritten | None:
    if not goal or _encoder(config).norm != "layernorm":
        return None
    return _with_zeros(changed(config, encoder__norm_bias=True), weights, "biases of zeros were added to the norms")


def _head_bias(config: ModelConfig, weights: Weights, goal: Any, paired: bool) -> Rewritten | None:
    if not goal:
        return None
    note = "biases of zeros were added to the masked-word head"
    return _with_zeros(changed(config, readout__bias=True), weights, note)


def _positions(config: ModelConfig, weights: Weights, goal: Any, paired: bool) -> Rewritten | None:
    """A fixed table written out as a learned one; no positions are a table of zeros."""
    encoder = _encoder(config)
    if goal != "learned" or encoder.positions not in ("none", "random", "sinusoidal"):
        return None
    width = config.frontend.width or encoder.width
    length = encoder.max_length + encoder.position_start
    name = "encoder.positions.table.weight"
    new = changed(config, encoder__positions="learned", encoder__position_shift=0)
    note = f"the table of {encoder.positions} positions is written out"
    if encoder.positions == "none":
        zeros = {**weights, name: torch.zeros(length, width)}
        return Rewritten(new, zeros, "a table of zeros stands for no positions")
    if encoder.positions == "random":
        spare = length + encoder.position_shift
        return Rewritten(new, {**weights, name: RandomPositions(spare, width).table[:length]}, note)
    # Sinusoidal positions are added to embeddings that were scaled by the root of the width.
    scale = math.sqrt(width)
    segments = {key: value * scale for key, value in weights.items() if key == "frontend.segments.weight"}
    new, scaled = _new_words(new, {**weights, **segments}, weights["frontend.words.weight"] * scale)
    return Rewritten(new, {**scaled, name: sinusoidal_table(length, width)}, note)


def _position_start(config: ModelConfig, weights: Weights, goal: Any, paired: bool) -> Rewritten | None:
    encoder, name = _encoder(config), "encoder.positions.table.weight"
    table = weights.get(name)
    if encoder.positions != "learned" or table is None:
        return None
    more = goal - encoder.position_start
    table = torch.cat([torch.zeros(more, table.shape[1]), table]) if more > 0 else table[-more:]
    note = f"the table of positions begins with row {goal}, as the number of the padding token asks for"
    return Rewritten(changed(config, encoder__position_start=goal), {**weights, name: table}, note)


def _stretch(config: ModelConfig, weights: Weights, goal: Any, paired: bool) -> Rewritten | None:
    encoder = _encoder(config)
    if goal != 1 or encoder.turned_width <= 2:
        return None
    factor = encoder.rotary_stretch ** (encoder.turned_width / (encoder.turned_width - 2))
    near = encoder.rotary_base_local
    new = changed(
        config,
        encoder__rotary_stretch=1.0,
        encoder__rotary_base=encoder.rotary_base * factor,
        encoder__rotary_base_local=None if near is None else near * factor,
    )
    return Rewritten(new, weights, "the stretch of the rotary angles is part of their base")


def _layer_scale(config: ModelConfig, weights: Weights, goal: Any, paired: bool) -> Rewritten | None:
    encoder = _encoder(config)
    if goal is not None or encoder.experts or encoder.norm_place == "both":
        return None
    found = {key: value for key, value in weights.items() if not key.endswith(("attention_scale", "mlp_scale"))}
    for block in range(encoder.blocks):
        for branch in ("attention", "mlp"):
            before = f"encoder.blocks.{block}.{branch}"
            scale = weights[f"{before}_scale"]
            found[f"{before}.outer.weight"] = weights[f"{before}.outer.weight"] * scale[:, None]
            if encoder.bias:
                found[f"{before}.outer.bias"] = weights[f"{before}.outer.bias"] * scale
    new = changed(config, encoder__layer_scale=None)
    return Rewritten(new, found, "the scale of each branch is part of its last layer")


def _kv_heads(config: ModelConfig, weights: Weights, goal: Any, paired: bool) -> Rewritten | None:
    """Shared keys and values written out for each head of queries."""
    encoder = _encoder(config)
    groups, heads = encoder.kv_heads or encoder.heads, encoder.heads
    if goal != heads or encoder.positions == "disentangled":
        return None
    key, value = encoder.key_width, encoder.value_width or encoder.key_width
    found = dict(weights)
    for name, tensor in weights.items():
        if ".attention.qkv." in name:
            q, k, v = tensor.split([heads * key, groups * key, groups * value])
            shared = [part.view(groups, -1, *tensor.shape[1:]) for part in (k, v)]
            whole = [part.repeat_interleave(heads // groups, dim=0).flatten(0, 1) for part in shared]
            found[name] = torch.cat([q, *whole])
    return Rewritten(changed(config, encoder__kv_heads=None), found, "shared keys and values are written out by head")


def _distinct_blocks(config: ModelConfig, weights: Weights, goal: Any, paired: bool) -> Rewritten | None:
    encoder = _encoder(config)
    if goal != encoder.depth:
        return None
    found = {name: value for name, value in weights.items() if not name.startswith("encoder.blocks.")}
    for layer in range(encoder.depth):
        before = f"encoder.blocks.{layer * encoder.blocks // encoder.depth}."
        for name, value in weights.items():
            if name.startswith(before):
                found[f"encoder.blocks.{layer}.{name.removeprefix(before)}"] = value
    new = changed(config, encoder__distinct_blocks=None)
    return Rewritten(new, found, "blocks that share their weights are written out one by one")


def _score_scale(config: ModelConfig, weights: Weights, goal: Any, paired: bool) -> Rewritten | None:
    """What scores are divided by can be part of the queries."""
    encoder = _encoder(config)
    if encoder.qk_norm or encoder.score == "additive" or encoder.positions == "disentangled":
        return None
    factor = math.sqrt(encoder.key_width)
    rows = encoder.heads * encoder.key_width
    found = dict(weights)
    for name, tensor in weights.items():
        if ".attention.qkv." in name:
            scaled = tensor[:rows] * (factor if goal else 1 / factor)
            found[name] = torch.cat([scaled, tensor[rows:]])
    new = changed(config, encoder__score_scale=goal)
    return Rewritten(new, found, "the scale of the scores is part of the queries")


def _head_norm_bias(config: ModelConfig, weights: Weights, goal: Any, paired: bool) -> Rewritten | None:
    """What the norm of the head adds to all vectors adds the same to each word's logit wherever it stands."""
    name = "readout.norm.bias"
    words = weights.get("readout.words", weights["frontend.words.weight"])
    found = {**weights, "readout.bias": weights["readout.bias"] + words @ weights[name]}
    found[name] = torch.zeros_like(weights[name])
    return Rewritten(config, found, "the bias of the head's norm is part of the bias of the words")


def _encoder(config: ModelConfig) -> TransformerConfig:
    assert isinstance(config.encoder, TransformerConfig)
    return config.encoder


REWRITES: dict[str, Rewrite] = {
    "encoder.positions": _positions,
    "frontend.segments": _segments,
    "encoder.input_norm": _input_norm,
    "encoder.bias": _bias,
    "encoder.norm_bias": _norm_bias,
    "readout.bias": _head_bias,
    "encoder.position_start": _position_start,
    "encoder.rotary_stretch": _stretch,
    "encoder.layer_scale": _layer_scale,
    "encoder.kv_heads": _kv_heads,
    "encoder.distinct_blocks": _distinct_blocks,
    "encoder.score_scale": _score_scale,
}
"""By the option that a family wants otherwise, in the order in which they are tried."""
EMPTIED: dict[str, Rewrite] = {"readout.norm.bias": _head_norm_bias}
"""By the weight that a family does not have, and that must be zero therefore."""
