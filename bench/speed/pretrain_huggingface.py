"""Contender: masked-word pretraining with the Hugging Face Trainer, in the ways its users run it. Prints one JSON line.

lines: one text a row, padded to the longest of its random batch (run_mlm with --line_by_line). groups: texts joined and
cut into blocks of 128, so that texts see each other (the default of run_mlm). buckets: one text a row, batches of
similar lengths, padded to a multiple of 8.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

BLOCK = 128


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--warm", type=float, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--way", choices=["lines", "groups", "buckets"], default="lines")
    parser.add_argument("--model", choices=["bert", "modernbert"], default="bert")
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="sdpa")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(asked.threads)
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        ModernBertConfig,
        ModernBertForMaskedLM,
        PreTrainedTokenizerFast,
        Trainer,
        TrainerCallback,
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
    lines = (asked.work / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    ids = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    if asked.way == "groups":
        joined = list(chain.from_iterable([cls, *row, sep] for row in ids))
        rows = [joined[at : at + BLOCK] for at in range(0, len(joined) - BLOCK, BLOCK)]
    else:
        rows = [[cls, *row[: BLOCK - 2], sep] for row in ids]
    dataset = [{"input_ids": row, "attention_mask": [1] * len(row), "length": len(row)} for row in rows]
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "attn_implementation": asked.attention,
    }
    if asked.model == "bert":
        model = BertForMaskedLM(BertConfig(max_position_embeddings=BLOCK, **sizes))
    else:
        special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "cls_token_id", "sep_token_id")}
        special |= {"bos_token_id": cls, "eos_token_id": sep}
        model = ModernBertForMaskedLM(ModernBertConfig(max_position_embeddings=BLOCK, **sizes, **special))
    multiple = 8 if asked.way == "buckets" else None
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, pad_to_multiple_of=multiple)
    counts = {"tokens": 0, "positions": 0}

    def counted(samples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = collate([{k: v for k, v in sample.items() if k != "length"} for sample in samples])
        counts["tokens"] += int(batch["attention_mask"].sum())
        counts["positions"] += batch["attention_mask"].numel()
        return batch

    class Clock(TrainerCallback):
        begin: float | None = None
        found: dict[str, Any] | None = None

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
            now = time.perf_counter()
            if self.begin is None:
                self.begin = now
            if self.found is None and now - self.begin >= asked.warm:
                self.start, self.found, self.steps = now, dict(counts), state.global_step
            elif self.found is not None and now - self.start >= asked.seconds:
                self.tokens = counts["tokens"] - self.found["tokens"]
                self.positions = counts["positions"] - self.found["positions"]
                self.passed, self.steps = now - self.start, state.global_step - self.steps
                control.should_training_stop = True
            return control

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=asked.batch,
            num_train_epochs=100,
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
        Trainer(model=model, args=arguments, train_dataset=dataset, data_collator=counted, callbacks=[clock]).train()
    answer = {
        "tokens": clock.tokens,
        "seconds": clock.passed,
        "steps": clock.steps,
        "padding": 1 - clock.tokens / clock.positions,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
