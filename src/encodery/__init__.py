"""Encodery: make your own encoder.

    encodery.train("recipe.yaml")                 raw data to a trained, measured model folder
    encodery.load("runs/name").predict([...])     answers
    encodery.load("runs/name").embed([...])       vectors

The rooms, in the order in which data passes them: data, frontends, encoders, heads, objectives, evaluation,
training, use. Everything is imported when it is first used, so that `import encodery` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encodery.data.tokenizers import Tokenizer
    from encodery.training.start import resume, train
    from encodery.use.predict import Predictor, load

__version__ = "0.1.0"
__all__ = ["Predictor", "Tokenizer", "load", "resume", "train"]

_PLACES = {
    "Predictor": "encodery.use.predict",
    "Tokenizer": "encodery.data.tokenizers",
    "load": "encodery.use.predict",
    "resume": "encodery.training.start",
    "train": "encodery.training.start",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'encodery' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
