"""Does bf16 learn what float32 learns? python bench/speed/precision.py [--steps 300] [--seeds 3].

The same pretraining, step for step, in float32 and in bf16, with several seeds; the loss on the same held-out masked
words at the end. bf16 is as good when the difference is within the spread of the seeds. Writes PRECISION.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
WORK = Path("runs/speed").resolve()
RECIPE = """\
name: precision
seed: {seed}
output: {folder}/{name}
cache: {work}/cache
data: {{train: {work}/texts.jsonl, validation_share: 0.02}}
tokenizer: {{path: {work}/tokenizer.json}}
encoder: {{width: 256, depth: 3, heads: 4, max_length: 128}}
objective: masked
training:
  budget: {steps} steps
  batch_tokens: 4096
  precision: {precision}
  validations: 1
  optim: {{kind: muon, weight_decay: 0.3}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    sys.path.insert(0, str(HERE))
    from corpus import prepare
    from run import cpu_name  # pyright: ignore[reportAttributeAccessIssue]

    import encodery

    prepare(Path(os.environ["ENCODERY_DATA"]).resolve(), WORK)
    found: dict[str, list[float]] = {"fp32": [], "bf16": []}
    rates: dict[str, list[float]] = {"fp32": [], "bf16": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, asked.seeds + 1):
            for precision, losses in found.items():
                name = f"{precision}-{seed}"
                recipe = Path(folder) / f"{name}.yaml"
                values = {"seed": seed, "precision": precision, "name": name, "steps": asked.steps}
                recipe.write_text(RECIPE.format(**values, folder=folder, work=WORK), encoding="utf-8")
                encodery.train(recipe)
                lines = (Path(folder) / name / "journal.jsonl").read_text(encoding="utf-8").splitlines()
                rows = list(map(json.loads, lines))
                losses.append(next(row["validation_loss"] for row in reversed(rows) if row["kind"] == "validation"))
                rates[precision].append(
                    next(row["tokens_per_second"] for row in reversed(rows) if row["kind"] == "step")
                )
                print(name, losses[-1], rates[precision][-1], flush=True)
    spread = max(statistics.stdev(losses) for losses in found.values())
    difference = statistics.mean(found["bf16"]) - statistics.mean(found["fp32"])
    lines = [
        "# bf16 against float32",
        "",
        f"Masked words, {asked.steps} steps of 4,096 positions, 3 layers of 256, the same steps in both formats; loss "
        "on held-out masked words. Made by `python bench/speed/precision.py`.",
        "",
        "| | " + " | ".join(f"seed {seed}" for seed in range(1, asked.seeds + 1)) + " | mean | tokens/s |",
        "|---" * (asked.seeds + 3) + "|",
        *(
            f"| {precision} | {' | '.join(f'{loss:.4f}' for loss in losses)} | {statistics.mean(losses):.4f} | "
            f"{statistics.median(rates[precision]):,.0f} |"
            for precision, losses in found.items()
        ),
        "",
        f"bf16 - float32: {difference:+.4f}; standard deviation over seeds: {spread:.4f}. "
        f"{time.strftime('%Y-%m-%d')}, {cpu_name()}.",
    ]
    (HERE / "PRECISION.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
