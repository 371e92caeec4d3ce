"""A model folder of ours -> a folder that other programs open, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encodery.errors import DataError, nearest
from encodery.trained import Trained

FORMATS = ("onnx", "huggingface")


def export(model: str | Path, to: str, output: str | Path, *, texts: Sequence[str] = (), **options: Any) -> list[str]:
    """Write the model of a folder as `to` (onnx or huggingface) into the new folder `output`; what to tell about it.

    `options` and `texts` are those of `write_onnx`. Raises DataError for what is asked wrongly and for a folder in use,
    WeightsError for a model folder that is none, and for a model that the format cannot hold exactly.
    """
    folder = Path(output)
    if to not in FORMATS:
        raise DataError(f"--to {to}{nearest(to, FORMATS)}", expected=f"one of {', '.join(FORMATS)}")
    asked = [name for name, value in {**options, "texts": texts}.items() if value and value != "model"]
    if to != "onnx" and asked:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise DataError(f"{named} with --to {to}", expected=f"{named} with --to onnx alone")
    check_free(folder)
    trained = Trained.load(Path(model))
    if to == "onnx":
        from encodery.interop.onnx import write_onnx

        return write_onnx(trained, folder, texts=texts, **options)
    from encodery.interop.huggingface import write_huggingface

    notes: list[str] = []
    family = write_huggingface(trained, folder, notes.append)
    told = [f"worth knowing: {note}" for note in notes]
    return [f"huggingface: {folder} ({family})", *told, f"how to use it: {folder / 'README.md'}"]


def check_free(folder: Path) -> None:
    """Raise DataError where a folder cannot be written because something is there."""
    if folder.is_dir():
        held = sorted(entry.name for entry in folder.iterdir())
        if held:
            raise DataError(
                f"the folder {folder} is in use: it holds {', '.join(held[:5])}{' ...' if len(held) > 5 else ''}",
                expected="a folder that does not exist yet, or an empty one",
                fix="name another one with --output, or remove what is there",
            )
    elif folder.exists():
        raise DataError(f"--output {folder} is a file", expected="the name of a folder to write")
