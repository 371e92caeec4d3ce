"""The weights of a Keras encoder under the names and in the shapes that they have in model.safetensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras  # pyright: ignore[reportMissingImports]
import numpy as np

from encodery.bundle import check_fit


class Weight(NamedTuple):
    """A Keras variable, and whether the file has it the other way round: Dense keeps (inputs, outputs), the file
    (outputs, inputs)."""

    variable: Any
    turned: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape in the file."""
        shape = tuple(self.variable.shape)
        return shape[::-1] if self.turned else shape

    def read(self) -> np.ndarray:
        """Its numbers, as the file has them, in float32."""
        found = np.asarray(self.variable.numpy(), dtype=np.float32)
        return np.ascontiguousarray(found.T if self.turned else found)

    def write(self, value: np.ndarray) -> None:
        self.variable.assign(value.T if self.turned else value)


def named_weights(layer: keras.layers.Layer, before: str = "") -> Iterator[tuple[str, Weight]]:
    """Every weight of a model and its name in the file, `encoder.blocks.0.attention.qkv.weight`: the names of the
    attributes, which are those of the torch side."""
    if isinstance(layer, keras.layers.Dense):
        yield f"{before}weight", Weight(layer.kernel, turned=True)
        if layer.use_bias:
            yield f"{before}bias", Weight(layer.bias)
        return
    if isinstance(layer, keras.layers.Embedding):
        yield f"{before}weight", Weight(layer.embeddings)
        return
    own = {id(variable) for variable in layer.variables}  # told by identity: their class has changed between versions
    for name, value in vars(layer).items():
        if name.startswith("_"):
            continue
        if id(value) in own:
            yield f"{before}{name}", Weight(value)
        elif isinstance(value, keras.layers.Layer):
            yield from named_weights(value, f"{before}{name}.")
        elif isinstance(value, list):
            for number, part in enumerate(value):
                if isinstance(part, keras.layers.Layer):
                    yield from named_weights(part, f"{before}{name}.{number}.")


def set_weights(model: keras.layers.Layer, weights: Mapping[str, Any], *, drawn: str | None = None) -> None:
    """Copy weights of a model folder into a model; those whose names begin with `drawn` stay as they are. Raises
    WeightsError that lists what is missing, unexpected or of another shape."""
    own = {name: weight for name, weight in named_weights(model) if drawn is None or not name.startswith(drawn)}
    check_fit({name: weight.shape for name, weight in own.items()}, weights)
    for name, weight in own.items():
        weight.write(np.asarray(weights[name], dtype=np.float32))


def get_weights(model: keras.layers.Layer) -> dict[str, np.ndarray]:
    """The weights of a model by their names in a model folder."""
    return {name: weight.read() for name, weight in named_weights(model)}
