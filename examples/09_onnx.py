"""Use an exported model without this project: ONNX Runtime and the tokenizer, nothing else.

python 09_onnx.py [FOLDER]      a folder of `encodery export --to onnx`; without one, a small model is made first
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import tokenizers
from made_text import messages, write_csv

TEXTS = [text for text, _ in messages(4, seed=9)]


def made(place: Path) -> Path:
    """Train a small model and export it, by the commands that one would type."""
    recipe = {
        "data": {"train": str(write_csv(place / "train.csv", 400)), "label": "topic"},
        "tokenizer": {"vocab_size": 400},
        "encoder": {"preset": "tiny", "depth": 1, "max_length": 64},
        "objective": {"kind": "classify", "ngrams": 1, "letters": 4},
        "training": {"budget": "5 epochs", "batch_tokens": 1024},
        "evaluation": {"compare": ["majority"]},
        "output": str(place / "run"),
    }
    (place / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    for words in (["train", "recipe.yaml", "--quiet"], ["export", "run", "--to", "onnx", "--output", "onnx"]):
        subprocess.run([sys.executable, "-m", "encodery", *words], cwd=place, check=True, stdout=subprocess.DEVNULL)
    return place / "onnx"


folder = Path(sys.argv[1]) if len(sys.argv) > 1 else made(Path(tempfile.mkdtemp(prefix="encodery-")))
config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
session = onnxruntime.InferenceSession(str(folder / "model.onnx"))

# Special tokens, the longest length and padding are in tokenizer.json.
rows = tokenizer.encode_batch([(text, text) for text in TEXTS] if config["paired"] else TEXTS)
inputs = {
    "input_ids": [row.ids for row in rows],
    "attention_mask": [row.attention_mask for row in rows],
    "token_type_ids": [row.type_ids for row in rows],
    "word_ids": [[-1 if word is None else word for word in row.word_ids] for row in rows],
}
(output,) = session.run(None, {name: np.array(inputs[name], dtype=np.int64) for name in config["inputs"]})
print(f"{config['output']}: {' x '.join(map(str, output.shape))}, {config['precision']}")

if config["task"] == "classify" and config["output"] == "logits":
    shares = np.exp(output / config["temperature"] - output.max(axis=1, keepdims=True) / config["temperature"])
    shares /= shares.sum(axis=1, keepdims=True)
    for text, share in zip(TEXTS, shares):
        print(f"{config['labels'][share.argmax()]} ({share.max():.2f}): {text}")
elif config["task"] == "regress" and config["output"] == "logits":
    print(output[:, 0] * config["scale"] + config["center"])
elif config["output"] == "sentence_embedding":
    lengths = np.linalg.norm(output, axis=1)
    print(np.round(output @ output.T / lengths / lengths[:, None], 2))
