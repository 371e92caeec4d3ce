"""Contender: a classifier fine-tuned from random weights with the Hugging Face Trainer. Prints one JSON line.

random: batches of random rows padded to their longest, fp32, as documented. buckets: batches of similar lengths, padded
to a multiple of 8.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from huggingface import (
    Clock,
    Counting,
    common_arguments,
    framed,
    read_tokenizer,
    sizes,
    training_arguments,
)
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
)


def rows_of(file: Path, name: str) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [(f"{row['title']} {row['text']}" if name == "agnews" else row["text"], str(row["label"])) for row in rows]


def dataset(tokenizer: PreTrainedTokenizerFast, rows: list[tuple[str, str]], labels: list[str]) -> list[dict[str, Any]]:
    ids = framed(tokenizer, [text for text, _ in rows])
    return [
        {"input_ids": row, "attention_mask": [1] * len(row), "labels": labels.index(label), "length": len(row)}
        for row, (_, label) in zip(ids, rows)
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    common_arguments(parser)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--name", choices=["sst2", "agnews"], default="sst2")
    parser.add_argument("--epochs", type=float, help="train so long and score; else --seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--warm", type=float, default=6, help="seconds at the start that do not count")
    parser.add_argument("--way", choices=["random", "buckets"], default="random")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(asked.seed)
    tokenizer = read_tokenizer(asked.work)
    train = rows_of(asked.data / asked.name / "train.jsonl", asked.name)
    dev = rows_of(asked.data / asked.name / "dev.jsonl", asked.name)
    labels = sorted({label for _, label in train})
    config = BertConfig(**sizes(tokenizer, asked), num_labels=len(labels))
    multiple = 8 if asked.way == "buckets" else None
    counting = Counting(DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple))
    clock = Clock(counting, 0.0, None) if asked.epochs else Clock(counting, asked.warm, asked.seconds)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=BertForSequenceClassification(config),
            args=training_arguments(
                asked, folder, by_length=asked.way == "buckets", epochs=asked.epochs or 100, seed=asked.seed
            ),
            train_dataset=dataset(tokenizer, train, labels),  # pyright: ignore[reportArgumentType]
            data_collator=counting,
            callbacks=[clock],
        )
        trainer.train()
        answer = clock.answer()
        if asked.epochs:
            found = trainer.predict(dataset(tokenizer, dev, labels))  # pyright: ignore[reportArgumentType]
            answer["accuracy"] = float((found.predictions.argmax(1) == found.label_ids).mean())
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
