"""Make pairs of texts that say the same from sets that are no such pairs: python bench/quality/make_pairs.py FOLDER.

pairs/: a word of WordNet and its definition (wn18rr), an English caption and the German and the French one of the same
picture (multi30k, training rows), the headline and the text of a piece of news (agnews, training rows), the title and
the first sentences of an abstract (scitldr, training rows). Two English words that are translated alike, or defined
alike, come close to each other by it. One pair in a hundred, by a hash, is kept apart for validation.

$ENCODERY_DATA names the folder of the data sets. The same rows come out every time.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

FIRST_SENTENCES = 4
Pair = tuple[str, str]


def definitions(file: Path) -> Iterator[Pair]:
    """The name and the definition of each entity."""
    for line in file.read_text(encoding="utf-8").splitlines():
        name, _, meaning = line.partition("\t")[2].partition(", ")
        yield name, meaning


def rows(file: Path) -> Iterator[dict]:
    for line in file.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def pairs(data: Path) -> Iterator[Pair]:
    """All of them; some of the texts are empty."""
    yield from definitions(data / "wn18rr" / "entity2text.txt")
    for row in rows(data / "multi30k" / "train.jsonl"):
        yield row["en"], row["de"]
        yield row["en"], row["fr"]
    for row in rows(data / "agnews" / "train.jsonl"):
        yield row["title"], row["text"]
    for row in rows(data / "scitldr" / "train.jsonl"):
        yield row["title"], " ".join(row["source"][:FIRST_SENTENCES])


def main() -> None:
    if len(sys.argv) != 2 or "ENCODERY_DATA" not in os.environ:
        raise SystemExit(f"{__doc__}\nGive one folder to write to, and set ENCODERY_DATA.")
    digests = {pair: hashlib.blake2b("\n".join(pair).encode(), digest_size=8).digest() for pair in _all()}
    folder = Path(sys.argv[1]) / "pairs"
    folder.mkdir(parents=True, exist_ok=True)
    # In the order of the digests, so that the kinds are mixed.
    ordered = sorted(digests, key=digests.__getitem__)
    held = [pair for pair in ordered if digests[pair][-1] % 100 == 0]
    for name, some in (("validation", held), ("train", [pair for pair in ordered if digests[pair][-1] % 100])):
        lines = [json.dumps({"text": one, "other": other}, ensure_ascii=False) for one, other in some]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{folder / name}.jsonl: {len(some):,} rows")


def _all() -> Iterator[Pair]:
    for one, other in pairs(Path(os.environ["ENCODERY_DATA"])):
        if one.strip() and other.strip():
            yield one, other


if __name__ == "__main__":
    main()
