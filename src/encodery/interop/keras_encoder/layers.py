"""Norms, feed-forward layers and positions of the Keras encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import keras  # pyright: ignore[reportMissingImports]
import numpy as np
from keras import ops  # pyright: ignore[reportMissingImports]

from encodery.bricks.choices import ActivationName, NormName, is_gated
from encodery.encoders.options import TransformerConfig

PACKAGE = "encodery"
"""The name under which Keras finds these classes again in a saved model."""

Tensor = Any


class Rows(NamedTuple):
    """Where the documents of a padded batch lie, one a row; real tokens stand side by side, padding around them.

    `real` (B, T) bool, `position` (B, T) counted from 0 inside the document, `length` (B,) of each document.
    """

    real: Tensor
    position: Tensor
    length: Tensor


def rows_of(real: Tensor) -> Rows:
    """(B, T) bool -> Rows."""
    real = ops.cast(real, "bool")
    counted = ops.cumsum(ops.cast(real, "int32"), axis=1)
    return Rows(real, ops.maximum(counted - 1, 0), counted[:, -1])


_weights_follow = ContextVar("weights_follow", default=False)


@contextmanager
def weights_follow() -> Iterator[None]:
    """Inside, weights start at zero: they are about to be read, which takes less time than to draw a large model."""
    before = _weights_follow.set(True)
    try:
        yield
    finally:
        _weights_follow.reset(before)


@keras.saving.register_keras_serializable(PACKAGE)
class Drawn(keras.initializers.RandomNormal):
    """Numbers from a normal, unless weights follow."""

    def __call__(self, shape: Any, dtype: Any = None) -> Tensor:
        if _weights_follow.get():
            return ops.convert_to_tensor(np.zeros(shape, np.float32), dtype=dtype)
        return super().__call__(shape, dtype)


class Part(keras.layers.Layer):
    """A layer that is made again from what it was made with, and whose attributes have the names of the weights in
    model.safetensors."""

    def __init__(self, *, dtype: Any = None, name: str | None = None, trainable: bool = True, **made_with: Any) -> None:
        super().__init__(dtype=dtype, name=name, trainable=trainable)
        self.made_with = dict(made_with)
        self.supports_masking = True

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.made_with}

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor = None) -> Tensor:
        return previous_mask

    def linear(self, outputs: int, *, bias: bool = True, std: float = 0.02, dtype: Any = None) -> keras.layers.Dense:
        """`x W + b`, drawn from a normal of `std`."""
        dtype = dtype or self.dtype_policy
        return keras.layers.Dense(outputs, use_bias=bias, kernel_initializer=Drawn(stddev=std), dtype=dtype)

    def rows(self, number: int, width: int, std: float = 0.02) -> keras.layers.Embedding:
        """A table of learned vectors, drawn from a normal of `std`."""
        return keras.layers.Embedding(number, width, embeddings_initializer=Drawn(stddev=std), dtype=self.dtype_policy)


@keras.saving.register_keras_serializable(PACKAGE)
class Norm(Part):
    """layernorm, rmsnorm or batchnorm of the last axis, in float32: (..., D) -> (..., D).

    LayerNorm: Ba et al. 2016. RMSNorm: Zhang and Sennrich 2019. BatchNorm (Ioffe and Szegedy 2015) counts real
    positions alone: `real` (B, T).
    """

    MOMENTUM = 0.1

    def __init__(self, kind: NormName, width: int, epsilon: float = 1e-5, bias: bool = True, **more: Any) -> None:
        super().__init__(kind=kind, width=width, epsilon=epsilon, bias=bias, **more)
        self.kind, self.width, self.epsilon, self.has_bias = kind, width, epsilon, bias and kind != "rmsnorm"

    def build(self, input_shape: Any = None) -> None:
        shape = (self.width,)
        self.weight = self.add_weight(name="weight", shape=shape, initializer="ones")
        self.bias = self.add_weight(name="bias", shape=shape, initializer="zeros") if self.has_bias else None
        if self.kind == "batchnorm":
            self.mean = self.add_weight(name="mean", shape=shape, initializer="zeros", trainable=False)
            self.variance = self.add_weight(name="variance", shape=shape, initializer="ones", trainable=False)

    def call(self, inputs: Tensor, real: Tensor = None, training: bool | None = None) -> Tensor:
        x = ops.cast(inputs, "float32")
        if self.kind == "batchnorm":
            mean, variance = self._statistics(x, real, bool(training))
        elif self.kind == "rmsnorm":
            mean, variance = 0.0, ops.mean(ops.square(x), axis=-1, keepdims=True)
        else:
            mean = ops.mean(x, axis=-1, keepdims=True)
            variance = ops.mean(ops.square(x - mean), axis=-1, keepdims=True)
        x = (x - mean) * ops.rsqrt(variance + self.epsilon) * ops.cast(self.weight, "float32")
        if self.bias is not None:
            x = x + ops.cast(self.bias, "float32")
        return ops.cast(x, inputs.dtype)

    def _statistics(self, x: Tensor, real: Tensor, training: bool) -> tuple[Tensor, Tensor]:
        if not training:
            return ops.cast(self.mean, "float32"), ops.cast(self.variance, "float32")
        axes = tuple(range(len(x.shape) - 1))
        counts = ops.ones_like(x[..., :1]) if real is None else ops.cast(real, "float32")[..., None]
        number = ops.maximum(ops.sum(counts), 1.0)
        mean = ops.sum(x * counts, axis=axes) / number
        variance = ops.sum(ops.square(x - mean) * counts, axis=axes) / number
        for kept, found in ((self.mean, mean), (self.variance, variance)):
            kept.assign(kept + self.MOMENTUM * (ops.cast(found, kept.dtype) - kept))
        return mean, variance


def activated(name: ActivationName, x: Tensor) -> Tensor:
    """The activation of a feed-forward layer; of a gated one, that of the gate."""
    if name == "relu":
        return ops.relu(x)
    if name in ("silu", "swiglu"):
        return ops.silu(x)
    return ops.gelu(x, approximate=name.endswith("_tanh"))


@keras.saving.register_keras_serializable(PACKAGE)
class FeedForward(Part):
    """Two linear layers around an activation, or gated: (..., D) -> (..., D).

    `out(act(in(x)))` ("Attention Is All You Need", section 3.3); gated: `out(act(gate(x)) * value(x))` (Shazeer 2020).
    `inputs` is the width of what comes in, where that is not `width`; `outer_std` the spread of the second layer at the
    start.
    """

    def __init__(
        self,
        width: int,
        inner_width: int,
        activation: ActivationName,
        bias: bool = True,
        outer_std: float = 0.02,
        inputs: int | None = None,
        **more: Any,
    ) -> None:
        sizes = {"width": width, "inner_width": inner_width, "inputs": inputs}
        super().__init__(activation=activation, bias=bias, outer_std=outer_std, **sizes, **more)
        self.activation: ActivationName = activation
        self.gated = is_gated(activation)
        self.widths = (inputs or width, inner_width)
        self.inner = self.linear(inner_width * (2 if self.gated else 1), bias=bias)
        self.outer = self.linear(width, bias=bias, std=outer_std)

    def build(self, input_shape: Any = None) -> None:
        for layer, width in zip((self.inner, self.outer), self.widths):
            layer.build((None, None, width))

    def call(self, inputs: Tensor) -> Tensor:
        hidden = self.inner(inputs)
        if self.gated:
            gate, value = ops.split(hidden, 2, axis=-1)
            return self.outer(activated(self.activation, gate) * value)
        return self.outer(activated(self.activation, hidden))


@keras.saving.register_keras_serializable(PACKAGE)
class ConvolutionFeedForward(Part):
    """A feed-forward layer whose first half sees `kernel` tokens of its document at a time: (B, T, D) -> (B, T, D)
    (FastSpeech, Ren et al. 2019). One product over the vectors laid side by side."""

    def __init__(
        self,
        width: int,
        inner_width: int,
        activation: ActivationName,
        kernel: int,
        bias: bool = True,
        outer_std: float = 0.02,
        **more: Any,
    ) -> None:
        sizes = {"width": width, "inner_width": inner_width, "kernel": kernel}
        super().__init__(activation=activation, bias=bias, outer_std=outer_std, **sizes, **more)
        self.kernel = kernel
        self.layer = FeedForward(
            width, inner_width, activation, bias, outer_std, kernel * width, dtype=self.dtype_policy
        )

    def build(self, input_shape: Any = None) -> None:
        self.layer.build()

    def call(self, inputs: Tensor, real: Tensor = None) -> Tensor:
        return self.layer(with_neighbours(inputs, real, self.kernel))


def with_neighbours(x: Tensor, real: Tensor, kernel: int) -> Tensor:
    """Each vector beside those of the tokens around it: (B, T, D) -> (B, T, kernel * D); zeros beyond the document."""
    reach, length = kernel // 2, ops.shape(x)[1]
    if real is not None:
        x = x * ops.cast(real, x.dtype)[..., None]
    padded = ops.pad(x, [[0, 0], [reach, reach], [0, 0]])
    return ops.concatenate([padded[:, place : place + length] for place in range(kernel)], axis=-1)


@keras.saving.register_keras_serializable(PACKAGE)
class Experts(Part):
    """Mixture of experts (Shazeer et al. 2017): (B, T, D) -> (B, T, D) and how unevenly they are used, 1 at best.

    Every expert is computed for every token, and what the router did not choose is multiplied with 0: the numbers are
    those of the torch side, the cost is that of all experts.
    """

    def __init__(
        self,
        width: int,
        inner_width: int,
        number: int,
        chosen: int,
        activation: ActivationName,
        bias: bool = True,
        outer_std: float = 0.02,
        **more: Any,
    ) -> None:
        sizes = {"width": width, "inner_width": inner_width, "number": number, "chosen": chosen}
        super().__init__(activation=activation, bias=bias, outer_std=outer_std, **sizes, **more)
        self.width, self.chosen = width, chosen
        self.router = self.linear(number, bias=False)
        self.experts = [
            FeedForward(width, inner_width, activation, bias, outer_std=outer_std, dtype=self.dtype_policy)
            for _ in range(number)
        ]

    def build(self, input_shape: Any = None) -> None:
        self.router.build((None, None, self.width))
        for expert in self.experts:
            expert.build()

    def call(self, inputs: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        score = ops.cast(self.router(inputs), "float32")  # (B, T, E)
        probability = ops.softmax(score, axis=-1)
        best, chosen = ops.top_k(score, self.chosen)
        picked = ops.one_hot(chosen, len(self.experts), dtype="float32")  # (B, T, C, E)
        if self.chosen == 1:  # its probability among all, or the router would not learn (Fedus et al. 2022)
            weight = probability * picked[:, :, 0]
        else:
            weight = ops.sum(ops.softmax(best, axis=-1)[..., None] * picked, axis=2)
        found = sum(
            ops.cast(expert(inputs), "float32") * weight[..., place : place + 1]
            for place, expert in enumerate(self.experts)
        )
        # E * sum of (share of tokens whose first choice is e) * (mean probability of e): Fedus et al. 2022, eq. 4 to 6.
        counts = ops.cast(real, "float32")[..., None]
        total = ops.maximum(ops.sum(counts), 1.0)
        share, mean = (ops.sum(each * counts, axis=(0, 1)) / total for each in (picked[:, :, 0], probability))
        return ops.cast(found, inputs.dtype), len(self.experts) * ops.sum(share * mean)


def sinusoidal_table(length: int, width: int) -> np.ndarray:
    """The fixed table of "Attention Is All You Need", section 3.5: (length, width) float32."""
    angle = np.arange(length, dtype=np.float64)[:, None] / 10000.0 ** (np.arange(0, width, 2, dtype=np.float64) / width)
    table = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(length, -1)
    return table[:, :width].astype(np.float32)


@keras.saving.register_keras_serializable(PACKAGE)
class PositionTable(Part):
    """Adds a vector for each position: sinusoidal, learned or random (fixed) ones. (B, T, D) -> (B, T, D).

    While learning, documents start at a place drawn from 0 to `shift` (SHAPE, Kiyono et al. 2021).
    """

    def __init__(self, kind: str, length: int, width: int, start: int = 0, shift: int = 0, **more: Any) -> None:
        super().__init__(kind=kind, length=length, width=width, start=start, shift=shift, **more)
        self.kind, self.start, self.shift = kind, start, shift
        self.width, number = width, length + start + shift
        self.chance = keras.random.SeedGenerator()
        self.table: Any = None
        if kind == "learned":
            self.table = self.rows(number, width)
        elif kind == "random":
            self.fixed = (0.1 * np.random.default_rng(0).standard_normal((number, width))).astype(np.float32)
        else:
            self.fixed = sinusoidal_table(number, width)

    def build(self, input_shape: Any = None) -> None:
        if self.table is not None:
            self.table.build()

    def call(self, inputs: Tensor, position: Tensor, training: bool | None = None) -> Tensor:
        """`position` (B, T)"""
        position = position + self.start
        if self.shift and training:
            rows = (ops.shape(inputs)[0], 1)
            position = position + keras.random.randint(rows, 0, self.shift + 1, dtype="int32", seed=self.chance)
        if self.table is not None:
            return inputs + self.table(position)
        added = ops.take(ops.convert_to_tensor(self.fixed, dtype=inputs.dtype), position, axis=0)
        return (inputs * self.width**0.5 if self.kind == "sinusoidal" else inputs) + added


class Rotary:
    """The angles of rotary positions (Su et al. 2021, section 3.2), half-split: channel i is paired with i + K/2 and
    turns by position / base^(2i/K). `rotary_stretch` makes the slowest pair turn so many times slower (NTK-aware)."""

    def __init__(self, config: TransformerConfig, base: float) -> None:
        width = config.turned_width
        if config.rotary_stretch > 1 and width > 2:
            base *= config.rotary_stretch ** (width / (width - 2))
        half = np.arange(0, width, 2, dtype=np.float64) / width
        angle = np.arange(config.max_length, dtype=np.float64)[:, None] / base**half
        # The sign of the turn is folded into the sine: x * cos + swapped(x) * sin.
        self.cosine = np.concatenate([np.cos(angle), np.cos(angle)], axis=-1).astype(np.float32)
        self.sine = np.concatenate([-np.sin(angle), np.sin(angle)], axis=-1).astype(np.float32)

    def at(self, position: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines of the positions (B, T): (B, T, 1, K) each."""
        tables = (ops.convert_to_tensor(table, dtype=dtype) for table in (self.cosine, self.sine))
        cosine, sine = (ops.take(table, position, axis=0)[:, :, None] for table in tables)
        return cosine, sine


def turned(x: Tensor, angles: tuple[Tensor, Tensor] | None) -> Tensor:
    """The first channels of (B, T, H, K), as many as there are angles for, turned by their position's angle."""
    if angles is None:
        return x
    width = angles[0].shape[-1]
    near, rest = x[..., :width], x[..., width:]
    swapped = ops.concatenate([near[..., width // 2 :], near[..., : width // 2]], axis=-1)
    near = near * angles[0] + swapped * angles[1]
    return near if width == x.shape[-1] else ops.concatenate([near, rest], axis=-1)
