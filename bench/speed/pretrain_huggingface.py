"""Contender: masked-word pretraining with the Hugging Face Trainer, in the ways its users run it. Prints one JSON line.

lines: one text a row, padded to the longest of its random batch (run_mlm with --line_by_line). groups: texts joined and
cut into blocks of 128, so that texts see each other (the default of run_mlm). buckets: one text a row, batches of
similar lengths, padded to a multiple of 8.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import chain

import torch
from huggingface import (
    BLOCK,
    Clock,
    Counting,
    common_arguments,
    framed,
    read_texts,
    read_tokenizer,
    sizes,
    training_arguments,
)
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedTokenizerFast,
    Trainer,
)


def rows_of(tokenizer: PreTrainedTokenizerFast, texts: list[str], way: str) -> list[list[int]]:
    if way != "groups":
        return framed(tokenizer, texts)
    rows = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    joined = list(chain.from_iterable([tokenizer.cls_token_id, *row, tokenizer.sep_token_id] for row in rows))
    return [joined[at : at + BLOCK] for at in range(0, len(joined) - BLOCK, BLOCK)]


def model_of(tokenizer: PreTrainedTokenizerFast, asked: argparse.Namespace) -> torch.nn.Module:
    if asked.model == "bert":
        return BertForMaskedLM(BertConfig(**sizes(tokenizer, asked)))
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "cls", "sep")}
    special |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    return ModernBertForMaskedLM(ModernBertConfig(**sizes(tokenizer, asked), **special))


def main() -> None:
    parser = argparse.ArgumentParser()
    common_arguments(parser)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--warm", type=float, default=10)
    parser.add_argument("--way", choices=["lines", "groups", "buckets"], default="lines")
    parser.add_argument("--model", choices=["bert", "modernbert"], default="bert")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    tokenizer = read_tokenizer(asked.work)
    rows = rows_of(tokenizer, read_texts(asked.work), asked.way)
    dataset = [{"input_ids": row, "attention_mask": [1] * len(row), "length": len(row)} for row in rows]
    multiple = 8 if asked.way == "buckets" else None
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, pad_to_multiple_of=multiple)
    counting = Counting(collate)
    clock = Clock(counting, asked.warm, asked.seconds)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            model=model_of(tokenizer, asked),
            args=training_arguments(asked, folder, by_length=asked.way == "buckets", epochs=100),
            train_dataset=dataset,  # pyright: ignore[reportArgumentType]  (a list of rows is what it takes)
            data_collator=counting,
            callbacks=[clock],
        ).train()
    print(json.dumps(clock.answer()))


if __name__ == "__main__":
    main()
