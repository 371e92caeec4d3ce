"""Contender: masked-word pretraining with `encodery.train`, as a person would run it. Prints one JSON line."""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

RECIPE = """\
name: speed
output: {output}/run
cache: {work}/cache
data: {{train: {work}/texts.jsonl, validation_share: 0.005}}
tokenizer: {{path: {work}/tokenizer.json}}
encoder: {{width: {width}, depth: {depth}, heads: {heads}, max_length: 128, drop_rate: 0.1, attention_drop_rate: 0.1}}
frontend: {{start: random}}
objective: {{kind: masked, share: 0.15}}
training:
  budget: {seconds}s
  batch_tokens: {batch_tokens}
  precision: {precision}
  validations: 0
  optim: {{kind: {optimizer}, lr: 5e-4}}
"""


def first_step_at(journal: list[dict[str, Any]]) -> float:
    """When the first step was done, in seconds of the clock."""
    return next(datetime.fromisoformat(row["time"]).timestamp() for row in journal if row.get("kind") == "step")


def wait_share(first: dict[str, Any], last: dict[str, Any]) -> float:
    """The share of the time between two steps in which the training waited for data."""
    waited = [row["wait_share"] * row["seconds"] for row in (first, last)]
    return (waited[1] - waited[0]) / (last["seconds"] - first["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--warm", type=float, default=10, help="seconds at the start that do not count")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--optimizer", default="adamw")
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(asked.threads)
    import encodery
    from encodery.model import cost_table

    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        values = {**vars(asked), "output": folder, "seconds": asked.seconds + asked.warm}
        recipe.write_text(RECIPE.format(**values), encoding="utf-8")
        result = encodery.train(recipe)
        journal = (Path(folder) / "run" / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    rows = list(map(json.loads, journal))
    steps = [row for row in rows if row.get("kind") == "step"]
    counted = [row for row in steps if row["seconds"] >= asked.warm]
    first, last = counted[0], counted[-1]
    answer = {
        "tokens": last["tokens"] - first["tokens"],
        "seconds": last["seconds"] - first["seconds"],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "loss": last["loss"],
        "steps": last["step"] - first["step"],
        # Forward and backward (three times the forward pass), for documents of 60 tokens, the mean of these texts.
        "flops_per_token": 3 * sum(part.flops for part in cost_table(result.trained.model, length=60)),
        "first_step_at": first_step_at(rows),
        "padding": last["padding_share"],
        "wait": wait_share(first, last),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
