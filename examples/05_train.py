"""The whole road by one call: tokenizer, pretraining, fine-tuning, scores beside baselines, a report.

python 05_train.py [PRETRAINING BUDGET [FOLDER]]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from made_text import write_csv

import encodery

budget = sys.argv[1] if len(sys.argv) > 1 else "10s"
folder = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="encodery-"))
folder.mkdir(parents=True, exist_ok=True)

recipe = {
    "name": "help-desk",
    "output": str(folder / "run"),
    "data": {
        "train": str(write_csv(folder / "train.csv", 600, seed=1)),
        "test": str(write_csv(folder / "test.csv", 200, seed=2)),
        "label": "topic",
    },
    "tokenizer": {"vocab_size": 400},
    "encoder": {"preset": "tiny", "max_length": 64},
    "pretrain": {"training": {"budget": budget}},
    "objective": "classify",
    "training": {"budget": "3 epochs", "batch_tokens": 1024},
    "evaluation": {"compare": ["majority", "tfidf", "scratch"]},
}
# The same recipe can stand in a YAML file: encodery train recipe.yaml; changes are "key=value" in both.
result = encodery.train(recipe, "seed=3")

for row in result.record.comparison:
    print(f"{row.name:<30} {result.record.main_metric} {row.metric}")
print(f"model:  {result.folder}")
print(f"report: {result.folder / 'report.html'}")
