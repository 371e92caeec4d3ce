"""Files that are either whole or absent: written beside, hashed, synced to the disk, and only then renamed.

A folder is described by a manifest with the size and the SHA-256 of each of its files. The manifest is
written last, so a folder with a manifest that verifies is a folder that was finished.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from torch import Tensor

chunk = 1 << 20  # bytes read at once while hashing or copying
reserve = 16 << 20  # bytes left free beside what a save needs: the journal and the system go on writing

Content = bytes | Path
"""What a file is made of: its bytes, or a file to copy."""


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(chunk):
            digest.update(block)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder last through a power cut, where the system can sync a folder."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open a folder
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def write_synced(path: Path, content: Content) -> dict[str, Any]:
    """Write a new file, wait until it is on the disk, and give its manifest entry: size and SHA-256.

    The hash is of the bytes that were meant to be written, so that a disk that stores others is found out.
    """
    digest, size = hashlib.sha256(), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        for block in _blocks(content):
            digest.update(block)
            size += len(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return {"size": size, "sha256": digest.hexdigest()}


def _blocks(content: Content) -> Iterator[bytes]:
    if isinstance(content, Path):
        with content.open("rb") as file:
            while block := file.read(chunk):
                yield block
    else:
        yield content


def separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, no two in one memory: safetensors refuses tied weights and views otherwise."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        memory = plain.untyped_storage().data_ptr()
        found[name] = plain.clone() if memory in taken else plain
        taken.add(memory)
    return found


def size_of(content: Content) -> int:
    """Bytes that a file's content will take."""
    return content.stat().st_size if isinstance(content, Path) else len(content)


def lacking_space(folder: Path, needed: int) -> int:
    """Bytes that are missing on the disk of `folder` before `needed` more fit; 0 when they do."""
    return max(0, needed + reserve - shutil.disk_usage(folder).free)


@contextmanager
def folder_beside(parent: Path, label: str) -> Iterator[Path]:
    """A new hidden folder in `parent`, removed with all it holds unless the block renamed it away."""
    parent.mkdir(parents=True, exist_ok=True)
    beside = parent / f".tmp-{label}-{secrets.token_hex(4)}"
    beside.mkdir()
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside, to write in; it takes its name at the end of the block, synced, or is gone. `folder` must
    not exist, or be empty."""
    with folder_beside(folder.parent, folder.name) as beside:
        yield beside
        for path in [path for path in beside.rglob("*") if path.is_file()]:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        for path in [path for path in beside.rglob("*") if path.is_dir()]:
            sync_folder(path)
        sync_folder(beside)
        beside.rename(folder)
        sync_folder(folder.parent)


def fill_folder(folder: Path, files: Mapping[str, Content], extra: Mapping[str, Any], manifest_name: str) -> None:
    """Write every file, then the manifest: {**extra, "files": {name: {size, sha256}}}. All of it synced."""
    entries = {name: write_synced(folder / name, content) for name, content in files.items()}
    manifest = json.dumps({**extra, "files": entries}, indent=1, ensure_ascii=False)
    write_synced(folder / manifest_name, manifest.encode())
    sync_folder(folder)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest. Raises ValueError, saying what is wrong, when it is missing or is not a manifest."""
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{path.name}: missing") from None
    except OSError as error:
        raise ValueError(f"{path.name}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise ValueError(f"{path.name}: not JSON, it was cut off or altered") from None
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not all(
        isinstance(entry, dict) and {"size", "sha256"} <= entry.keys() for entry in files.values()
    ):
        raise ValueError(f"{path.name}: not a manifest, it was altered")
    return manifest


def damaged(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What is wrong with the files a manifest lists, `name: why` (missing, size, hash); empty if nothing."""
    found: list[str] = []
    for name, entry in manifest["files"].items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != entry["size"]:
                found.append(f"{name}: size {size} bytes, the manifest says {entry['size']}")
            elif sha256_of(path) != entry["sha256"]:
                found.append(f"{name}: hash differs from the manifest, the file was altered")
        except FileNotFoundError:
            found.append(f"{name}: missing")
        except OSError as error:
            found.append(f"{name}: cannot be read ({error.strerror})")
    return found


@contextmanager
def file_beside(path: Path) -> Iterator[BinaryIO]:
    """A new file to write in parts; it takes the place of `path` at the end of the block, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".tmp-{path.name}-{secrets.token_hex(4)}")
    try:
        with beside.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def replace_file(path: Path, content: Content) -> None:
    """Put a new file in the place of an old one: whoever opens it finds the old one or the new one, whole."""
    beside = path.with_name(f".tmp-{path.name}-{secrets.token_hex(4)}")
    try:
        write_synced(beside, content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)
