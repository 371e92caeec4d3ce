"""A trained model on disk: config, weights, tokenizer, card and metrics, replaced as a whole or not at all.

    config.json  model.safetensors  tokenizer.json  knowledge.json  card.md  metrics.json  manifest.json

Replacing: the new files are written to a hidden folder inside, synced, and that folder is renamed to
`.incoming`: from this moment the new model counts. Then its files move out one by one, the manifest last. A
reader looks into `.incoming` first, so that it finds one whole model at every moment, also after a kill in
between. Other files of the folder (checkpoints, journal) are not touched.

Weights are tensors of torch, or numpy arrays; for these torch is never imported.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from encodery.durable import (
    Content,
    damaged,
    fill_folder,
    folder_beside,
    lacking_space,
    read_manifest,
    separate,
    size_of,
    sync_folder,
)
from encodery.errors import WeightsError, nearest

format_version = 1
config_name, weights_name, tokenizer_name = "config.json", "model.safetensors", "tokenizer.json"
card_name, metrics_name, manifest_name = "card.md", "metrics.json", "manifest.json"
knowledge_name = "knowledge.json"
known_names = (config_name, weights_name, tokenizer_name, knowledge_name, card_name, metrics_name)
incoming_name = ".incoming"
most_listed = 10  # tensors of one sort named in a message

restore = "take the folder from a copy, or train or export the model again"

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BundleFiles:
    """What a model folder holds, checked and read."""

    config: dict[str, Any]
    weights: dict[str, Any]
    tokenizer_json: str | None
    metrics: dict[str, Any]
    knowledge_json: str | None = None


def write_bundle(
    folder: Path,
    *,
    config: Mapping[str, Any],
    weights: Mapping[str, Any],
    tokenizer_json: str | None,
    card: str,
    metrics: Mapping[str, Any],
    knowledge_json: str | None = None,
) -> None:
    """Write a model folder, or replace the model in one; other files in it stay. All weights are tensors of torch, or
    all are numpy arrays.

    Raises WeightsError when the disk is full or fails: a model that was there before is still there, whole.
    """
    if "format" in config:
        raise ValueError("'format' is the name under which config.json says its own version")
    contents: dict[str, Content] = {
        config_name: _json_text({"format": format_version, **config}),
        weights_name: _packed(weights),
        metrics_name: _json_text(metrics),
    }
    if tokenizer_json is not None:
        contents[tokenizer_name] = tokenizer_json.encode()
    if knowledge_json is not None:
        contents[knowledge_name] = knowledge_json.encode()
    contents[card_name] = card.encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _finish(folder)
        for stale in folder.glob(".tmp-bundle-*"):  # left by a writer that was killed
            shutil.rmtree(stale, ignore_errors=True)
        if missing := lacking_space(folder, sum(map(size_of, contents.values()))):
            raise OSError(errno.ENOSPC, f"{missing / 1e6:,.0f} MB too little free space")
        with folder_beside(folder, "bundle") as beside:
            fill_folder(beside, contents, {"format": format_version}, manifest_name)
            beside.rename(folder / incoming_name)
        sync_folder(folder)
        _finish(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise WeightsError(
            f"the model could not be written to {folder}: {error.strerror or error}",
            fix="free space, or name a folder on another disk; the model that was there before is untouched",
        ) from error


def _packed(weights: Mapping[str, Any]) -> bytes:
    """The bytes of a safetensors file; the same file whoever made the tensors."""
    said = {"format": "pt"}
    if all(isinstance(value, np.ndarray) for value in weights.values()):
        return safetensors.numpy.save(dict(weights), metadata=said)
    from safetensors.torch import save  # only here: a model folder is written and read without torch, too

    return save(separate(weights), metadata=said)


def _json_text(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _finish(folder: Path) -> None:
    """Move the files of `.incoming` into place, also those that a killed writer left there; manifest last."""
    incoming = folder / incoming_name
    if not incoming.is_dir():
        return
    manifest = incoming / manifest_name
    if manifest.exists():
        files = _manifest_of(folder)["files"]
        for name in known_names:
            if (incoming / name).exists():
                (incoming / name).replace(folder / name)
            elif name not in files:
                (folder / name).unlink(missing_ok=True)  # the old model had a tokenizer, the new one has none
        sync_folder(folder)
        manifest.replace(folder / manifest_name)
        sync_folder(folder)
    shutil.rmtree(incoming)


def read_bundle(
    folder: Path, *, known_keys: Collection[str] | None = None, tensors: Literal["pt", "np"] = "pt"
) -> BundleFiles:
    """Read a model folder, every file checked against the manifest (the card may be edited).

    `known_keys`: the names that may stand at the top of config.json. `tensors`: weights as tensors of torch (pt) or as
    numpy arrays (np). Raises WeightsError that says which file is missing, cut off or altered, or that the folder comes
    from a newer version.
    """
    manifest = _manifest_of(folder)
    files = manifest["files"]
    places = {name: _place(folder, name) for name in files}
    wrong: list[str] = []
    for name in (name for name in known_names if name in files and name != card_name):
        wrong += damaged(places[name].parent, {"files": {name: files[name]}})
    wrong += [f"{name}: missing" for name in (config_name, weights_name, metrics_name) if name not in files]
    wrong += [f"{name}: a file that this version does not know" for name in files if name not in known_names]
    if wrong:
        raise WeightsError(f"the model folder {folder} is damaged\n  " + "\n  ".join(wrong), fix=restore)
    config = _read_json(places[config_name])
    _check_format(places[config_name], config.pop("format", None))
    unknown = [key for key in config if known_keys is not None and key not in known_keys]
    if unknown and known_keys is not None:
        named = ", ".join(f"'{key}'{nearest(key, known_keys)}" for key in unknown)
        raise WeightsError(
            f"{places[config_name]}: unknown keys: {named}",
            expected=f"only {', '.join(known_keys)}",
            fix="it may come from a newer version: pip install -U encodery",
        )
    try:
        with safe_open(places[weights_name], framework=tensors) as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(f"{places[weights_name]}: not a safetensors file ({error})", fix=restore) from None
    text, known = (
        places[name].read_text(encoding="utf-8") if name in files else None for name in (tokenizer_name, knowledge_name)
    )
    return BundleFiles(config, weights, text, _read_json(places[metrics_name]), known)


def _place(folder: Path, name: str) -> Path:
    coming = folder / incoming_name / name
    return coming if coming.exists() else folder / name


def _manifest_of(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise WeightsError(f"the model folder {folder} {what}", fix="name a folder that training wrote")
    path = _place(folder, manifest_name)
    if not path.exists():
        found = [name for name in known_names if (folder / name).exists()]
        if not found:
            others = ", ".join(sorted(entry.name for entry in folder.iterdir())[:most_listed]) or "nothing"
            expected = f"a folder with {config_name}, {weights_name} and {manifest_name}"
            fix = "name a folder that training wrote"
            raise WeightsError(f"{folder} is not a model folder: it holds {others}", expected=expected, fix=fix)
    try:
        manifest = read_manifest(path)
    except ValueError as error:
        raise WeightsError(f"the model folder {folder} is damaged\n  {error}", fix=restore) from None
    _check_format(path, manifest.get("format"))
    return manifest


def _check_format(path: Path, found: object) -> None:
    if isinstance(found, int) and found > format_version:
        raise WeightsError(
            f"{path}: written by a newer version (format {found})",
            expected=f"format {format_version} or older",
            fix="pip install -U encodery",
        )
    if found != format_version:
        raise WeightsError(f"{path}: format {found!r}", expected=f"format {format_version}", fix=restore)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise WeightsError(f"{path}: not JSON ({error})", fix=restore) from None
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: holds a {type(value).__name__}", expected="an object {...}", fix=restore)
    return value


def check_fit(expected: Mapping[str, Sequence[int]], found: Mapping[str, Any]) -> None:
    """Compare the tensors a model has with those of a file (or their shapes), by name and shape.

    Raises WeightsError that lists what is missing, what is unexpected and what has another shape, at most ten
    of each.
    """
    shapes: dict[str, Shape] = {n: tuple(getattr(t, "shape", t)) for n, t in found.items()}
    wanted: dict[str, Shape] = {name: tuple(shape) for name, shape in expected.items()}
    missing = [f"{name} {list(shape)}" for name, shape in wanted.items() if name not in shapes]
    unexpected = [f"{name} {list(shape)}" for name, shape in shapes.items() if name not in wanted]
    other = [
        f"{name}: the model has {list(shape)}, the file {list(shapes[name])}"
        for name, shape in wanted.items()
        if name in shapes and shapes[name] != shape
    ]
    sorts = {"missing in the file": missing, "unexpected in the file": unexpected, "of another shape": other}
    lines = [f"  {_listed(sort, entries)}" for sort, entries in sorts.items() if entries]
    if lines:
        fix = "use the config.json the weights were saved with; depth, width and vocabulary must be the same"
        raise WeightsError("the weights do not fit the model\n" + "\n".join(lines), fix=fix)


def _listed(sort: str, entries: list[str]) -> str:
    more = f"; and {len(entries) - most_listed} more" if len(entries) > most_listed else ""
    return f"{len(entries)} {sort}: {'; '.join(entries[:most_listed])}{more}"
