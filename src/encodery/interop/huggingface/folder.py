"""The files of a Hugging Face folder, local or fetched from the Hub: JSON and safetensors, whole or in shards."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from encodery.durable import folder_beside, lacking_space, sync_folder, write_synced
from encodery.errors import MissingExtra, WeightsError

FETCHED = ("*.json", "*.safetensors", "vocab.txt", "merges.txt", "*.model")
"""What is fetched from the Hub: nothing that could run."""
NOT_FETCHED = ("onnx/*", "openvino/*", "checkpoint-*", "*.msgpack")
_HUB_NAME = re.compile(r"(hub:)?[\w-][\w.-]*(/[\w-][\w.-]*)?")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def opened(given: str | Path) -> Path:
    """The folder of this name; when there is none, the model of this name is fetched from the Hub.

    Raises WeightsError when there is neither, MissingExtra when the package that fetches is not installed.
    """
    name = str(given)
    folder = Path(given)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise WeightsError(f"{folder} is a file", expected="a folder as `save_pretrained` writes it")
    if not _HUB_NAME.fullmatch(name):
        raise WeightsError(f"there is no folder {folder}", expected="a folder, or a name of the Hub: owner/model")
    return _fetched(name.removeprefix("hub:"))


def _fetched(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise MissingExtra(
            "huggingface_hub", "hub", f"there is no folder {name}, and fetching it from the Hub"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(FETCHED), ignore_patterns=list(NOT_FETCHED)))
    except HfHubHTTPError as problem:
        status = getattr(problem.response, "status_code", "no answer")
        raise WeightsError(
            f"there is no folder {name}, and the Hub does not give a model of this name ({status})",
            expected="a folder, or the name of a model that is open to you: owner/model",
            fix="check the name; for a closed model log in first: hf auth login",
        ) from problem
    except (OSError, ValueError) as problem:
        # Without a network the library raises errors of several kinds, all of them of these two.
        raise WeightsError(
            f"there is no folder {name}, and it could not be fetched from the Hub: {str(problem).splitlines()[0]}",
            fix=f"check the network, or fetch it elsewhere and copy it here: hf download {name} --local-dir FOLDER",
        ) from problem


def read_json(file: Path) -> Any:
    """Raises WeightsError when the file is missing or is no JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"no file {file}", expected="a folder as `save_pretrained` writes it") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise WeightsError(f"{file} cannot be read: {problem}", fix="copy the file from its source") from problem


def read_object(file: Path) -> dict[str, Any]:
    """A file that holds one JSON object."""
    found = read_json(file)
    if not isinstance(found, dict):
        raise WeightsError(f"{file} holds a {type(found).__name__}", expected="an object {...}")
    return found


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of model.safetensors, or of the shards that model.safetensors.index.json lists.

    Raises WeightsError when there are none, when there are only pickles, or when a file is missing or damaged.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists():
        found = _read_safetensors(folder / "model.safetensors")
    elif index.exists():
        found = _read_shards(folder, index)
    else:
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        if not pickles:
            raise WeightsError(f"{folder} has no model.safetensors", fix="copy the file from its source")
        raise WeightsError(
            f"{folder} has no model.safetensors, only {', '.join(pickles[:5])}",
            expected="safetensors: files of pickle can run code, and are not read",
            fix="if you trust their maker, write them anew with transformers: "
            f"AutoModel.from_pretrained({str(folder)!r}).save_pretrained(OTHER_FOLDER)",
        )
    return {_renamed(name): value for name, value in found.items()}


def _renamed(name: str) -> str:
    """The first BERT called the two weights of a norm gamma and beta."""
    for old, new in ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _read_shards(folder: Path, index: Path) -> dict[str, Tensor]:
    where = read_object(index).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
        raise WeightsError(f"{index} has no weight_map", fix="copy the file from its source")
    files = sorted(set(where.values()))
    outside = [file for file in files if Path(file).name != file]
    if outside:
        raise WeightsError(f"{index} names files outside of its folder: {', '.join(outside[:5])}")
    missing = [file for file in files if not (folder / file).exists()]
    if missing:
        raise WeightsError(
            f"{folder} lacks {len(missing)} of {len(files)} shards: {', '.join(missing[:5])}",
            fix="copy the files from their source",
        )
    found: dict[str, Tensor] = {}
    for file in files:
        found |= _read_safetensors(folder / file)
    lost = sorted(set(where) - set(found))
    if lost:
        raise WeightsError(f"{index} names weights that no shard holds: {', '.join(lost[:5])}")
    return found


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except SafetensorError as problem:
        raise WeightsError(f"{file} is damaged: {problem}", fix="copy the file from its source") from problem


def json_bytes(value: Any) -> bytes:
    """A JSON file's content."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder: it is there whole or not at all. Raises WeightsError when one with files is in its place."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WeightsError(f"{folder} is there already", fix="name a new folder, or remove this one")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if missing := lacking_space(folder.parent, sum(map(len, files.values()))):
            raise OSError(0, f"{missing / 1e6:,.0f} MB too little free space")
        with folder_beside(folder.parent, "huggingface") as beside:
            for name, content in files.items():
                write_synced(beside / name, content)
            sync_folder(beside)
            if folder.exists():
                folder.rmdir()
            beside.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise WeightsError(
            f"the model could not be written to {folder}: {error.strerror or error}",
            fix="free space, or name a folder on another disk",
        ) from error
