"""Checkpoints that survive a kill, a full disk and a bad sector: written beside, hashed, synced, renamed.

`step-00001234/` holds `tensors.safetensors`, `state.json`, further files, and `MANIFEST.json` (written last)
with the size and SHA-256 of each. Nothing is pickled. A folder counts only when its manifest verifies.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

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
from encodery.errors import TrainingError, WeightsError
from encodery.training.state import pack_state, restore_rng, rng_state, unpack_state

__all__ = [
    "Checkpoint",
    "latest_checkpoint",
    "load_checkpoint",
    "pack_state",
    "restore_rng",
    "rng_state",
    "save_checkpoint",
    "unpack_state",
]

manifest_name = "MANIFEST.json"
tensors_name = "tensors.safetensors"
state_name = "state.json"
format_version = 1

_step_name = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that verified, and the damaged newer ones that were passed over for it."""

    path: Path
    step: int
    rejected: list[str] = field(default_factory=list)
    """One line each: `step-00000020/state.json: missing`."""


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    files: Mapping[str, Content] | None = None,
    *,
    keep: int = 2,
) -> Path:
    """Save the state of a run after `step` steps and give the checkpoint's path, `folder/step-00001234`.

    `state` is JSON; `files` are further files by name. Older checkpoints beyond the newest `keep` are removed
    once the new one has been read back and verifies. One process at a time may save into a folder.

    Raises TrainingError when the disk is full or fails: the earlier checkpoints are then as they were.
    """
    if keep < 1 or step < 0:
        raise ValueError(f"keep={keep}, step={step}: a checkpoint is of a step >= 0, and at least one is kept")
    target = folder / f"step-{step:08d}"
    contents: dict[str, Content] = {
        **(files or {}),
        state_name: json.dumps(state, ensure_ascii=False).encode(),
    }
    if len(contents) != len(files or {}) + 1 or {tensors_name, manifest_name} & contents.keys():
        raise ValueError(f"files may not be called {tensors_name}, {state_name} or {manifest_name}")
    try:
        for stale in folder.glob(".tmp-*"):  # left by a run that was killed while it saved
            shutil.rmtree(stale, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        needed = sum(map(size_of, contents.values())) + sum(t.numel() * t.element_size() for t in tensors.values())
        if missing := lacking_space(folder, needed):
            raise OSError(errno.ENOSPC, f"{missing / 1e6:,.0f} MB too little free space")
        with folder_beside(folder, str(step)) as beside:
            contents[tensors_name] = save(separate(tensors))
            extra = {"format": format_version, "step": step}
            fill_folder(beside, contents, extra, manifest_name)
            if wrong := _wrong_with(beside, step):
                raise OSError(errno.EIO, "what was written does not read back: " + "; ".join(wrong))
            _put(beside, target)
    except (OSError, SafetensorError) as error:
        raise _not_saved(folder, step, error) from error
    # The new one is safe; an old one that resists removal is tried again next time.
    with contextlib.suppress(OSError):
        _prune(folder, step, keep)
    return target


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies, with what is wrong with newer ones; None if there is none at all.

    Raises WeightsError when there are checkpoints and every one is damaged.
    """
    rejected: list[str] = []
    for step, path in _steps(folder):
        wrong = _wrong_with(path, step)
        if not wrong:
            return Checkpoint(path, step, rejected)
        rejected.extend(f"{path.name}/{line}" for line in wrong)
    if not rejected:
        return None
    raise WeightsError(
        f"every checkpoint in {folder} is damaged\n  " + "\n  ".join(rejected),
        fix="restore one from a copy, or remove the folder and start the run again",
    )


def load_checkpoint(source: Path | Checkpoint) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the state of a checkpoint.

    A path is verified first, a `Checkpoint` has been. Raises WeightsError when it is damaged.
    """
    path = source if isinstance(source, Path) else source.path
    if isinstance(source, Path):
        match = _step_name.fullmatch(path.name)
        if wrong := _wrong_with(path, int(match[1]) if match else None):
            fix = "use another checkpoint: `resume` takes the newest one that is whole"
            raise WeightsError(f"the checkpoint {path} is damaged: " + "; ".join(wrong), fix=fix)
    return load_file(path / tensors_name), json.loads((path / state_name).read_bytes())


def _steps(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a folder, newest first."""
    entries = folder.iterdir() if folder.is_dir() else ()
    named = [(match, path) for path in entries if (match := _step_name.fullmatch(path.name)) and path.is_dir()]
    return sorted(((int(match[1]), path) for match, path in named), reverse=True)


def _wrong_with(path: Path, step: int | None) -> list[str]:
    """What is wrong with a checkpoint, `file: why`; empty when it is whole."""
    try:
        manifest = read_manifest(path / manifest_name)
    except ValueError as error:
        return [str(error)]
    if manifest.get("format") != format_version:
        return [f"{manifest_name}: format {manifest.get('format')!r}, this version reads {format_version}"]
    if step is not None and manifest.get("step") != step:
        return [f"{manifest_name}: of step {manifest.get('step')!r}, the folder says {step}"]
    unlisted = [name for name in (tensors_name, state_name) if name not in manifest["files"]]
    return [f"{manifest_name}: does not list {name}" for name in unlisted] + damaged(path, manifest)


def _put(beside: Path, target: Path) -> None:
    """Rename into place. One of the same step steps aside first, and is removed when the new one stands."""
    if target.exists():
        old = target.with_name(f"{beside.name}-old")
        target.rename(old)
        beside.rename(target)
        sync_folder(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    else:
        beside.rename(target)
        sync_folder(target.parent)


def _prune(folder: Path, newest: int, keep: int) -> None:
    older = [path for step, path in _steps(folder) if step < newest]
    # The run was resumed from before a damaged later one; a good later one was put there by a person.
    later = [path for step, path in _steps(folder) if step > newest and _wrong_with(path, step)]
    for path in older[keep - 1 :] + later:
        # First out of the name, so that a kill in the middle leaves no half checkpoint.
        gone = path.rename(path.with_name(f".tmp-{path.name}"))
        shutil.rmtree(gone, ignore_errors=True)


def _not_saved(folder: Path, step: int, error: Exception) -> TrainingError:
    number = error.errno if isinstance(error, OSError) else None
    what = (error.strerror if isinstance(error, OSError) else None) or str(error)
    full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    fix = (
        "free space on this disk, keep fewer checkpoints, or move the run's folder; then `resume`"
        if full
        else "check that the folder is writable and the disk is sound; then `resume`"
    )
    found = [f"step {number}" for number, _ in _steps(folder)] if folder.is_dir() else []
    kept = f"earlier checkpoints are untouched: {', '.join(found)}" if found else "there is no earlier checkpoint"
    return TrainingError(f"the checkpoint of step {step} was not saved in {folder}: {what}; {kept}", fix=fix)
