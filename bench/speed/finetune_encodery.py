"""Contender: a classifier fine-tuned from random weights with `encodery.train`. Prints one JSON line."""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path

RECIPE = """\
name: speed
output: {output}/run
cache: {work}/cache
data: {{train: {data}/{name}/train.jsonl, validation: {data}/{name}/dev.jsonl, text: {text}, label: label}}
tokenizer: {{path: {work}/tokenizer.json}}
encoder: {{width: 256, depth: 6, heads: 4, max_length: 128, drop_rate: 0.1, attention_drop_rate: 0.1}}
frontend: {{start: random}}
objective: {{kind: classify}}
training: {{budget: {epochs} epochs, batch_tokens: {batch_tokens}, validations: 1, optim: {{lr: 5e-4}}}}
evaluation: {{compare: []}}
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--name", choices=["sst2", "agnews"], default="sst2")
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(asked.threads)
    import encodery

    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        values = {**vars(asked), "output": folder, "text": "[title, text]" if asked.name == "agnews" else "text"}
        recipe.write_text(RECIPE.format(**values), encoding="utf-8")
        result = encodery.train(recipe)
        journal = (Path(folder) / "run" / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [row for row in map(json.loads, journal) if row.get("kind") == "step"]
    scores = [row for row in map(json.loads, journal) if row.get("kind") == "score"]
    validation = sum(row.get("validation_seconds", 0.0) for row in scores)
    answer = {
        "tokens": steps[-1]["tokens"],
        "seconds": steps[-1]["seconds"] - validation,
        "accuracy": result.record.metrics["accuracy"]["value"],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
