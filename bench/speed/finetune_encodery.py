"""Contender: a classifier fine-tuned from random weights with `encodery.train`. Prints one JSON line."""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path

from pretrain_encodery import first_step_at, wait_share

RECIPE = """\
name: speed
seed: {seed}
output: {output}/run
cache: {work}/cache
data:
  train: {data}/{name}/train.jsonl
  validation: {data}/{name}/dev.jsonl
  test: {data}/{name}/dev.jsonl
  text: {text}
  label: label
tokenizer: {{path: {work}/tokenizer.json}}
encoder: {{width: 256, depth: 6, heads: 4, max_length: 128, drop_rate: 0.1, attention_drop_rate: 0.1}}
frontend: {{start: random}}
objective: {{kind: classify}}
training: {{budget: {budget}, batch_tokens: {batch_tokens}, validations: 1, optim: {{lr: 5e-4}}}}
evaluation: {{compare: []}}
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--name", choices=["sst2", "agnews"], default="sst2")
    parser.add_argument("--epochs", type=float, help="train so long and score; else --seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--warm", type=float, default=6, help="seconds at the start that do not count")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(asked.threads)
    import encodery
    from encodery.model import cost_table

    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        budget = f"{asked.epochs} epochs" if asked.epochs else f"{asked.seconds + asked.warm}s"
        values = {**vars(asked), "output": folder, "text": "[title, text]" if asked.name == "agnews" else "text"}
        recipe.write_text(RECIPE.format(**values, budget=budget), encoding="utf-8")
        result = encodery.train(recipe)
        journal = (Path(folder) / "run" / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    rows = list(map(json.loads, journal))
    steps = [row for row in rows if row.get("kind") == "step" and (asked.epochs or asked.warm <= row["seconds"])]
    first, last = steps[0], steps[-1]
    length = 60 if asked.name == "agnews" else 25
    answer = {
        "tokens": last["tokens"] - first["tokens"],
        "seconds": last["seconds"] - first["seconds"],
        # Forward and backward, for texts of 25 or 60 tokens, the means of these sets.
        "flops_per_token": 3 * sum(part.flops for part in cost_table(result.trained.model, length=length)),
        "first_step_at": first_step_at(rows),
        "padding": last["padding_share"],
        "wait": wait_share(first, last),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if asked.epochs:
        answer["accuracy"] = result.record.metrics["accuracy"]["value"]
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
