"""Self-attention of the Keras encoder, with every pattern and every kind of position, on padded rows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import keras  # pyright: ignore[reportMissingImports]
import numpy as np
from keras import ops  # pyright: ignore[reportMissingImports]

from encodery.encoders.options import TransformerConfig
from encodery.encoders.pattern_rules import Pattern, drawn
from encodery.interop.keras_encoder.layers import PACKAGE, Norm, Part, Rows, Tensor, turned


class Pass:
    """What all blocks of one forward pass share: the rows, what is known about positions, and the masks made so far."""

    def __init__(
        self,
        config: TransformerConfig,
        rows: Rows,
        chance: keras.random.SeedGenerator,
        angles: tuple[Any, Any] = (None, None),
        distance_bias: Tensor = None,
        distances: Tensor = None,
    ) -> None:
        self.config, self.rows, self.chance = config, rows, chance
        self.angles, self.near_angles = angles
        self.distance_bias, self.distances = distance_bias, distances
        self.balance: list[Tensor] = []
        self._allowed: dict[Pattern, Tensor] = {}

    def allowed(self, pattern: Pattern) -> Tensor:
        """True where a query may look at a key: (B, 1, T, T), made once for each pattern. Every position sees at least
        itself, padding included, so that no softmax is empty."""
        if pattern not in self._allowed:
            real, position, length = self.rows
            itself = ops.eye(ops.shape(real)[1], dtype="bool")
            seen = real[:, None, :] & real[:, :, None]
            if pattern.name != "full":
                seen = seen & self._by_rule(pattern, position[:, :, None], position[:, None, :], length[:, None, None])
            self._allowed[pattern] = (seen | itself)[:, None]
        return self._allowed[pattern]

    def _by_rule(self, pattern: Pattern, query: Tensor, key: Tensor, length: Tensor) -> Tensor:
        seen = replace(pattern, random_blocks=0).allows(query, key, length)
        blocks = -(-self.config.max_length // pattern.block) if pattern.random_blocks else 0
        for number in range(pattern.random_blocks):
            # The rule counts with 64 bits, which a backend may not have: its draws are made beforehand.
            draws = drawn(np.arange(blocks, dtype=np.int64), number).astype(np.int32)  # pyright: ignore
            draw = ops.take(ops.convert_to_tensor(draws), query // pattern.block, axis=0)
            there = (length + (pattern.block - 1)) // pattern.block
            seen = seen | (key // pattern.block == draw % ops.maximum(there, 1))
        return seen


class AdditiveScore(Part):
    """`v . tanh(q + k)` (Bahdanau et al. 2015, appendix A.1.2): (B, H, T, K) twice -> (B, H, T, T)."""

    def __init__(self, heads: int, key_width: int, **more: Any) -> None:
        super().__init__(heads=heads, key_width=key_width, **more)
        self.shape_of = (heads, key_width)

    def build(self, input_shape: Any = None) -> None:
        self.vector = self.add_weight(name="vector", shape=self.shape_of, initializer="ones")

    def call(self, q: Tensor, k: Tensor) -> Tensor:
        together = ops.tanh(q[:, :, :, None, :] + k[:, :, None, :, :])
        return ops.einsum("bhqtk,hk->bhqt", together, ops.cast(self.vector, together.dtype))


@keras.saving.register_keras_serializable(PACKAGE)
class SelfAttention(Part):
    """softmax(score) V, the scores of all pairs at once: (B, T, D) -> (B, T, D)
    ("Attention Is All You Need", section 3.2).

    Local patterns give the same numbers as on the torch side, by masks over all pairs: memory grows with T^2.
    """

    def __init__(self, config: dict[str, Any] | TransformerConfig, outer_std: float = 0.02, **more: Any) -> None:
        config = TransformerConfig.model_validate(config)
        super().__init__(config=config.model_dump(mode="json"), outer_std=outer_std, **more)
        self.options = config
        self.heads, self.kv_heads = config.heads, config.kv_heads or config.heads
        self.key_width = config.key_width
        self.value_width = config.value_width or config.key_width
        self.sizes = (self.heads * self.key_width, self.kv_heads * self.key_width, self.kv_heads * self.value_width)
        self.qkv = self.linear(sum(self.sizes), bias=config.bias)
        self.outer = self.linear(config.width, bias=config.bias, std=outer_std)
        self.query_norm = self.key_norm = self.additive = self.position_keys = self.position_queries = None
        if config.qk_norm:
            kind = "rmsnorm" if config.norm == "rmsnorm" else "layernorm"
            self.query_norm, self.key_norm = (
                Norm(kind, self.key_width, config.norm_epsilon, config.biased_norms, dtype=self.dtype_policy)
                for _ in range(2)
            )
        if config.score == "additive":
            self.additive = AdditiveScore(self.heads, self.key_width, dtype=self.dtype_policy)
        if config.positions == "disentangled" and not config.share_position_keys:
            if "content_position" in config.disentangled:
                self.position_keys = self.linear(self.sizes[0])
            if "position_content" in config.disentangled:
                self.position_queries = self.linear(self.sizes[0])

    def build(self, input_shape: Any = None) -> None:
        entering = (None, None, self.options.width)
        self.qkv.build(entering)
        self.outer.build((None, None, self.heads * self.value_width))
        for layer in (self.position_keys, self.position_queries):
            if layer is not None:
                layer.build(entering)
        for part in (self.query_norm, self.key_norm, self.additive):
            if part is not None:
                part.build()

    def call(self, inputs: Tensor, run: Pass, layer: int = 0, training: bool | None = None) -> Tensor:
        """As part of block number `layer`, counted from 0."""
        config = self.options
        q, k, v = self._queries_keys_values(inputs, run.angles if config.looks_far(layer) else run.near_angles)
        if self.additive is not None:
            scores = self.additive(q, k)
        elif run.distances is not None:
            scores = self._disentangled(q, k, run.distances)
        else:
            scores = _products(q / math.sqrt(self.key_width), k)
        if run.distance_bias is not None:
            scores = scores + ops.cast(run.distance_bias, scores.dtype)
        scores = ops.where(run.allowed(config.pattern_of(layer)), ops.cast(scores, "float32"), -np.inf)
        shares = ops.cast(ops.softmax(scores, axis=-1), v.dtype)
        if training and config.attention_drop_rate:
            shares = keras.random.dropout(shares, config.attention_drop_rate, seed=run.chance)
        mixed = ops.transpose(ops.matmul(shares, v), (0, 2, 1, 3))
        batch, length = ops.shape(inputs)[0], ops.shape(inputs)[1]
        return self.outer(ops.reshape(mixed, (batch, length, self.heads * self.value_width)))

    def _queries_keys_values(self, inputs: Tensor, angles: Any) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> (B, H, T, K), twice, and (B, H, T, value width)"""
        first, second = self.sizes[0], self.sizes[0] + self.sizes[1]
        together = self.qkv(inputs)
        batch, length = ops.shape(inputs)[0], ops.shape(inputs)[1]
        q = ops.reshape(together[..., :first], (batch, length, self.heads, self.key_width))
        k = ops.reshape(together[..., first:second], (batch, length, self.kv_heads, self.key_width))
        v = ops.reshape(together[..., second:], (batch, length, self.kv_heads, self.value_width))
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        q, k = turned(q, angles), turned(k, angles)
        if self.kv_heads != self.heads:  # each head of keys and values serves heads of queries that stand side by side
            k, v = (ops.repeat(x, self.heads // self.kv_heads, axis=2) for x in (k, v))
        if not self.options.score_scale:
            q = q * math.sqrt(self.key_width)
        q, k, v = (ops.transpose(x, (0, 2, 1, 3)) for x in (q, k, v))
        return q, k, v

    def _disentangled(self, q: Tensor, k: Tensor, distances: Tensor) -> Tensor:
        """The product of the contents, and what the positions add (DeBERTa, He et al. 2021, equation 4)."""
        config, found = self.options, _products(q, k)
        length = ops.shape(q)[2]
        bucket = ops.convert_to_tensor(deberta_buckets(config)) + config.relative_buckets
        apart = ops.arange(length)[:, None] - ops.arange(length)[None, :] + (config.max_length - 1)
        bucket = ops.take(bucket, apart, axis=0)  # (T, T) of the distance query - key
        first, second = self.sizes[0], self.sizes[0] + self.sizes[1]
        if "content_position" in config.disentangled:
            as_keys = self._distances_as(self.position_keys, slice(first, second), distances)
            found = found + _picked(_products(q, as_keys), bucket)
        if "position_content" in config.disentangled:
            as_queries = self._distances_as(self.position_queries, slice(0, first), distances)
            by_key = _picked(_products(k, as_queries), ops.transpose(bucket))
            found = found + ops.transpose(by_key, (0, 1, 3, 2))
        return found / math.sqrt(self.key_width * (1 + len(config.disentangled)))

    def _distances_as(self, own: Any, columns: slice, distances: Tensor) -> Tensor:
        """The vectors of the distances (2R, D) as keys or as queries: (1, H, 2R, K)"""
        if own is not None:
            found = own(distances)
        else:
            found = ops.matmul(distances, ops.cast(self.qkv.kernel, distances.dtype)[:, columns])
            if self.qkv.use_bias:
                found = found + ops.cast(self.qkv.bias, found.dtype)[columns]
        found = ops.reshape(found, (2 * self.options.relative_buckets, self.heads, self.key_width))
        return ops.transpose(found, (1, 0, 2))[None]


def _products(q: Tensor, k: Tensor) -> Tensor:
    """(B, H, Q, K) and (B, H, T, K) -> (B, H, Q, T)"""
    return ops.matmul(q, ops.transpose(k, (0, 1, 3, 2)))


def _picked(table: Tensor, index: Tensor) -> Tensor:
    """(B, H, A, 2R) and (A, B) -> (B, H, A, B)"""
    batch, heads, rows = (ops.shape(table)[place] for place in range(3))
    index = ops.broadcast_to(index[None, None], (batch, heads, rows, ops.shape(index)[1]))
    return ops.take_along_axis(table, index, axis=-1)


@keras.saving.register_keras_serializable(PACKAGE)
class DistanceBias(Part):
    """What a score gains or loses by the distance of its key, for each head: positions (B, T) -> (1, H, T, T).

    alibi: a fixed loss, -slope * |distance|, slopes 2^(-8/H), 2^(-16/H), ... (Press et al. 2022, section 3).
    relative: a learned number for each bucket of distances (T5, Raffel et al. 2020, section 2.1).
    """

    def __init__(self, config: dict[str, Any] | TransformerConfig, **more: Any) -> None:
        config = TransformerConfig.model_validate(config)
        super().__init__(config=config.model_dump(mode="json"), **more)
        self.options = config
        self.table: Any = None
        if config.positions == "relative":
            self.table = self.rows(config.relative_buckets, config.heads)

    def build(self, input_shape: Any = None) -> None:
        if self.table is not None:
            self.table.build()

    def call(self, position: Tensor) -> Tensor:
        length = ops.shape(position)[1]
        apart = ops.arange(length)[None, :] - ops.arange(length)[:, None]  # key - query
        if self.table is None:
            slopes = ops.convert_to_tensor(alibi_slopes(self.options.heads))
            return (-slopes[:, None, None] * ops.cast(ops.abs(apart), "float32"))[None]
        bucket = ops.take(
            ops.convert_to_tensor(t5_buckets(self.options)), apart + (self.options.max_length - 1), axis=0
        )
        return ops.transpose(self.table(bucket), (2, 0, 1))[None]


def alibi_slopes(heads: int) -> np.ndarray:
    """(H,); for other numbers than powers of two also every second slope of the next larger power."""
    power = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-8 * (number + 1) / power) for number in range(power)]
    slopes += [2 ** (-4 * (number + 1) / power) for number in range(0, 2 * (heads - power), 2)]
    return np.array(slopes, dtype=np.float32)


