"""The Transformer encoder as a Keras layer: padded vectors and a mask in, vectors in context out."""

from __future__ import annotations

import math
from typing import Any

import keras  # pyright: ignore[reportMissingImports]
from keras import ops  # pyright: ignore[reportMissingImports]

from encodery.encoders.options import TransformerConfig
from encodery.interop.keras_encoder.attention import DistanceBias, Pass, SelfAttention
from encodery.interop.keras_encoder.layers import (
    PACKAGE,
    ConvolutionFeedForward,
    Experts,
    FeedForward,
    Norm,
    Part,
    PositionTable,
    Rotary,
    Rows,
    Tensor,
    rows_of,
)

EXPERT_BALANCE = 0.01
"""What uneven use of experts adds to the loss in `fit`, as `training.expert_balance` does by default."""


def norm_of(config: TransformerConfig, width: int, dtype: Any) -> Norm:
    """A norm as the config wants it."""
    bias = config.biased_norms
    return Norm(config.norm, width, config.norm_epsilon, bias, dtype=dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class Block(Part):
    """One layer: attention, then feed-forward, each added to what went in: (B, T, D) -> (B, T, D).

    pre:   x + f(norm(x))           (Xiong et al. 2020)
    post:  norm(x + f(x))           ("Attention Is All You Need", section 3.1)
    both:  x + norm(f(norm(x)))     (Ding et al. 2021, CogView, Sandwich-LN)
    """

    def __init__(self, config: dict[str, Any] | TransformerConfig, index: int = 0, **more: Any) -> None:
        config = TransformerConfig.model_validate(config)
        super().__init__(config=config.model_dump(mode="json"), index=index, **more)
        self.options = config
        self.post, both = config.norm_place == "post", config.norm_place == "both"
        bare = index == 0 and not config.first_norm and not self.post
        dtype = self.dtype_policy
        # The end of each branch starts smaller, so that the sum keeps its size whatever the depth.
        outer_std = 0.02 / math.sqrt(2 * max(1, config.depth))
        self.attention_norm = None if bare else norm_of(config, config.width, dtype)
        self.attention = SelfAttention(config, outer_std, dtype=dtype)
        self.mlp_norm = norm_of(config, config.width, dtype)
        sizes = {"width": config.width, "inner_width": config.inner_width, "activation": config.activation}
        sizes |= {"bias": config.bias, "outer_std": outer_std, "dtype": dtype}
        if config.experts:
            self.mlp: Any = Experts(number=config.experts, chosen=config.experts_per_token, **sizes)
        elif config.mlp_kernel > 1:
            self.mlp = ConvolutionFeedForward(kernel=config.mlp_kernel, **sizes)
        else:
            self.mlp = FeedForward(**sizes)
        self.attention_end_norm = norm_of(config, config.width, dtype) if both else None
        self.mlp_end_norm = norm_of(config, config.width, dtype) if both else None

    def build(self, input_shape: Any = None) -> None:
        parts = (self.attention_norm, self.attention, self.mlp_norm, self.mlp, self.attention_end_norm)
        for part in (*parts, self.mlp_end_norm):
            if part is not None:
                part.build()
        self.attention_scale = self.mlp_scale = None
        if self.options.layer_scale is not None:
            start = keras.initializers.Constant(self.options.layer_scale)
            shape = (self.options.width,)
            self.attention_scale = self.add_weight(name="attention_scale", shape=shape, initializer=start)
            self.mlp_scale = self.add_weight(name="mlp_scale", shape=shape, initializer=start)

    def call(self, inputs: Tensor, run: Pass, layer: int = 0, training: bool | None = None) -> Tensor:
        """As block number `layer` of the stack, counted from 0."""
        real = run.rows.real

        def normed(norm: Norm | None, x: Tensor) -> Tensor:
            return x if norm is None else norm(x, real=real, training=training)

        def joined(x: Tensor, change: Tensor, end_norm: Norm | None, scale: Tensor) -> Tensor:
            change = normed(end_norm, change)
            if scale is not None:
                change = change * ops.cast(scale, change.dtype)
            if training:
                change = self._dropped(change, run, layer)
            x = x if self.options.residual_scale == 1 else x * self.options.residual_scale
            return x + change

        x = inputs
        mixed = self.attention(x if self.post else normed(self.attention_norm, x), run=run, layer=layer)
        x = joined(x, mixed, self.attention_end_norm, self.attention_scale)
        if self.post:
            x = normed(self.attention_norm, x)
        change = self._fed_forward(x if self.post else normed(self.mlp_norm, x), run)
        x = joined(x, change, self.mlp_end_norm, self.mlp_scale)
        return normed(self.mlp_norm, x) if self.post else x

    def _fed_forward(self, x: Tensor, run: Pass) -> Tensor:
        if isinstance(self.mlp, FeedForward):
            return self.mlp(x)
        found = self.mlp(x, real=run.rows.real)
        if isinstance(self.mlp, Experts):
            found, balance = found
            run.balance.append(balance)
        return found

    def _dropped(self, change: Tensor, run: Pass, layer: int) -> Tensor:
        """Dropout, and stochastic depth (Huang et al. 2016): a document skips a branch of a late block more often."""
        config = self.options
        if config.depth_drop_rate:
            rate, rows = config.depth_drop_rate * (layer + 1) / config.depth, (ops.shape(change)[0], 1, 1)
            change = keras.random.dropout(change, rate, noise_shape=rows, seed=run.chance)
        if config.drop_rate:
            change = keras.random.dropout(change, config.drop_rate, seed=run.chance)
        return change


@keras.saving.register_keras_serializable(PACKAGE)
class Transformer(Part):
    """Vectors (B, T, E) and a mask (B, T), True for real tokens -> vectors in context (B, T, D).

    Documents are rows; their tokens stand side by side, padding comes before or behind them. `config` are the options
    of `TransformerConfig` as a dictionary, `input_width` is E where that is not D (ALBERT, Lan et al. 2020).
    """

    def __init__(self, config: dict[str, Any] | TransformerConfig, input_width: int | None = None, **more: Any) -> None:
        config = TransformerConfig.model_validate(config)
        super().__init__(config=config.model_dump(mode="json"), input_width=input_width, **more)
        self.options, self.entering = config, input_width or config.width
        self.chance = keras.random.SeedGenerator()
        dtype = self.dtype_policy
        self.positions = self.distance_bias = self.distances = self.widen = None
        if config.positions in ("sinusoidal", "learned", "random"):
            shift, start = config.position_shift, config.position_start
            self.positions = PositionTable(
                config.positions, config.max_length, self.entering, start, shift, dtype=dtype
            )
        elif config.positions in ("alibi", "relative"):
            self.distance_bias = DistanceBias(config, dtype=dtype)
        elif config.positions == "disentangled":
            self.distances = Distances(config, dtype=dtype)
        turning = config.positions == "rotary"
        self.rotary = Rotary(config, config.rotary_base) if turning else None
        self.near_rotary = self.rotary
        if turning and config.rotary_base_local is not None and config.pattern_of(1).local:
            self.near_rotary = Rotary(config, config.rotary_base_local)
        self.input_norm = norm_of(config, self.entering, dtype) if config.input_norm else None
        if self.entering != config.width:
            self.widen = self.linear(config.width)
        self.blocks = [Block(config, index, dtype=dtype) for index in range(config.blocks)]
        self.output_norm = None if config.norm_place == "post" else norm_of(config, config.width, dtype)

    def build(self, input_shape: Any = None) -> None:
        if self.widen is not None:
            self.widen.build((None, None, self.entering))
        parts = (self.positions, self.distance_bias, self.distances, self.input_norm, self.output_norm, *self.blocks)
        for part in parts:
            if part is not None:
                part.build()

    def call(self, inputs: Tensor, mask: Tensor = None, training: bool | None = None) -> Tensor:
        config = self.options
        real = ops.ones(ops.shape(inputs)[:2], dtype="bool") if mask is None else mask
        rows = rows_of(real)
        x = self._entered(inputs, rows, training)
        run = self._begin(rows, x.dtype)
        full, balance, steps = None, run.balance, [rows]
        for layer in range(config.depth):
            x = self.blocks[layer * config.blocks // config.depth](x, run=run, layer=layer)
            if layer + 1 in config.halve_after:
                full = x if full is None else full  # before the first halving
                x, shorter = halved(x, steps[-1])
                steps.append(shorter)
                run = self._begin(shorter, x.dtype)
                run.balance = balance
        if full is not None:
            for longer in reversed(steps[:-1]):
                x = ops.take_along_axis(x, ((longer.position + 1) // 2)[..., None], axis=1)
            x = full + x
        if balance and training:
            self.add_loss(EXPERT_BALANCE * sum(balance) / len(balance))
        return x if self.output_norm is None else self.output_norm(x, real=rows.real, training=training)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.options.width)

    def _entered(self, x: Tensor, rows: Rows, training: bool | None) -> Tensor:
        if self.positions is not None:
            x = self.positions(x, rows.position, training=training)
        if self.input_norm is not None:
            x = self.input_norm(x, real=rows.real, training=training)
        if training and self.options.drop_rate:
            x = keras.random.dropout(x, self.options.drop_rate, seed=self.chance)
        return x if self.widen is None else self.widen(x)

    def _begin(self, rows: Rows, dtype: str) -> Pass:
        angles = near_angles = None
        if self.rotary is not None and self.near_rotary is not None:
            angles = near_angles = self.rotary.at(rows.position, dtype)
            if self.near_rotary is not self.rotary:
                near_angles = self.near_rotary.at(rows.position, dtype)
        bias = None if self.distance_bias is None else self.distance_bias(rows.position)
        distances = None if self.distances is None else self.distances(rows.position)
        return Pass(self.options, rows, self.chance, (angles, near_angles), bias, distances)


class Distances(Part):
    """One learned vector for each bucket of distances (DeBERTa, He et al. 2021, section 3.1): anything -> (2R, D)."""

    def __init__(self, config: TransformerConfig, **more: Any) -> None:
        super().__init__(config=config.model_dump(mode="json"), **more)
        self.table = self.rows(2 * config.relative_buckets, config.width)
        self.norm = norm_of(config, config.width, self.dtype_policy) if config.distance_norm else None

    def build(self, input_shape: Any = None) -> None:
        self.table.build()
        if self.norm is not None:
            self.norm.build()

    def call(self, inputs: Tensor) -> Tensor:
        del inputs
        every = ops.cast(self.table.embeddings, self.compute_dtype)
        return every if self.norm is None else self.norm(every)


def halved(x: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
    """The first vector alone, then the means of pairs: (B, T, D) -> (B, 1 + T // 2, D) and its Rows, padding at the
    end (Funnel-Transformer, Dai et al. 2020, section 2.2)."""
    length = ops.shape(x)[1]
    first = ops.cast(ops.argmax(ops.cast(rows.real, "int32"), axis=1), "int32")[:, None]
    place = ops.arange(1 + length // 2, dtype="int32")[None]
    total, number = 0.0, 0.0
    for member in (2 * place - 1, 2 * place):  # positions inside the document
        there = (member >= 0) & (member < rows.length[:, None])
        index = ops.clip(first + member, 0, length - 1)[..., None]
        weight = ops.cast(there, x.dtype)[..., None]
        total, number = total + ops.take_along_axis(x, index, axis=1) * weight, number + weight
    shorter = ops.where(rows.length > 0, 1 + rows.length // 2, 0)
    real = place < shorter[:, None]
    return total / ops.maximum(number, 1.0), Rows(real, ops.where(real, place, 0), shorter)
