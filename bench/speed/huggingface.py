"""What the two Hugging Face contenders share: tokenizer, rows, sizes of the model, arguments and the clock."""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, TrainerCallback, TrainingArguments

BLOCK = 128
Sample = dict[str, Any]


def common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="sdpa")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--heads", type=int, default=4)


def read_tokenizer(work: Path) -> PreTrainedTokenizerFast:
    named = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_file=str(work / "tokenizer.json"), **named)


def framed(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    """[CLS] text [SEP], cut at BLOCK tokens."""
    rows = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return [[tokenizer.cls_token_id, *row[: BLOCK - 2], tokenizer.sep_token_id] for row in rows]


def sizes(tokenizer: PreTrainedTokenizerFast, asked: argparse.Namespace) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": asked.width,
        "num_hidden_layers": asked.depth,
        "num_attention_heads": asked.heads,
        "intermediate_size": 4 * asked.width,
        "max_position_embeddings": BLOCK,
        "attn_implementation": asked.attention,
    }


def training_arguments(
    asked: argparse.Namespace, folder: str, *, by_length: bool, epochs: float, seed: int = 1
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        seed=seed,
        per_device_train_batch_size=asked.batch,
        per_device_eval_batch_size=64,
        num_train_epochs=epochs,
        learning_rate=5e-4,
        use_cpu=not torch.cuda.is_available(),
        bf16=asked.precision == "bf16",
        train_sampling_strategy="group_by_length" if by_length else "random",
        torch_compile=asked.compile,
        report_to=[],
        save_strategy="no",
        logging_steps=10_000,
        disable_tqdm=True,
        remove_unused_columns=False,
    )


class Counting:
    """A collator that counts what it makes: real tokens and positions."""

    def __init__(self, collate: Callable[[list[Sample]], Any]) -> None:
        self.collate = collate
        self.tokens = self.positions = 0

    def __call__(self, samples: list[Sample]) -> Any:
        batch = self.collate([{k: v for k, v in sample.items() if k != "length"} for sample in samples])
        self.tokens += int(batch["attention_mask"].sum())
        self.positions += batch["attention_mask"].numel()
        return batch


class Clock(TrainerCallback):
    """Leaves out the first `warm` seconds after the first step, then measures for `seconds` and stops (None: to the
    end of the training)."""

    def __init__(self, counting: Counting, warm: float, seconds: float | None) -> None:
        self.counting, self.warm, self.limit = counting, warm, seconds
        self.first: float | None = None
        self.first_at = 0.0
        self.start: tuple[float, int, int, int] | None = None
        self.last: tuple[float, int, int, int] | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
        now = time.perf_counter()
        if self.first is None:
            self.first, self.first_at = now, time.time()
        self.last = (now, self.counting.tokens, self.counting.positions, state.global_step)
        if self.start is None:
            if self.warm <= now - self.first:
                self.start = self.last
        elif self.limit is not None and self.limit <= now - self.start[0]:
            control.should_training_stop = True
        return control

    def answer(self) -> dict[str, Any]:
        assert self.start and self.last and self.start is not self.last, "the training was shorter than the warm-up"
        seconds, tokens, positions, steps = (b - a for a, b in zip(self.start, self.last))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        padding = 1 - tokens / positions
        found = {"tokens": tokens, "seconds": seconds, "steps": steps, "padding": padding, "peak_mb": peak}
        return {**found, "first_step_at": self.first_at}


def read_texts(work: Path) -> list[str]:
    return [json.loads(line)["text"] for line in (work / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
