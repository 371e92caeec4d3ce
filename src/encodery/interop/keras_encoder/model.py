"""A whole model in Keras: token ids and a mask in; words, labels or vectors out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import keras  # pyright: ignore[reportMissingImports]
from keras import ops  # pyright: ignore[reportMissingImports]

from encodery.bricks.choices import PoolingName
from encodery.errors import DataError
from encodery.frontends.options import TextConfig
from encodery.heads.options import DocumentReadoutConfig, VectorReadoutConfig, WordReadoutConfig
from encodery.interop.keras_encoder.layers import PACKAGE, Drawn, Norm, Part, Tensor, activated, weights_follow
from encodery.interop.keras_encoder.options import KerasModelConfig, read_config
from encodery.interop.keras_encoder.transformer import Transformer
from encodery.interop.keras_encoder.weights import set_weights

DENSE_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    **{name: functools.partial(activated, name) for name in ("relu", "gelu", "silu")},
}
Inputs = Mapping[str, Tensor] | Tensor
"""Token ids (B, T), or a dictionary of `ids`, and of `mask` and `segments` (B, T) where they are known."""


class Given(NamedTuple):
    """Inputs of a model: token ids, the mask, and the number of the text of a pair that each token belongs to."""

    ids: Tensor
    mask: Tensor
    segments: Tensor | None


@keras.saving.register_keras_serializable(PACKAGE)
class TextEmbedding(Part):
    """`words[id] + segments[segment]`: (B, T) -> (B, T, E)."""

    def __init__(self, config: dict[str, Any] | TextConfig, width: int, **more: Any) -> None:
        config = TextConfig.model_validate(config)
        super().__init__(config=config.model_dump(mode="json"), width=width, **more)
        self.width = config.width or width
        assert config.vocab_size is not None, "vocab_size must be known before the model is built"
        self.words = self.rows(config.vocab_size, self.width, config.embedding_std)
        self.segments: Any = None
        if config.segments:
            self.segments = keras.layers.Embedding(
                config.segments, self.width, embeddings_initializer="zeros", dtype=self.dtype_policy
            )

    def build(self, input_shape: Any = None) -> None:
        self.words.build()
        if self.segments is not None:
            self.segments.build()

    def call(self, inputs: Tensor, segments: Tensor = None) -> Tensor:
        x = self.words(inputs)
        if self.segments is None:
            return x
        number = ops.zeros_like(inputs) if segments is None else segments
        return x + self.segments(ops.minimum(number, self.segments.input_dim - 1))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape, self.width)


@keras.saving.register_keras_serializable(PACKAGE)
class Pooling(Part):
    """Vectors (B, T, D) and a mask -> one vector a document (B, D): first, mean, weighted (the i-th token counts i
    times; Muennighoff 2022), max, or attention, an average weighted by a learned score (Yang et al. 2016, HAN,
    equations 5 to 7, without its hidden layer). Zeros for rows of padding.
    """

    def __init__(self, kind: PoolingName, width: int, **more: Any) -> None:
        super().__init__(kind=kind, width=width, **more)
        self.kind, self.width = kind, width
        self.score = self.linear(1) if kind == "attention" else None

    def build(self, input_shape: Any = None) -> None:
        if self.score is not None:
            self.score.build((None, None, self.width))

    def call(self, inputs: Tensor, mask: Tensor = None) -> Tensor:
        x = ops.cast(inputs, "float32")
        real = ops.ones(ops.shape(x)[:2], dtype="bool") if mask is None else ops.cast(mask, "bool")
        counts = ops.cast(real, "float32")[..., None]
        if self.kind == "first":
            index = ops.argmax(ops.cast(real, "int32"), axis=1)[:, None, None]
            return ops.take_along_axis(x * counts, index, axis=1)[:, 0]
        if self.kind == "max":
            found = ops.max(ops.where(real[..., None], x, -float("inf")), axis=1)
            return ops.where(ops.any(real, axis=1, keepdims=True), found, 0.0)
        if self.kind == "weighted":
            counts = counts * ops.cumsum(counts, axis=1)
        if self.score is not None:
            score = ops.where(real[..., None], ops.cast(self.score(inputs), "float32"), -1e30)
            counts = counts * ops.softmax(score, axis=1)
        return ops.sum(x * counts, axis=1) / ops.maximum(ops.sum(counts, axis=1), 1e-12)

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor = None) -> None:
        return None

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], input_shape[-1])


@keras.saving.register_keras_serializable(PACKAGE)
class WordReadout(Part):
    """Vectors (B, T, D) and the table of words (V, E) -> logits over the vocabulary (B, T, V) (Devlin et al. 2019,
    section 3.1)."""

    def __init__(
        self, config: dict[str, Any] | WordReadoutConfig, width: int, word_width: int, vocab_size: int, **more: Any
    ) -> None:
        config = WordReadoutConfig.model_validate(config)
        given = {"width": width, "word_width": word_width, "vocab_size": vocab_size}
        super().__init__(config=config.model_dump(mode="json"), **given, **more)
        self.options, self.width, self.sizes = config, width, (vocab_size, word_width)
        self.transform = self.linear(word_width, bias=config.bias)
        self.norm = Norm("layernorm", word_width, config.norm_epsilon, config.bias, dtype=self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        self.transform.build((None, None, self.width))
        self.norm.build()
        self.bias = self.add_weight(name="bias", shape=self.sizes[:1], initializer="zeros")
        self.words = None
        if not self.options.tied:
            self.words = self.add_weight(name="words", shape=self.sizes, initializer=Drawn(stddev=0.02))

    def call(self, inputs: Tensor, table: Tensor) -> Tensor:
        x = self.norm(activated(self.options.activation, self.transform(inputs)))
        matrix = table if self.words is None else self.words
        return ops.matmul(x, ops.transpose(ops.cast(matrix, x.dtype))) + ops.cast(self.bias, x.dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class DocumentReadout(Part):
    """Vectors (B, T, D) and a mask -> logits (B, C), in float32."""

    def __init__(self, config: dict[str, Any] | DocumentReadoutConfig, width: int, **more: Any) -> None:
        config = DocumentReadoutConfig.model_validate(config)
        super().__init__(config=config.model_dump(mode="json"), width=width, **more)
        self.options, self.width = config, width
        self.chance = keras.random.SeedGenerator()
        self.pooling = Pooling(config.pooling, width, dtype=self.dtype_policy)
        self.hidden = self.linear(width, dtype="float32") if config.hidden else None
        self.answer = self.linear(config.outputs, dtype="float32")

    def build(self, input_shape: Any = None) -> None:
        self.pooling.build()
        for layer in (self.hidden, self.answer):
            if layer is not None:
                layer.build((None, self.width))

    def call(self, inputs: Tensor, mask: Tensor = None, training: bool | None = None) -> Tensor:
        x = self.pooling(inputs, mask=mask)
        if self.hidden is not None:
            x = ops.tanh(self.hidden(x))
        if training and self.options.drop_rate:
            x = keras.random.dropout(x, self.options.drop_rate, seed=self.chance)
        return self.answer(x)

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor = None) -> None:
        return None


@keras.saving.register_keras_serializable(PACKAGE)
class VectorReadout(Part):
    """Vectors (B, T, D) and a mask -> one vector a document: pooled, then through the linear layers of `dense`, of
    length 1 when `normalise`. (B, D) or (B, outputs)."""

    def __init__(self, config: dict[str, Any] | VectorReadoutConfig, width: int, **more: Any) -> None:
        config = VectorReadoutConfig.model_validate(config)
        super().__init__(config=config.model_dump(mode="json"), width=width, **more)
        self.options, self.widths = config, [width, *(layer.outputs for layer in config.dense)]
        self.pooling = Pooling(config.pooling, width, dtype=self.dtype_policy)
        self.dense = [self.linear(layer.outputs, bias=layer.bias, dtype="float32") for layer in config.dense]

    def build(self, input_shape: Any = None) -> None:
        self.pooling.build()
        for layer, width in zip(self.dense, self.widths):
            layer.build((None, width))

    def call(self, inputs: Tensor, mask: Tensor = None) -> Tensor:
        x = self.pooling(inputs, mask=mask)
        for layer, options in zip(self.dense, self.options.dense):
            x = DENSE_ACTIVATIONS[options.activation](layer(x))
        if not self.options.normalise:
            return x
        return x / ops.maximum(ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True)), 1e-12)

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor = None) -> None:
        return None


@keras.saving.register_keras_serializable(PACKAGE)
class EncoderModel(keras.Model):
    """Frontend, Transformer and readout: what the readout says, or without one the vectors in context (B, T, D).

    Called with token ids (B, T), or with {"ids": ..., "mask": ..., "segments": ...}; `mask` is True for real tokens,
    and without it those are meant that are not `pad_id`. What has a place for each token carries the mask on, so that
    layers and losses behind it leave padding out.

    `weights` are those of a model folder by name; without them all are drawn (keras.utils.set_random_seed), and with a
    `new_readout` those of the readout.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | KerasModelConfig,
        pad_id: int = 0,
        *,
        weights: Mapping[str, Any] | None = None,
        new_readout: bool = False,
        dtype: Any = None,
        **more: Any,
    ) -> None:
        super().__init__(dtype=dtype, **more)
        self.options, self.pad_id = read_config(config), pad_id
        self.supports_masking = True
        encoder, readout, dtype = self.options.encoder, self.options.readout, self.dtype_policy
        self.frontend = TextEmbedding(self.options.frontend, encoder.width, dtype=dtype)
        self.encoder = Transformer(encoder, self.frontend.width, dtype=dtype)
        self.readout: Any = None
        if isinstance(readout, WordReadoutConfig):
            words = self.frontend.words.input_dim
            self.readout = WordReadout(readout, encoder.width, self.frontend.width, words, dtype=dtype)
        elif isinstance(readout, DocumentReadoutConfig):
            self.readout = DocumentReadout(readout, encoder.width, dtype=dtype)
        elif isinstance(readout, VectorReadoutConfig):
            self.readout = VectorReadout(readout, encoder.width, dtype=dtype)
        with nullcontext() if weights is None else weights_follow():
            self.frontend.build()
            self.encoder.build()
            if not new_readout:
                self._build_readout()
        self.build()
        if weights is not None:
            set_weights(self, weights, drawn="readout." if new_readout else None)

    def build(self, input_shape: Any = None) -> None:
        """All shapes are known from the config: a model is built when it is made."""
        self._build_readout()

    def _build_readout(self) -> None:
        if self.readout is not None and not self.readout.built:
            self.readout.build()

    def call(self, inputs: Inputs, training: bool | None = None, mask: Tensor = None) -> Tensor:
        given = self._given(inputs, mask)
        states = self._states(given, training)
        if self.readout is None:
            return states
        if isinstance(self.readout, WordReadout):
            return self.readout(states, table=self.frontend.words.embeddings)
        return self.readout(states, mask=given.mask)

    def encode(self, inputs: Inputs, training: bool = False) -> Tensor:
        """Vectors in context, before any readout: (B, T, D)."""
        return self._states(self._given(inputs), training)

    def compute_mask(self, inputs: Inputs, previous_mask: Tensor = None) -> Tensor:
        if self.readout is not None and not isinstance(self.readout, WordReadout):
            return None
        return self._given(inputs, previous_mask).mask

    def compute_output_shape(self, input_shape: Any) -> Any:
        rows = input_shape["ids"] if isinstance(input_shape, Mapping) else input_shape
        readout, width = self.options.readout, self.options.encoder.width
        if isinstance(readout, WordReadoutConfig):
            return (*rows, self.options.frontend.vocab_size)
        if isinstance(readout, DocumentReadoutConfig):
            return (rows[0], readout.outputs)
        return (*rows, width) if readout is None else (rows[0], self.readout.widths[-1])

    def get_config(self) -> dict[str, Any]:
        given = {"config": self.options.model_dump(mode="json"), "pad_id": self.pad_id}
        return {**given, "name": self.name, "dtype": keras.dtype_policies.serialize(self.dtype_policy)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> EncoderModel:
        del custom_objects
        return cls(**config)

    def _given(self, inputs: Inputs, handed_on: Any = None) -> Given:
        """What came in, checked. The mask is the one among the inputs, else the one that layers before `handed_on`,
        else what is not padding."""
        named = dict(inputs) if isinstance(inputs, Mapping) else {"ids": inputs}
        if "ids" not in named or set(named) - set(Given._fields):
            raise DataError(
                f"the model was given {', '.join(map(str, named)) or 'nothing'}",
                expected="ids, and mask and segments where they are known",
            )
        ids, mask = named["ids"], named.get("mask")
        longest, length = self.options.encoder.max_length, ids.shape[1]
        if isinstance(length, int) and length > longest:
            raise DataError(
                f"the rows are {length} tokens long",
                expected=f"at most {longest}, the model's max_length",
                fix="cut or split the texts: `inputs` of a loaded model cuts them",
            )
        if mask is None:
            mask = handed_on.get("ids") if isinstance(handed_on, Mapping) else handed_on
        mask = ops.not_equal(ids, self.pad_id) if mask is None else ops.cast(mask, "bool")
        return Given(ids, mask, named.get("segments"))

    def _states(self, given: Given, training: bool | None) -> Tensor:
        vectors = self.frontend(given.ids, segments=given.segments)
        return self.encoder(vectors, mask=given.mask, training=training)
