"""Make data with choices and with ordered labels from sets that have none: python bench/quality/make_choices.py FOLDER.

choices/ (of scitldr): which of four one-sentence summaries belongs to this abstract? The three others are those of
the same split whose words are most like the right one's (cosine of TF-IDF): the subject alone does not give it away.
stars/ (of stsb_en): how alike are two sentences, from 0 to 5? The mean of the raters, rounded.

$ENCODERY_DATA names the folder of the data sets. The same rows come out every time.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

OTHERS = 3
SPLITS = {"train": "train", "dev": "validation", "test": "test"}


def choices(rows: list[dict], vectorizer: TfidfVectorizer) -> list[dict]:
    """Every abstract with four summaries; where the right one stands follows from a hash of the abstract."""
    right = [row["target"][0] for row in rows]
    vectors = vectorizer.transform(right)
    likeness = (vectors @ vectors.T).toarray()
    found = []
    for number, row in enumerate(rows):
        same = np.array([text == right[number] for text in right])
        order = np.argsort(-np.where(same, -1.0, likeness[number]), kind="stable")
        options = [right[other] for other in order[:OTHERS].tolist()]
        text = " ".join(row["source"])
        place = hashlib.blake2b(text.encode(), digest_size=4).digest()[0] % (OTHERS + 1)
        options.insert(place, right[number])
        found.append({"text": text, "choices": options, "label": place})
    return found


def stars(rows: list[dict]) -> list[dict]:
    """Pairs with the rounded mean of their ratings."""
    return [{"a": row["text_a"], "b": row["text_b"], "stars": int(float(row["label"]) + 0.5)} for row in rows]


def read(folder: Path, split: str) -> list[dict]:
    lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{path}: {len(rows):,} rows")


def main() -> None:
    if len(sys.argv) != 2 or "ENCODERY_DATA" not in os.environ:
        raise SystemExit(f"{__doc__}\nGive one folder to write to, and set ENCODERY_DATA.")
    data, folder = Path(os.environ["ENCODERY_DATA"]), Path(sys.argv[1])
    summaries = [row["target"][0] for row in read(data / "scitldr", "train")]
    vectorizer = TfidfVectorizer(sublinear_tf=True).fit(summaries)
    for split, name in SPLITS.items():
        write(folder / "choices" / f"{name}.jsonl", choices(read(data / "scitldr", split), vectorizer))
        write(folder / "stars" / f"{name}.jsonl", stars(read(data / "stsb_en", split)))


if __name__ == "__main__":
    main()
