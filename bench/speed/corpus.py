"""Texts and tokenizer of the speed comparison: real, ragged documents of agnews, sst2 and wikitext2."""

from __future__ import annotations

import json
import random
from pathlib import Path


def documents(data: Path, number: int | None = None) -> list[str]:
    """News, film reviews and Wikipedia paragraphs, shuffled by a fixed seed; the first `number` of them."""
    texts: list[str] = []
    for line in (data / "agnews" / "train.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        texts.append(f"{row['title']} {row['text']}")
    for line in (data / "sst2" / "train.jsonl").read_text(encoding="utf-8").splitlines():
        texts.append(json.loads(line)["text"])
    for part in ("valid", "test"):
        lines = (data / "wikitext2" / f"{part}.txt").read_text(encoding="utf-8").splitlines()
        texts += [line.strip() for line in lines if len(line) > 40 and not line.strip().startswith("=")]
    random.Random(0).shuffle(texts)
    return texts[:number]


def prepare(data: Path, folder: Path, vocab_size: int = 8192) -> None:
    """Write texts.jsonl and tokenizer.json into `folder`, unless they are there."""
    if (folder / "tokenizer.json").exists():
        return
    from encodery.data.tokenizers import TokenizerConfig, train_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    texts = documents(data)
    with (folder / "texts.jsonl").open("w", encoding="utf-8") as out:
        out.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    train_tokenizer(texts, TokenizerConfig(kind="wordpiece", vocab_size=vocab_size), seed=1).save(
        folder / "tokenizer.json"
    )
