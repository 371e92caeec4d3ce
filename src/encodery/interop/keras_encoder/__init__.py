"""The encoder in Keras 3, on TensorFlow or JAX and without torch: opens a model folder, trains on, writes it back.

    trained = keras_encoder.load("runs/mine")
    trained.model.predict(trained.inputs(["my parcel is lost"]))

The backend is Keras's own choice: the environment variable KERAS_BACKEND, tensorflow or jax, before the first use.
Keras is imported when it is first used; what a folder may hold (options.py) is read without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from encodery.errors import MissingExtra

if TYPE_CHECKING:
    from encodery.interop.keras_encoder.model import EncoderModel
    from encodery.interop.keras_encoder.trained import KerasTrained, from_config, load
    from encodery.interop.keras_encoder.transformer import Transformer

__all__ = ["EncoderModel", "KerasTrained", "Transformer", "from_config", "load"]

_PLACES = {
    "EncoderModel": "encodery.interop.keras_encoder.model",
    "KerasTrained": "encodery.interop.keras_encoder.trained",
    "Transformer": "encodery.interop.keras_encoder.transformer",
    "from_config": "encodery.interop.keras_encoder.trained",
    "load": "encodery.interop.keras_encoder.trained",
}


def __getattr__(name: str) -> Any:
    """The public names, each from its file. Raises MissingExtra where Keras or its backend is not installed."""
    if name not in _PLACES:
        raise AttributeError(f"module 'encodery.interop.keras_encoder' has no attribute {name!r}")
    try:
        import_module("keras")
    except ModuleNotFoundError as missing:
        absent = (missing.name or "keras").split(".")[0]
        backend = "jax" if absent == "jax" else "tensorflow"
        raise MissingExtra(absent, f"keras,{backend}", "the Keras encoder") from missing
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
