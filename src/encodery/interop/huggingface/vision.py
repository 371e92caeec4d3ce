"""Vision models of Hugging Face <-> ours: read from a folder or the Hub, and written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save

from encodery.durable import separate
from encodery.errors import WeightsError
from encodery.interop.huggingface.families import VISION_FAMILIES
from encodery.interop.huggingface.folder import json_bytes, opened, read_object, read_weights, write_files
from encodery.interop.huggingface.tables import (
    differences,
    parted,
    places,
    read_vision_config,
    unplaced,
    write_config,
)
from encodery.interop.huggingface.weights import prefix_of, weights_of
from encodery.model import VisionModel

PREPROCESSING = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@dataclass
class TrainedVision:
    """A vision model, how its pictures are scaled (the content of preprocessor_config.json), and what is worth knowing
    of where it came from."""

    model: VisionModel
    preprocessing: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_vision(given: str | Path) -> TrainedVision:
    """Read a folder as `save_pretrained` writes it, or the model of this name on the Hub; the family is ViT.

    Raises WeightsError as `read_huggingface` does.
    """
    folder = opened(given)
    sizes = read_object(folder / "config.json")
    name = sizes.get("model_type")
    if name not in VISION_FAMILIES:
        known = ", ".join(VISION_FAMILIES)
        raise WeightsError(f"{folder / 'config.json'}: model_type {name!r}", expected=f"a model of pictures: {known}")
    family = VISION_FAMILIES[name]
    try:
        config = read_vision_config(family, sizes)
    except WeightsError as problem:
        raise WeightsError(f"{folder}: {problem.given}", expected=problem.expected, fix=problem.fix) from None
    theirs = read_weights(folder)
    weights, notes = weights_of(family, sizes, config, theirs, prefix_of(family, theirs, folder))
    model = VisionModel(config)
    model.load_state_dict(weights)
    scaling = folder / "preprocessor_config.json"
    return TrainedVision(model.eval(), read_object(scaling) if scaling.exists() else {}, tuple(notes))


def write_vision(trained: TrainedVision, folder: Path) -> str:
    """Write a new folder that AutoModel opens; returns the family. Raises WeightsError, which names the options that
    stand in the way, when ViT cannot express the encoder."""
    config, (family,) = trained.model.config, VISION_FAMILIES.values()
    wanted = differences(family, config, {})
    if wanted:
        lines = [f"{name}: {ours}, {family.name} has {theirs}" for name, (ours, theirs) in wanted.items()]
        raise WeightsError(f"{family.name} cannot express this encoder; in the way stand\n  " + "\n  ".join(lines))
    sizes = write_config(family, config, {})
    weights = {name: value.detach().cpu().float() for name, value in trained.model.state_dict().items()}
    found = places(family, sizes, config, "")
    if lost := unplaced(found, weights):
        raise WeightsError(f"{family.name} has no place for {', '.join(lost)}")
    theirs = {name: part for place in found for name, part in parted(place, weights[place.ours]).items()}
    size = {"height": config.frontend.height, "width": config.frontend.width}
    files = {
        "config.json": json_bytes(sizes),
        "model.safetensors": save(separate(theirs), metadata={"format": "pt"}),
        "preprocessor_config.json": json_bytes(trained.preprocessing or {**PREPROCESSING, "size": size}),
    }
    write_files(folder, files)
    return family.name