def t5_buckets(config: TransformerConfig) -> np.ndarray:
    """The bucket of each distance key - query from 1 - max_length to max_length - 1: (2 * max_length - 1,) int32."""
    distance = np.arange(1 - config.max_length, config.max_length)
    half = config.relative_buckets // 2
    exact, size = half // 2, np.abs(distance)
    share = np.log(np.maximum(size, 1).astype(np.float32) / exact) / math.log(config.relative_reach / exact)
    growing = exact + (share * (half - exact)).astype(np.int64)
    return (np.where(size < exact, size, np.minimum(growing, half - 1)) + half * (distance > 0)).astype(np.int32)


def deberta_buckets(config: TransformerConfig) -> np.ndarray:
    """The bucket, from -R to R - 1, of each distance query - key from 1 - max_length to max_length - 1 (DeBERTa-v3)."""
    buckets, reach = config.relative_buckets, config.relative_reach
    distance = np.arange(1 - config.max_length, config.max_length)
    if reach > buckets:
        middle = buckets // 2
        size = np.where(np.abs(distance) < middle, middle - 1, np.abs(distance))
        whole = np.log(
            np.float32((reach - 1) / middle)
        )  # in float32 as well: at the edge of a bucket the last bit decides
        share = np.log((size / middle).astype(np.float32)) / whole
        growing = np.ceil(share * (middle - 1)) + middle
        distance = np.where(size <= middle, distance, (growing * np.sign(distance)).astype(np.int64))
    return np.clip(distance, -buckets, buckets - 1).astype(np.int32)
