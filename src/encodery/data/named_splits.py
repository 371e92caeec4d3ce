"""Which of a person's files are learned from and which are kept apart, told by the names of files and folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from encodery.data.places import HUB, suffix_format
from encodery.data.sources import SourceConfig, Split, sample_rows
from encodery.errors import DataError

_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "dev": "validation",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_ORDER: tuple[Split, ...] = ("train", "validation", "test")
_LOOKED_AT_FILES = 50


@dataclass
class Splits:
    """Paths by split; `found` are those that the person did not name: they lie beside what was named, or in it."""

    files: dict[str, list[str]]
    found: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def keep_usable(self, columns: Iterable[str]) -> None:
        """Leave out what was found and lacks one of these columns, as test files of competitions lack their labels."""
        needed = list(columns)
        for split in ("validation", "test"):
            for path in [path for path in self.files.get(split, []) if path in self.found]:
                lacking = _lacking(path, needed)
                if lacking:
                    self.files[split].remove(path)
                    self.found.remove(path)
                    self.notes.append(f"{path} is not used: {lacking}")
        self.files = {split: paths for split, paths in self.files.items() if paths}
        if self.found:
            self.notes.append(f"kept apart by their names: {', '.join(self.found)}")


def splits_of(files: Sequence[str]) -> Splits:
    """Of several files, those named after a split become it. One folder may hold splits, and one file whose name says
    `train` may have others beside it. Raises DataError when none of several files is to be learned from."""
    if len(files) == 1:
        return _of_one(files[0])
    found: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for file in files:
        found[_split_named(Path(file).name) or "train"].append(file)
    if not found["train"]:
        raise DataError("every file is named as a test or validation file", expected="at least one file to train on")
    return Splits({split: paths for split, paths in found.items() if paths})


def _of_one(given: str) -> Splits:
    path = Path(given).expanduser()
    if given.startswith(HUB):
        return Splits({"train": [given]})
    if path.is_dir():
        entries = [entry for entry in _inside(path) if entry.is_dir() or suffix_format(entry) is not None]
        held = {entry: _split_named(entry.name) for entry in entries}
        if "train" in held.values() and len(set(held.values()) - {None}) > 1:
            files: dict[str, list[str]] = {}
            for entry in entries:
                files.setdefault(held[entry] or "", []).append(str(Path(given) / entry.name))
            others = files.pop("", [])
            notes = [f"not named after a split and not used: {', '.join(others)}"] if others else []
            files = {split: files[split] for split in _ORDER if split in files}
            return Splits(files, [one for split in files if split != "train" for one in files[split]], notes)
    elif path.is_file() and _split_named(path.name) == "train":
        files = {"train": [given]}
        for entry in _inside(path.parent):
            split = _split_named(entry.name)
            alike = entry.suffixes == path.suffixes and _without_split(entry.name) == _without_split(path.name)
            if split not in (None, "train") and alike and entry.is_file():
                files.setdefault(split, []).append(str(Path(given).parent / entry.name))
        files = {split: files[split] for split in _ORDER if split in files}
        return Splits(files, [one for split in files if split != "train" for one in files[split]])
    return Splits({"train": [given]})


def holds_labels(path: str) -> bool:
    """Whether this is a folder of folders of texts, each named by the label of its texts (`format: folder`)."""
    folder = Path(path).expanduser()
    if path.startswith(HUB) or not folder.is_dir():
        return False
    labels = [entry for entry in _inside(folder) if entry.is_dir()]
    return len(labels) > 1 and all(map(_holds_texts, labels)) and not any(map(_is_table, _inside(folder)))


def _holds_texts(folder: Path) -> bool:
    entries = _inside(folder)[:_LOOKED_AT_FILES]
    return bool(entries) and all(entry.is_file() and suffix_format(entry) in ("text", None) for entry in entries)


def _is_table(file: Path) -> bool:
    return file.is_file() and suffix_format(file) not in ("text", None)


def _inside(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z]+", name.lower()) if word]


def _split_named(name: str) -> Split | None:
    splits: set[Split] = {_NAMES[word] for word in _words(name) if word in _NAMES}
    # A name such as train_test.csv says nothing.
    return splits.pop() if len(splits) == 1 else None


def _without_split(name: str) -> list[str]:
    return [word for word in _words(name) if word not in _NAMES]


def _lacking(path: str, needed: Sequence[str]) -> str:
    try:
        seen = sample_rows(SourceConfig(path=path, format="folder" if holds_labels(path) else "auto"), base=Path())
    except DataError as error:
        return error.given
    missing = [name for name in needed if name not in seen.columns]
    return f"it has no column {', '.join(missing)}" if missing else ""
