"""Contender: a classifier fine-tuned from random weights with the Hugging Face Trainer. Prints one JSON line.

random: batches of random rows padded to their longest, fp32, as documented. buckets: batches of similar lengths, padded
to a multiple of 8.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

BLOCK = 128


def rows_of(file: Path, name: str) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [(f"{row['title']} {row['text']}" if name == "agnews" else row["text"], str(row["label"])) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--name", choices=["sst2", "agnews"], default="sst2")
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--way", choices=["random", "buckets"], default="random")
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="sdpa")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(asked.threads)
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        DataCollatorWithPadding,
        PreTrainedTokenizerFast,
        Trainer,
        TrainingArguments,
    )

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(asked.work / "tokenizer.json"),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    train = rows_of(asked.data / asked.name / "train.jsonl", asked.name)
    dev = rows_of(asked.data / asked.name / "dev.jsonl", asked.name)
    labels = sorted({label for _, label in train})
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id

    def dataset(rows: list[tuple[str, str]]) -> list[dict[str, Any]]:
        ids = tokenizer([text for text, _ in rows], add_special_tokens=False)["input_ids"]
        framed = [[cls, *row[: BLOCK - 2], sep] for row in ids]
        return [
            {"input_ids": row, "attention_mask": [1] * len(row), "labels": labels.index(label), "length": len(row)}
            for row, (_, label) in zip(framed, rows)
        ]

    known, held = dataset(train), dataset(dev)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=BLOCK,
        num_labels=len(labels),
        attn_implementation=asked.attention,
    )
    model = BertForSequenceClassification(config)
    pad = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8 if asked.way == "buckets" else None)

    def collate(samples: list[dict[str, Any]]) -> Any:
        return pad([{k: v for k, v in sample.items() if k != "length"} for sample in samples])

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=asked.batch,
            per_device_eval_batch_size=64,
            num_train_epochs=asked.epochs,
            learning_rate=5e-4,
            use_cpu=True,
            bf16=asked.precision == "bf16",
            train_sampling_strategy="group_by_length" if asked.way == "buckets" else "random",
            torch_compile=asked.compile,
            report_to=[],
            save_strategy="no",
            logging_steps=10_000,
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=known, data_collator=collate)
        begin = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - begin
        found = trainer.predict(held)
    right = float((found.predictions.argmax(1) == found.label_ids).mean())
    tokens = sum(row["length"] for row in known) * asked.epochs
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"tokens": tokens, "seconds": seconds, "accuracy": right, "peak_mb": peak}))


if __name__ == "__main__":
    main()
